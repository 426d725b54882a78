/* What search decided, read from its records again. */
#include <stdio.h>
#include <string.h>

#include "quant/agrid.h"
#include "task/search_held.h"
#include "task/search_nf.h"

static int parse_grid(struct vq_wgrid *g, const json_t *attrs, const char *label,
		      struct vq_err *err)
{
	json_t *j;

	if (vq_json_obj(attrs, "grid", &j, label, err) < 0)
		return VQ_E_DATA;
	if (!j)
		return vq_fail(err, VQ_E_DATA, "'%s': want an attribute 'grid'", label);
	if (vq_json_u32(j, "bits", 0, &g->bits, label, err) < 0 ||
	    vq_json_u32(j, "group", 0, &g->group, label, err) < 0 ||
	    vq_json_bool(j, "sym", 0, &g->sym, label, err) < 0)
		return VQ_E_DATA;
	if (g->bits < 2 || g->bits > 8)
		return vq_fail(err, VQ_E_DATA, "'%s': want grid bits 2..8, got %u", label, g->bits);
	return VQ_OK;
}

/* A grid record of the shape that the codes ask for. */
static int find_grid(const struct vq_held_list *l, const char *weight, const char *suffix,
		     enum vq_dtype type, const struct vq_codes *c, const void **data,
		     struct vq_err *err)
{
	uint32_t n_groups = vq_grid_n_groups(&c->grid, c->n_in);
	char name[VQ_NAME_MAX + 1];
	const struct vq_held *h;

	if (vq_held_sibling(name, weight, suffix, err) < 0)
		return VQ_E_DATA;
	h = vq_held_find(l, name);
	if (!h)
		return vq_fail(err, VQ_E_DATA, "'%s': its '%s' is missing", weight, name);
	if (h->rec.dtype != type || h->rec.n_dims != 2 || h->rec.dims[0] != c->n_out ||
	    h->rec.dims[1] != n_groups)
		return vq_fail(err, VQ_E_DATA, "'%s': want %s [%u, %u]", name, vq_dtype_name(type),
			       c->n_out, n_groups);
	*data = h->data;
	return VQ_OK;
}

/* The transform of a linear of n_in inputs, from the records of the one that it names. */
static int find_transform(const struct vq_held_list *l, const struct vq_held *h, uint32_t n_in,
			  struct vq_transform *t, struct vq_err *err)
{
	const json_t *j = json_object_get(h->rec.attrs, "transform");
	struct vq_transform_attr a;
	uint32_t p;

	if (!j)
		return VQ_OK;
	if (vq_transform_attr_parse(&a, j, n_in, h->rec.name, err) < 0)
		return VQ_E_DATA;
	for (p = 0; p < a.n_parts; p++) {
		const struct vq_held *r;
		struct vq_tensor v = {0};
		char name[VQ_NAME_MAX + 1];

		snprintf(name, sizeof(name), "%s%s", a.from, vq_transform_suffix(p));
		r = vq_held_find(l, name);
		if (!r)
			return vq_fail(err, VQ_E_DATA, "'%s': the '%s' of its transform is missing",
				       h->rec.name, name);
		v = (struct vq_tensor){r->rec.dtype, r->rec.n_dims, {0}, r->data};
		memcpy(v.dims, r->rec.dims, sizeof(v.dims));
		if (vq_transform_set(t, &a, p, &v, name, err) < 0)
			return VQ_E_DATA;
	}
	return VQ_OK;
}

/* X.range, as many as the grid wants; of a sequence's positions, as many as there are. */
static int find_ranges(const struct vq_held_list *l, const char *weight, uint64_t n_in,
		       struct vq_agrid *g, struct vq_err *err)
{
	char name[VQ_NAME_MAX + 1];
	const struct vq_held *h;

	if (g->bits == VQ_ACT_FLOAT || g->range == VQ_RANGE_TOKEN)
		return VQ_OK;
	if (vq_held_sibling(name, weight, ".range", err) < 0)
		return VQ_E_DATA;
	h = vq_held_find(l, name);
	if (!h || h->rec.dtype != VQ_F32 || h->rec.n_dims != 2 || h->rec.dims[0] != 2 ||
	    h->rec.dims[1] > UINT32_MAX || n_in > UINT32_MAX)
		return vq_fail(err, VQ_E_DATA, "'%s': want '%s', f32 [2, ranges]", weight, name);
	return vq_agrid_set_ranges(g, h->data, (size_t)h->rec.dims[1], (uint32_t)n_in,
				   (uint32_t)h->rec.dims[1], name, err);
}

int vq_held_searched(const struct vq_held_list *l, const char *name, struct vq_searched *q,
		     struct vq_err *err)
{
	const struct vq_held *h = vq_held_find(l, name);
	const void *scale, *zero = NULL;
	uint32_t nf;
	json_t *act;

	*q = (struct vq_searched){.act = {.bits = 16, .clip = 1}, .clip = 1};
	if (!h)
		return vq_fail(err, VQ_E_DATA, "'%s' is missing", name);
	if (vq_json_obj(h->rec.attrs, "act", &act, name, err) < 0 ||
	    (act && vq_agrid_parse(&q->act, act, name, err) < 0) ||
	    find_ranges(l, name, h->rec.n_dims == 2 ? h->rec.dims[1] : 0, &q->act, err) < 0)
		return VQ_E_DATA;
	if (h->rec.dtype != VQ_U8)
		return json_object_get(h->rec.attrs, "transform")
			       ? vq_fail(err, VQ_E_DATA, "'%s': has a transform but no codes", name)
			       : VQ_OK;
	if (h->rec.n_dims != 2 || h->rec.dims[0] > UINT32_MAX || h->rec.dims[1] > UINT32_MAX)
		return vq_fail(err, VQ_E_DATA, "'%s': want codes [out, in]", name);
	if (vq_nf_grid_parse(json_object_get(h->rec.attrs, "grid"), &nf, name, err) < 0)
		return VQ_E_DATA;
	if (nf)
		return vq_held_find_nf(l, h, nf, &q->nf, err) < 0
			       ? VQ_E_DATA
			       : find_transform(l, h, q->nf.n_in, &q->transform, err);
	q->codes.n_out = (uint32_t)h->rec.dims[0];
	q->codes.n_in = (uint32_t)h->rec.dims[1];
	if (parse_grid(&q->codes.grid, h->rec.attrs, name, err) < 0 ||
	    find_grid(l, name, ".scale", VQ_F16, &q->codes, &scale, err) < 0 ||
	    (!q->codes.grid.sym && find_grid(l, name, ".zero", VQ_U8, &q->codes, &zero, err) < 0) ||
	    vq_json_f32(h->rec.attrs, "clip", 1, &q->clip, name, err) < 0 ||
	    find_transform(l, h, q->codes.n_in, &q->transform, err) < 0)
		return VQ_E_DATA;
	/* Borrowed: nobody writes through these. */
	q->codes.codes = h->data;
	q->codes.scale = (uint16_t *)(uintptr_t)scale;
	q->codes.zero = (uint8_t *)(uintptr_t)zero;
	return VQ_OK;
}
