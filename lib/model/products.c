/* How all of a model's linears multiply. */
#include "model/products.h"

typedef void (*set_fn)(struct vq_linear *l, enum vq_gemm_way way);

static void set_way(struct vq_linear *l, enum vq_gemm_way way)
{
	l->way = way;
}

static void set_exact(struct vq_linear *l, enum vq_gemm_way way)
{
	(void)way; /* one visitor's type serves both */
	l->exact = 1;
}

static void each_layer(struct vq_layer *layers, uint32_t n, set_fn set, enum vq_gemm_way way)
{
	uint32_t i, k;

	for (i = 0; i < n; i++) {
		for (k = 0; k < VQ_N_LINEARS; k++)
			set(&layers[i].lin[k], way);
		for (k = 0; k < layers[i].n_experts * VQ_EXPERT_LINEARS; k++)
			set(&layers[i].experts[k], way);
	}
}

static void each_linear(struct vq_model *m, set_fn set, enum vq_gemm_way way)
{
	uint32_t i;

	if (m->cfg.has_vision) {
		each_layer(m->vision.layers, m->cfg.vision.n_layers, set, way);
		for (i = 0; i < m->cfg.projector.n_linears; i++)
			set(&m->projector.fc[i], way);
	}
	each_layer(m->decoder.layers, m->cfg.decoder.n_layers, set, way);
	set(&m->decoder.head, way);
}

void vq_model_products(struct vq_model *m, enum vq_gemm_way way)
{
	each_linear(m, set_way, way);
}

void vq_model_exact(struct vq_model *m)
{
	each_linear(m, set_exact, VQ_GEMM_FLOAT32);
}
