/* AWQ's scales folded into a transformer layer. */
#include "task/search_fold.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

int vq_fold_can(const struct vq_layer *l, enum vq_slot slot, int decoder)
{
	if (slot == VQ_SLOT_O)
		return decoder && l->lin[VQ_LIN_V].n_out == l->lin[VQ_LIN_O].n_in;
	if (slot == VQ_SLOT_DOWN)
		return l->cfg->gated;
	return slot == VQ_SLOT_QKV || !l->cfg->parallel;
}

float **vq_fold_at(struct vq_fold *f, const struct vq_layer *l, enum vq_slot slot, uint32_t expert)
{
	if (l->cfg->parallel && slot == VQ_SLOT_UP)
		slot = VQ_SLOT_QKV;
	return l->n_experts && slot == VQ_SLOT_DOWN ? &f->down[expert] : &f->s[slot];
}

static const float *scales(const struct vq_fold *f, const struct vq_layer *l, enum vq_slot slot,
			   uint32_t expert)
{
	return *vq_fold_at((struct vq_fold *)(uintptr_t)f, l, slot, expert); /* only read */
}

static const struct vq_linear *linear(const struct vq_layer *l, enum vq_lin k, uint32_t expert)
{
	return vq_layer_linear((struct vq_layer *)(uintptr_t)l, k, expert); /* only read */
}

struct vq_awq_weight vq_fold_weight(const struct vq_fold *f, const struct vq_layer *l,
				    enum vq_lin k, uint32_t expert)
{
	const struct vq_linear *m = linear(l, k, expert);
	struct vq_awq_weight w = {m->w, m->dtype, m->n_out, m->n_in, NULL, NULL};

	w.in = scales(f, l, vq_lin_slot(k), expert);
	if (k == VQ_LIN_V)
		w.out = f->s[VQ_SLOT_O];
	if (k == VQ_LIN_UP)
		w.out = scales(f, l, VQ_SLOT_DOWN, expert);
	return w;
}

/* "experts.E.rest" -> E, and rest in *name; another name is of expert 0 and stays. */
static uint32_t expert_of(const struct vq_layer *l, const char **name)
{
	char *end;
	unsigned long e;

	if (!l->n_experts || strncmp(*name, "experts.", 8) != 0)
		return 0;
	e = strtoul(*name + 8, &end, 10);
	*name = *end == '.' && e < l->n_experts ? end + 1 : "";
	return e < l->n_experts ? (uint32_t)e : 0;
}

/* What reads the divided input has its columns multiplied. */
static int router(const struct vq_fold *f, const struct vq_layer *l, float **out,
		  struct vq_err *err)
{
	const float *s = scales(f, l, VQ_SLOT_UP, 0);
	size_t d = l->cfg->hidden, n = l->n_experts * d, i;

	if (!s || !n)
		return 0;
	*out = vq_alloc_f32(n, err);
	if (!*out)
		return VQ_E_SYS;
	for (i = 0; i < n; i++)
		(*out)[i] = l->router[i] * s[i % d];
	return 1;
}

int vq_fold_floats(const struct vq_fold *f, const struct vq_layer *l, const char *name, float **out,
		   struct vq_err *err)
{
	uint32_t expert = expert_of(l, &name), i, j;
	const struct vq_linear *up = linear(l, VQ_LIN_UP, expert);
	const struct {
		const char *name;
		const float *v, *s;
		uint32_t n;
	} all[] = {
		{"norm1.weight", l->norm1_w, f->s[VQ_SLOT_QKV], l->cfg->hidden},
		{"norm1.bias", l->norm1_b, f->s[VQ_SLOT_QKV], l->cfg->hidden},
		{"norm2.weight", l->norm2_w, f->s[VQ_SLOT_UP], l->cfg->hidden},
		{"norm2.bias", l->norm2_b, f->s[VQ_SLOT_UP], l->cfg->hidden},
		{"v_proj.bias", l->lin[VQ_LIN_V].bias, f->s[VQ_SLOT_O], l->lin[VQ_LIN_V].n_out},
		{"up_proj.bias", up->bias, scales(f, l, VQ_SLOT_DOWN, expert), up->n_out},
	};

	if (strcmp(name, "router.weight") == 0)
		return router(f, l, out, err);
	for (i = 0; i < sizeof(all) / sizeof(all[0]) && strcmp(name, all[i].name) != 0; i++)
		;
	if (i == sizeof(all) / sizeof(all[0]) || !all[i].v || !all[i].s)
		return 0;
	*out = vq_alloc_f32(all[i].n, err);
	if (!*out)
		return VQ_E_SYS;
	for (j = 0; j < all[i].n; j++)
		(*out)[j] = all[i].v[j] / all[i].s[j];
	return 1;
}

void vq_fold_free(struct vq_fold *f)
{
	uint32_t i;

	for (i = 0; i < VQ_N_SLOTS; i++)
		vq_free(f->s[i]);
	for (i = 0; i < VQ_LIMIT_EXPERTS; i++)
		vq_free(f->down[i]);
	memset(f, 0, sizeof(*f));
}
