/* Records held in memory. */
#include "task/search_held.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "quant/agrid.h"
#include "task/search_nf.h"

static int make_room(struct vq_held_list *l, struct vq_err *err)
{
	size_t room = l->room ? 2 * l->room : 16;
	void *p = l->items;

	if (l->n < l->room)
		return VQ_OK;
	if (vq_grow(&p, l->room, room, sizeof(*l->items), err) < 0)
		return VQ_E_SYS;
	l->items = p;
	l->room = room;
	return VQ_OK;
}

int vq_held_take(struct vq_held_list *l, const struct vq_record *rec, void *data,
		 struct vq_err *err)
{
	if (make_room(l, err) < 0) {
		json_decref(rec->attrs);
		vq_free(data);
		return VQ_E_SYS;
	}
	l->items[l->n].rec = *rec;
	l->items[l->n++].data = data;
	return VQ_OK;
}

int vq_held_load(struct vq_held_list *l, struct vq_reader *r, const struct vq_record *rec,
		 struct vq_err *err)
{
	struct vq_record own = *rec;
	void *data;
	int rc = vq_reader_load(r, &data, err);

	if (rc < 0)
		return rc;
	if (rec->attrs) {
		own.attrs = json_deep_copy(rec->attrs);
		if (!own.attrs) {
			vq_free(data);
			return vq_fail(err, VQ_E_SYS, "memory: cannot copy attributes");
		}
	}
	return vq_held_take(l, &own, data, err);
}

int vq_held_move(struct vq_held_list *l, struct vq_held_list *from, struct vq_err *err)
{
	size_t i;

	for (i = 0; i < from->n; i++) {
		if (make_room(l, err) < 0) {
			/* What was moved is l's now; the rest stays with from. */
			memmove(from->items, from->items + i, (from->n - i) * sizeof(*from->items));
			from->n -= i;
			return VQ_E_SYS;
		}
		l->items[l->n++] = from->items[i];
	}
	from->n = 0;
	return VQ_OK;
}

int vq_held_put(const struct vq_held_list *l, struct vq_writer *w, struct vq_err *err)
{
	size_t i;
	int rc;

	for (i = 0; i < l->n; i++) {
		rc = vq_writer_put(w, &l->items[i].rec, l->items[i].data, err);
		if (rc < 0)
			return rc;
	}
	return VQ_OK;
}

void vq_held_clear(struct vq_held_list *l)
{
	size_t i;

	for (i = 0; i < l->n; i++) {
		json_decref(l->items[i].rec.attrs);
		vq_free(l->items[i].data);
	}
	vq_free(l->items);
	*l = (struct vq_held_list){0};
}

const struct vq_held *vq_held_find(const struct vq_held_list *l, const char *name)
{
	size_t i;

	for (i = 0; i < l->n; i++)
		if (strcmp(l->items[i].rec.name, name) == 0)
			return &l->items[i];
	return NULL;
}

int vq_held_sibling(char out[VQ_NAME_MAX + 1], const char *weight, const char *suffix,
		    struct vq_err *err)
{
	size_t n = strlen(weight), tail = strlen(".weight");

	if (n <= tail || strcmp(weight + n - tail, ".weight") != 0)
		return vq_fail(err, VQ_E_DATA, "'%s': want a linear layer's name ending in .weight",
			       weight);
	if (snprintf(out, VQ_NAME_MAX + 1, "%.*s%s", (int)(n - tail), weight, suffix) > VQ_NAME_MAX)
		return vq_fail(err, VQ_E_DATA, "'%s': the name is too long", weight);
	return VQ_OK;
}

/* "Y.weight" -> attribute 'transform'. */
static json_t *transform_json(const struct vq_searched *q, struct vq_err *err)
{
	char stem[VQ_NAME_MAX + 1];

	return vq_held_sibling(stem, q->transform_from, "", err) < 0
		       ? NULL
		       : vq_transform_attr_json(&q->transform, stem);
}

/* What a record was made from: the hash of the weight that came in. */
static int set_source(json_t *attrs, const struct vq_held *in)
{
	char source[17];

	snprintf(source, sizeof(source), "%016" PRIx64, in->rec.hash);
	return json_object_set_new(attrs, "source", json_string(source));
}

void vq_searched_free(struct vq_searched *q)
{
	vq_codes_free(&q->codes);
	vq_nf_free(&q->nf);
}

/* What only a weight of codes has. */
static int set_grid(json_t *a, const struct vq_held *in, const struct vq_searched *q)
{
	const struct vq_wgrid *g = &q->codes.grid;
	json_t *grid = q->nf.bits ? vq_nf_grid_json(q->nf.bits)
				  : json_pack("{s:I,s:I,s:b}", "bits", (json_int_t)g->bits, "group",
					      (json_int_t)g->group, "sym", g->sym);
	int bad;

	bad = json_object_set_new(a, "grid", grid) < 0;
	if (q->nf.bits)
		bad = bad || json_object_set_new(a, "error_bytes", json_real(q->error_bytes)) < 0;
	else
		bad = bad || json_object_set_new(a, "clip", json_real((double)q->clip)) < 0;
	return bad || json_object_set_new(a, "error", json_real(q->error)) < 0 ||
	       set_source(a, in) < 0;
}

/* The attributes of a linear: those it came with and ours. */
static json_t *linear_attrs(const struct vq_held *in, const struct vq_searched *q,
			    struct vq_err *err)
{
	json_t *a = in->rec.attrs ? json_deep_copy(in->rec.attrs) : json_object();
	int bad = !a;

	if (q->act.bits != 16)
		bad = bad || json_object_set_new(a, "act", vq_agrid_json(&q->act)) < 0;
	if (q->codes.codes || q->nf.bits)
		bad = bad || set_grid(a, in, q);
	if (q->transform.n)
		bad = bad || json_object_set_new(a, "transform", transform_json(q, err)) < 0;
	if (bad) {
		json_decref(a);
		vq_fail(err, VQ_E_SYS, "memory: cannot make attributes");
		return NULL;
	}
	return a;
}

int vq_held_grid(struct vq_held_list *l, const struct vq_held *in, const char *suffix,
		 struct vq_record r, void *data, struct vq_err *err)
{
	json_t *unit = json_object_get(in->rec.attrs, "unit");

	r.kind = VQ_KIND_GRID;
	if (vq_held_sibling(r.name, in->rec.name, suffix, err) < 0) {
		vq_free(data);
		return VQ_E_DATA;
	}
	r.attrs = unit ? json_pack("{s:O}", "unit", unit) : NULL;
	if (unit && !r.attrs) {
		vq_free(data);
		return vq_fail(err, VQ_E_SYS, "memory: cannot make attributes");
	}
	return vq_held_take(l, &r, data, err);
}

/* [n_rows, n]: scale, zero or range. */
static int add_grid(struct vq_held_list *l, const struct vq_held *in, const char *suffix,
		    enum vq_dtype type, uint64_t n_rows, uint32_t n, void *data, struct vq_err *err)
{
	struct vq_record r = {.dtype = type, .n_dims = 2, .dims = {n_rows, n}};

	return vq_held_grid(l, in, suffix, r, data, err);
}

/* A part of the transform, copied. */
static int add_transform(struct vq_held_list *l, const struct vq_held *in, enum vq_transform_part p,
			 const struct vq_transform *t, struct vq_err *err)
{
	struct vq_record r = {.dtype = VQ_F32};
	int matrix = p == VQ_TRANSFORM_PART_MATRIX;
	size_t n = matrix ? (size_t)t->n * t->block : t->n, i;
	float *data = vq_alloc_f32(n, err);

	if (!data)
		return VQ_E_SYS;
	r.n_dims = matrix ? 3 : 1;
	r.dims[0] = matrix ? t->n / t->block : t->n;
	r.dims[1] = r.dims[2] = matrix ? t->block : 0;
	for (i = 0; i < n; i++)
		data[i] = matrix ? t->matrix[i] : t->scale ? t->scale[i] : 1;
	return vq_held_grid(l, in, vq_transform_suffix(p), r, data, err);
}

/* X.range: lows, then highs. */
static int add_ranges(struct vq_held_list *l, const struct vq_held *in, const struct vq_agrid *g,
		      struct vq_err *err)
{
	float *both;

	if (g->bits == VQ_ACT_FLOAT || g->range == VQ_RANGE_TOKEN)
		return VQ_OK;
	both = vq_alloc_f32(2 * (size_t)g->n_ranges, err);
	if (!both)
		return VQ_E_SYS;
	memcpy(both, g->lo, g->n_ranges * sizeof(float));
	memcpy(both + g->n_ranges, g->hi, g->n_ranges * sizeof(float));
	return add_grid(l, in, ".range", VQ_F32, 2, g->n_ranges, both, err);
}

/* The weight as it came, with attributes of ours. */
static int add_copy(struct vq_held_list *l, const struct vq_held *in, json_t *attrs,
		    struct vq_err *err)
{
	struct vq_record r = in->rec;
	void *data = vq_alloc(r.raw_bytes, 1, err);

	if (!data) {
		json_decref(attrs);
		return VQ_E_SYS;
	}
	memcpy(data, in->data, r.raw_bytes);
	r.attrs = attrs;
	return vq_held_take(l, &r, data, err);
}

static int add_scales(struct vq_held_list *l, const struct vq_held *in, struct vq_codes *c,
		      struct vq_err *err)
{
	uint32_t n_groups = vq_grid_n_groups(&c->grid, c->n_in);
	int rc = add_grid(l, in, ".scale", VQ_F16, c->n_out, n_groups, c->scale, err);

	c->scale = NULL;
	if (rc == VQ_OK && c->zero) {
		rc = add_grid(l, in, ".zero", VQ_U8, c->n_out, n_groups, c->zero, err);
		c->zero = NULL;
	}
	return rc;
}

int vq_held_linear(struct vq_held_list *l, const struct vq_held *in, struct vq_searched *q,
		   struct vq_err *err)
{
	uint8_t **codes = q->nf.bits ? &q->nf.codes : &q->codes.codes;
	struct vq_record r = in->rec;
	int rc;

	if (q->transform.n && !*codes)
		return vq_fail(err, VQ_E_DATA, "'%s': a transform wants codes", in->rec.name);
	r.attrs = linear_attrs(in, q, err);
	if (!r.attrs)
		return VQ_E_SYS;
	if (!*codes) {
		rc = add_copy(l, in, r.attrs, err);
		return rc < 0 ? rc : add_ranges(l, in, &q->act, err);
	}
	r.dtype = VQ_U8;
	r.raw_bytes = r.dims[0] * r.dims[1];
	r.hash = 0;
	rc = vq_held_take(l, &r, *codes, err);
	*codes = NULL;
	if (rc == VQ_OK)
		rc = q->nf.bits ? vq_held_put_absmax(l, in, &q->nf.absmax, err)
				: add_scales(l, in, &q->codes, err);
	if (rc == VQ_OK)
		rc = add_ranges(l, in, &q->act, err);
	if (q->transform.n && strcmp(q->transform_from, in->rec.name) == 0) {
		if (rc == VQ_OK)
			rc = add_transform(l, in, VQ_TRANSFORM_PART_SCALE, &q->transform, err);
		if (rc == VQ_OK && q->transform.matrix)
			rc = add_transform(l, in, VQ_TRANSFORM_PART_MATRIX, &q->transform, err);
	}
	return rc;
}

int vq_held_floats(struct vq_held_list *l, const struct vq_held *in, float *v, struct vq_err *err)
{
	struct vq_record r = in->rec;

	r.attrs = r.attrs ? json_deep_copy(r.attrs) : json_object();
	if (!r.attrs || set_source(r.attrs, in) < 0) {
		json_decref(r.attrs);
		vq_free(v);
		return vq_fail(err, VQ_E_SYS, "memory: cannot make attributes");
	}
	r.raw_bytes = r.raw_bytes / vq_dtype_size(r.dtype) * sizeof(float);
	r.dtype = VQ_F32;
	r.hash = 0;
	return vq_held_take(l, &r, v, err);
}
