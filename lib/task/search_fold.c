/* AWQ's scales folded into a transformer layer. */
#include "task/search_fold.h"

#include <string.h>

#include "base/mem.h"

int vq_fold_can(const struct vq_layer *l, enum vq_slot slot, int decoder)
{
	if (slot == VQ_SLOT_O)
		return decoder && l->lin[VQ_LIN_V].n_out == l->lin[VQ_LIN_O].n_in;
	if (slot == VQ_SLOT_DOWN)
		return l->cfg->gated;
	return !l->cfg->parallel;
}

struct vq_awq_weight vq_fold_weight(const struct vq_fold *f, const struct vq_layer *l,
				    enum vq_lin k)
{
	const struct vq_linear *m = &l->lin[k];
	struct vq_awq_weight w = {m->w, m->dtype, m->n_out, m->n_in, f->s[vq_lin_slot(k)], NULL};

	if (k == VQ_LIN_V)
		w.out = f->s[VQ_SLOT_O];
	if (k == VQ_LIN_UP)
		w.out = f->s[VQ_SLOT_DOWN];
	return w;
}

int vq_fold_vector(const struct vq_fold *f, const struct vq_layer *l, const char *name, float **out,
		   uint32_t *n, struct vq_err *err)
{
	const struct {
		const char *name;
		const float *v;
		enum vq_slot slot;
		uint32_t n;
	} all[] = {
		{"norm1.weight", l->norm1_w, VQ_SLOT_QKV, l->cfg->hidden},
		{"norm1.bias", l->norm1_b, VQ_SLOT_QKV, l->cfg->hidden},
		{"norm2.weight", l->norm2_w, VQ_SLOT_UP, l->cfg->hidden},
		{"norm2.bias", l->norm2_b, VQ_SLOT_UP, l->cfg->hidden},
		{"v_proj.bias", l->lin[VQ_LIN_V].bias, VQ_SLOT_O, l->lin[VQ_LIN_V].n_out},
		{"up_proj.bias", l->lin[VQ_LIN_UP].bias, VQ_SLOT_DOWN, l->lin[VQ_LIN_UP].n_out},
	};
	uint32_t i, j;

	for (i = 0; i < sizeof(all) / sizeof(all[0]) && strcmp(name, all[i].name) != 0; i++)
		;
	if (i == sizeof(all) / sizeof(all[0]) || !all[i].v || !f->s[all[i].slot])
		return 0;
	*out = vq_alloc_f32(all[i].n, err);
	if (!*out)
		return VQ_E_SYS;
	for (j = 0; j < all[i].n; j++)
		(*out)[j] = all[i].v[j] / f->s[all[i].slot][j];
	*n = all[i].n;
	return 1;
}

void vq_fold_free(struct vq_fold *f)
{
	uint32_t i;

	for (i = 0; i < VQ_N_SLOTS; i++)
		vq_free(f->s[i]);
	memset(f, 0, sizeof(*f));
}
