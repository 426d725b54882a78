/* A model without some of its decoder's blocks. */
#include "task/prune_cut.h"

#include <string.h>

#include "base/mem.h"

int vq_prune_cut(struct vq_model *out, const struct vq_model *m, const struct vq_blocks *kept,
		 struct vq_err *err)
{
	struct vq_layer *layers = vq_alloc(kept->n, sizeof(*layers), err);
	uint32_t i;

	if (!layers)
		return VQ_E_SYS;
	for (i = 0; i < kept->n; i++)
		layers[i] = m->decoder.layers[kept->v[i]];
	*out = *m;
	out->decoder.layers = layers;
	out->cfg = vq_config_cut(&m->cfg, kept->v, kept->n);
	return VQ_OK;
}

void vq_prune_cut_free(struct vq_model *m)
{
	vq_free(m->decoder.layers);
	memset(m, 0, sizeof(*m));
}
