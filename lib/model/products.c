/* Which float products a model's linears use. */
#include "model/products.h"

static void set_layers(struct vq_layer *layers, uint32_t n, enum vq_gemm_way way)
{
	uint32_t i, k;

	for (i = 0; i < n; i++)
		for (k = 0; k < VQ_N_LINEARS; k++)
			layers[i].lin[k].way = way;
}

void vq_model_products(struct vq_model *m, enum vq_gemm_way way)
{
	uint32_t i;

	if (m->cfg.has_vision) {
		set_layers(m->vision.layers, m->cfg.vision.n_layers, way);
		for (i = 0; i < m->cfg.projector.n_linears; i++)
			m->projector.fc[i].way = way;
	}
	set_layers(m->decoder.layers, m->cfg.decoder.n_layers, way);
	m->decoder.head.way = way;
}
