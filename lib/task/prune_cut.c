/* A model without some of its decoder's blocks. */
#include "task/prune_cut.h"

#include <string.h>

#include "base/mem.h"

int vq_prune_cut(struct vq_model *out, const struct vq_model *m, const struct vq_blocks *kept,
		 struct vq_err *err)
{
	struct vq_layer *layers = vq_alloc(kept->n, sizeof(*layers), err);
	struct vq_linear *experts;
	size_t n = 0;
	uint32_t i;

	if (!layers)
		return VQ_E_SYS;
	for (i = 0; i < kept->n; i++) {
		layers[i] = m->decoder.layers[kept->v[i]];
		n += layers[i].n_experts;
	}
	experts = vq_alloc(n * VQ_EXPERT_LINEARS, sizeof(*experts), err);
	if (!experts) {
		vq_free(layers);
		return VQ_E_SYS;
	}
	*out = *m;
	out->decoder.experts = experts;
	for (i = 0; i < kept->n; i++) {
		n = (size_t)layers[i].n_experts * VQ_EXPERT_LINEARS;
		if (n)
			memcpy(experts, layers[i].experts, n * sizeof(*experts));
		layers[i].experts = experts;
		experts += n;
	}
	out->decoder.layers = layers;
	out->cfg = vq_config_cut(&m->cfg, kept->v, kept->n);
	return VQ_OK;
}

void vq_prune_cut_free(struct vq_model *m)
{
	vq_free(m->decoder.experts);
	vq_free(m->decoder.layers);
	memset(m, 0, sizeof(*m));
}
