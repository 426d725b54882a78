/* A small layer with random weights, norms near 1. */
#ifndef RANDOM_LAYER_H
#define RANDOM_LAYER_H

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/layer.h"

static inline float *random_rows(size_t n, double scale, uint64_t seed)
{
	struct vq_rng r = vq_rng_new(seed, "test");
	float *x = vq_alloc_f32(n, NULL);
	size_t i;

	assert_non_null(x);
	for (i = 0; i < n; i++)
		x[i] = (float)(scale * vq_rng_normal(r, i));
	return x;
}

struct random_layer {
	struct vq_layer_config cfg;
	struct vq_layer layer;
	/* What layer borrows; NULL where there is none. */
	float *weight[VQ_N_LINEARS], *bias[VQ_N_LINEARS], *norm[2], *norm_bias[2];
	/* Of random_layer_sparse */
	struct vq_linear experts[8 * VQ_EXPERT_LINEARS];
	float *expert_weight[8 * VQ_EXPERT_LINEARS], *router;
	struct vq_gating gating;
};

/* LLaMA's kind, or CLIP's. */
static inline void random_layer_new(struct random_layer *m, int llama, uint64_t seed)
{
	uint32_t i, j;

	memset(m, 0, sizeof(*m));
	m->cfg = (struct vq_layer_config){.hidden = 32,
					  .inter = 48,
					  .n_heads = 4,
					  .n_kv_heads = llama ? 2 : 4,
					  .head_dim = 8,
					  .norm = llama ? VQ_NORM_RMS : VQ_NORM_LAYER,
					  .eps = 1e-5f,
					  .act = llama ? VQ_ACT_SILU : VQ_ACT_QUICK_GELU,
					  .gated = llama,
					  .causal = llama,
					  .qkv_bias = !llama,
					  .o_bias = !llama,
					  .mlp_bias = !llama,
					  .rope_theta = llama ? 10000.0f : 0};
	vq_layer_init(&m->layer, &m->cfg);
	for (i = 0; i < VQ_N_LINEARS; i++) {
		struct vq_linear *l = &m->layer.lin[i];

		if (!l->n_out)
			continue;
		l->dtype = VQ_F32;
		l->w = m->weight[i] =
			random_rows((size_t)l->n_out * l->n_in, 1 / sqrt(l->n_in), seed + 10 + i);
		if (!llama)
			l->bias = m->bias[i] = random_rows(l->n_out, 0.1, seed + 30 + i);
	}
	for (i = 0; i < 2; i++) {
		m->norm[i] = random_rows(m->cfg.hidden, 0.2, seed + 50 + i);
		for (j = 0; j < m->cfg.hidden; j++)
			m->norm[i][j] += 1;
		if (!llama)
			m->norm_bias[i] = random_rows(m->cfg.hidden, 0.1, seed + 52 + i);
	}
	m->layer.norm1_w = m->norm[0];
	m->layer.norm2_w = m->norm[1];
	m->layer.norm1_b = m->norm_bias[0];
	m->layer.norm2_b = m->norm_bias[1];
}

/* LLaMA's kind with n experts, 8 at most. */
static inline void random_layer_sparse(struct random_layer *m, uint32_t n, uint32_t top_k,
				       uint64_t seed)
{
	struct vq_layer was;
	uint32_t i;

	random_layer_new(m, 1, seed);
	was = m->layer;
	m->gating = (struct vq_gating){.top_k = top_k, .capacity_factor = 2};
	vq_layer_init_sparse(&m->layer, &m->cfg, m->experts, n, 0, &m->gating);
	m->layer.norm1_w = was.norm1_w;
	m->layer.norm2_w = was.norm2_w;
	for (i = 0; i < VQ_LIN_UP; i++)
		m->layer.lin[i] = was.lin[i];
	for (i = 0; i < n * VQ_EXPERT_LINEARS; i++) {
		struct vq_linear *l = &m->experts[i];

		l->dtype = VQ_F32;
		l->w = m->expert_weight[i] =
			random_rows((size_t)l->n_out * l->n_in, 1 / sqrt(l->n_in), seed + 100 + i);
	}
	m->layer.router = m->router = random_rows((size_t)n * m->cfg.hidden, 0.2, seed + 99);
}

static inline void random_layer_free(struct random_layer *m)
{
	uint32_t i;

	for (i = 0; i < 8 * VQ_EXPERT_LINEARS; i++)
		vq_free(m->expert_weight[i]);
	vq_free(m->router);

	for (i = 0; i < VQ_N_LINEARS; i++) {
		vq_free(m->weight[i]);
		vq_free(m->bias[i]);
	}
	for (i = 0; i < 2; i++) {
		vq_free(m->norm[i]);
		vq_free(m->norm_bias[i]);
	}
}

#endif
