/* A place and its rounding functions. */
#include "task/search_place.h"

#include <string.h>

#include "base/mem.h"
#include "quant/nf_packed.h"
#include "quant/rtn.h"
#include "quant/smooth.h"
#include "task/search_nf.h"

/* Marks the values whose ratio no value before them has. */
static void mark_usable(const float *ratio, uint8_t *usable)
{
	uint32_t v, u;

	for (v = 0; v < VQ_QVLM_VALUES; v++) {
		usable[v] = 1;
		for (u = 0; u < v; u++)
			if (ratio[u] == ratio[v])
				usable[v] = 0;
	}
}

static void ratios(const struct vq_clip_hist *h, float *ratio)
{
	uint32_t v;

	for (v = 0; v < VQ_QVLM_VALUES; v++)
		ratio[v] = vq_clip_ratio(h, vq_clip_percentiles[v]);
}

#define STEP 256u /* rows converted at a time */

void vq_place_transform(struct vq_place *p, const struct vq_transform *t,
			const struct vq_transform *back)
{
	p->transform[p->n_transforms] = *t;
	p->back[p->n_transforms++] = *back;
}

/* The number of the transform of value v; there is one. */
static uint32_t transform_at(const struct vq_place *p, uint32_t v)
{
	return p->n_transforms == 1 ? 0 : v;
}

const struct vq_transform *vq_place_transform_of(const struct vq_place *p, uint32_t v)
{
	return p->n_transforms ? &p->transform[transform_at(p, v)] : NULL;
}

void vq_place_see(const struct vq_place *p, uint32_t a, uint32_t v, const float *x, size_t n_rows,
		  float *out)
{
	const struct vq_transform *t = vq_place_transform_of(p, v);
	uint32_t n_in = p->lin[0].full->n_in;
	struct vq_agrid g = {.bits = VQ_ACT_FLOAT};

	if (t)
		vq_transform_rows(t, x, n_rows, out);
	if (a < VQ_QVLM_VALUES)
		g = vq_place_grid(p, a, v);
	vq_act_fake(&g, t ? out : x, n_rows, n_in, out);
}

/* Some rows of the weight of linear i with value v. */
static int weight_rows(const struct vq_place *p, uint32_t i, uint32_t v, size_t row, size_t n,
		       float *out, struct vq_err *err)
{
	const struct vq_linear *l = p->lin[i].full;
	struct vq_tensor t = {l->dtype, 2, {l->n_out, l->n_in}, l->w};
	int rc = vq_tensor_to_f32(&t, row * l->n_in, n * l->n_in, out, err);

	if (rc == VQ_OK && p->n_transforms)
		vq_transform_rows(&p->back[transform_at(p, v)], out, n, out);
	return rc;
}

int vq_place_weight(const struct vq_place *p, uint32_t i, uint32_t v, struct vq_tensor *w,
		    float **buf, struct vq_err *err)
{
	const struct vq_linear *l = p->lin[i].full;

	*buf = NULL;
	*w = (struct vq_tensor){l->dtype, 2, {l->n_out, l->n_in}, l->w};
	if (!p->n_transforms)
		return VQ_OK;
	*buf = vq_alloc_f32((size_t)l->n_out * l->n_in, err);
	if (!*buf)
		return VQ_E_SYS;
	w->dtype = VQ_F32;
	w->data = *buf;
	return weight_rows(p, i, v, 0, l->n_out, *buf, err);
}

int vq_place_measure_input(struct vq_place *p, const float *x, size_t n_rows, struct vq_err *err)
{
	uint32_t n_in = p->lin[0].full->n_in, v;
	struct vq_clip_hist h;
	size_t at, n;
	float *buf;

	for (v = 0; v < VQ_QVLM_VALUES; v++)
		p->a_ratio[v] = 1;
	if (p->a.bits != VQ_ACT_FLOAT && p->a.range != VQ_RANGE_TOKEN)
		return vq_place_measure_ranges(p, x, n_rows, 0, err);
	if (p->a.bits != VQ_ACT_FLOAT) {
		buf = vq_alloc_f32((size_t)STEP * n_in, err);
		if (!buf)
			return VQ_E_SYS;
		vq_clip_init(&h, p->a.group, p->a.sym);
		for (at = 0; at < n_rows; at += n) {
			n = n_rows - at < STEP ? n_rows - at : STEP;
			vq_place_see(p, VQ_QVLM_VALUES, 0, x + at * n_in, n, buf);
			vq_clip_add(&h, buf, n, n_in);
		}
		vq_free(buf);
		ratios(&h, p->a_ratio);
	}
	mark_usable(p->a_ratio, p->a_usable);
	return VQ_OK;
}

/* The histogram of the weight of linear i, some rows at a time. */
static int weight_hist(struct vq_clip_hist *h, const struct vq_place *p, uint32_t i,
		       struct vq_err *err)
{
	const struct vq_linear *l = p->lin[i].full;
	float *buf = vq_alloc_f32((size_t)STEP * l->n_in, err);
	int rc = buf ? VQ_OK : VQ_E_SYS;
	size_t row, n;

	for (row = 0; rc == VQ_OK && row < l->n_out; row += n) {
		n = l->n_out - row < STEP ? l->n_out - row : STEP;
		rc = weight_rows(p, i, 0, row, n, buf, err);
		if (rc == VQ_OK)
			vq_clip_add(h, buf, n, l->n_in);
	}
	vq_free(buf);
	return rc;
}

int vq_place_measure_weights(struct vq_place *p, struct vq_err *err)
{
	uint32_t i, v;

	memset(p->w_usable, 0, sizeof(p->w_usable));
	p->w_usable[0] = 1;
	for (i = 0; i < p->n; i++) {
		float ratio[VQ_QVLM_VALUES] = {1, 1, 1, 1, 1};
		uint8_t usable[VQ_QVLM_VALUES];
		struct vq_clip_hist h;

		if (p->w.bits != 16) {
			vq_clip_init(&h, p->w.group, p->w.sym);
			if (weight_hist(&h, p, i, err) < 0)
				return err ? err->code : VQ_E_SYS;
			ratios(&h, ratio);
		}
		for (v = 0; v < VQ_QVLM_VALUES; v++)
			p->lin[i].cand[v].ratio = ratio[v];
		mark_usable(ratio, usable);
		for (v = 0; v < VQ_QVLM_VALUES; v++)
			p->w_usable[v] |= usable[v];
	}
	return VQ_OK;
}

void vq_place_values_transform(struct vq_place *p)
{
	uint32_t i, v;

	for (v = 0; v < VQ_QVLM_VALUES; v++)
		p->w_usable[v] = v == 0 || v < p->n_transforms;
	for (i = 0; i < p->n; i++)
		for (v = 0; v < VQ_QVLM_VALUES; v++)
			p->lin[i].cand[v].ratio = 1;
}

static void drop(struct vq_cand *c)
{
	vq_free(c->planes);
	vq_free(c->scale);
	vq_free(c->zero);
	vq_free(c->absmax);
	vq_free(c->w);
	*c = (struct vq_cand){.ratio = c->ratio};
}

/* Codes -> what products read. */
static int pack(struct vq_cand *c, const struct vq_codes *k, struct vq_err *err)
{
	uint32_t n_groups = vq_grid_n_groups(&k->grid, k->n_in);
	size_t n_scales = vq_packed_n_scales(k->n_out, n_groups);

	c->planes = vq_alloc(vq_packed_plane_bytes(k->grid.bits, k->n_out, k->n_in), 1, err);
	c->scale = vq_alloc(n_scales, sizeof(*c->scale), err);
	c->zero = k->zero ? vq_alloc(n_scales, 1, err) : NULL;
	if (!c->planes || !c->scale || (k->zero && !c->zero))
		return VQ_E_SYS;
	vq_pack_codes(k->grid.bits, k->codes, k->n_out, k->n_in, c->planes);
	vq_pack_scales(k->scale, k->n_out, n_groups, c->scale);
	if (k->zero)
		vq_pack_zeros(k->zero, k->n_out, n_groups, c->zero);
	c->packed = (struct vq_packed){
		.n_out = k->n_out,
		.n_in = k->n_in,
		.bits = k->grid.bits,
		.group = k->grid.group,
		.n_groups = n_groups,
		.sym = k->grid.sym,
		.planes = c->planes,
		.scale = c->scale,
		.zero = c->zero,
	};
	return VQ_OK;
}

/* In the form that the place's activations want. */
static int form(struct vq_cand *c, const struct vq_place *p, const struct vq_codes *k,
		struct vq_err *err)
{
	int rc = VQ_OK;

	if (vq_agrid_is_integer(&p->a)) {
		rc = pack(c, k, err);
	} else {
		c->w = vq_alloc_f32((size_t)k->n_out * k->n_in, err);
		rc = c->w ? VQ_OK : VQ_E_SYS;
		if (c->w)
			vq_grid_dequant(k, c->w);
	}
	c->built = rc == VQ_OK;
	if (rc < 0)
		drop(c);
	return rc;
}

/* The same of NF codes. */
static int form_nf(struct vq_cand *c, const struct vq_place *p, const struct vq_nf *f,
		   struct vq_err *err)
{
	int rc = VQ_E_SYS;

	if (vq_agrid_is_integer(&p->a)) {
		c->planes = vq_alloc(vq_packed_plane_bytes(f->bits, f->n_out, f->n_in), 1, err);
		if (c->planes) {
			vq_pack_codes(f->bits, f->codes, f->n_out, f->n_in, c->planes);
			rc = vq_nf_packed(&c->packed, f->bits, f->n_out, f->n_in, c->planes,
					  &f->absmax, err);
			c->absmax = (float *)(uintptr_t)c->packed.absmax;
		}
	} else {
		c->w = vq_alloc_f32((size_t)f->n_out * f->n_in, err);
		rc = c->w ? vq_nf_values(f, c->w, err) : VQ_E_SYS;
	}
	c->built = rc == VQ_OK;
	if (rc < 0)
		drop(c);
	return rc;
}

static int fit_nf(const struct vq_place *p, uint32_t i, uint32_t v, struct vq_searched *q,
		  struct vq_err *err)
{
	struct vq_tensor w;
	float *buf = NULL;
	int rc = vq_place_weight(p, i, v, &w, &buf, err);

	if (rc == VQ_OK)
		rc = vq_searched_nf(q, p->nf, &w, err);
	vq_free(buf);
	return rc < 0 ? vq_err_prefix(err, "'%s'", p->lin[i].rec->rec.name) : VQ_OK;
}

static int build_nf(struct vq_place *p, uint32_t i, uint32_t v, struct vq_err *err)
{
	struct vq_searched q = {0};
	int rc = fit_nf(p, i, v, &q, err);

	if (rc == VQ_OK)
		rc = form_nf(&p->lin[i].cand[v], p, &q.nf, err);
	vq_searched_free(&q);
	return rc;
}

/* Rounds linear i with value v. */
static int fit(const struct vq_place *p, uint32_t i, uint32_t v, struct vq_codes *k, double *error,
	       struct vq_err *err)
{
	const struct vq_linear *l = p->lin[i].full;
	struct vq_tensor w;
	float *buf = NULL;
	int rc = vq_codes_alloc(k, &p->w, l->n_out, l->n_in, err);

	if (rc == VQ_OK)
		rc = vq_place_weight(p, i, v, &w, &buf, err);
	if (rc == VQ_OK)
		rc = vq_rtn_fit(k, w.data, w.dtype, p->lin[i].cand[v].ratio, error, err);
	vq_free(buf);
	if (rc < 0)
		vq_err_prefix(err, "'%s'", p->lin[i].rec->rec.name);
	return rc;
}

int vq_place_build(struct vq_place *p, uint32_t v, struct vq_err *err)
{
	int rc = VQ_OK;
	uint32_t i;

	for (i = 0; rc == VQ_OK && p->w.bits != 16 && i < p->n; i++) {
		struct vq_cand *c = &p->lin[i].cand[v];
		struct vq_codes k = {0};

		if (c->built)
			continue;
		if (p->nf) {
			rc = build_nf(p, i, v, err);
			continue;
		}
		rc = fit(p, i, v, &k, NULL, err);
		if (rc == VQ_OK)
			rc = form(c, p, &k, err);
		vq_codes_free(&k);
	}
	return rc;
}

void vq_place_keep(struct vq_place *p, uint32_t v)
{
	uint32_t i, u;

	for (i = 0; i < p->n; i++)
		for (u = 0; u < VQ_QVLM_VALUES; u++)
			if (u != v)
				drop(&p->lin[i].cand[u]);
}

struct vq_linear vq_place_linear_of(const struct vq_place *p, uint32_t i, uint32_t a, uint32_t w)
{
	const struct vq_cand *c = &p->lin[i].cand[w];
	struct vq_linear l = *p->lin[i].full;

	l.act = vq_place_grid(p, a, w);
	l.transform = vq_place_transform_of(p, w);
	if (c->planes) {
		l.packed = &c->packed;
		l.w = NULL;
	} else if (c->w) {
		l.w = c->w;
		l.dtype = VQ_F32;
	}
	return l;
}

void vq_place_set(struct vq_place *p, uint32_t a, uint32_t w)
{
	uint32_t i;

	for (i = 0; i < p->n; i++) {
		const float *bias = p->lin[i].quant->bias;

		*p->lin[i].quant = vq_place_linear_of(p, i, a, w);
		p->lin[i].quant->bias = bias;
	}
}

int vq_place_take(struct vq_place *p, uint32_t i, uint32_t v, struct vq_codes *c, double error,
		  struct vq_err *err)
{
	vq_codes_free(&p->lin[i].codes);
	p->lin[i].codes = *c;
	p->lin[i].error = error;
	memset(c, 0, sizeof(*c));
	drop(&p->lin[i].cand[v]);
	return form(&p->lin[i].cand[v], p, &p->lin[i].codes, err);
}

static void drop_transforms(struct vq_place *p)
{
	while (p->n_transforms > 0) {
		vq_transform_free(&p->transform[--p->n_transforms]);
		vq_transform_free(&p->back[p->n_transforms]);
	}
}

void vq_place_free(struct vq_place *p)
{
	uint32_t i;

	vq_place_keep(p, VQ_QVLM_VALUES);
	for (i = 0; i < p->n; i++)
		vq_codes_free(&p->lin[i].codes);
	for (i = 0; i < VQ_QVLM_VALUES; i++)
		vq_free(p->ranges[i]);
	drop_transforms(p);
}

/* The weight that comes first in the stream. */
static const char *first_weight(const struct vq_place *p)
{
	uint32_t i, first = 0;

	for (i = 1; i < p->n; i++)
		if (p->lin[i].rec->rec.index < p->lin[first].rec->rec.index)
			first = i;
	return p->lin[first].rec->rec.name;
}

int vq_place_round(struct vq_place *p, uint32_t i, uint32_t a, uint32_t w, struct vq_searched *q,
		   struct vq_err *err)
{
	*q = (struct vq_searched){.act = vq_place_grid(p, a, w), .clip = p->lin[i].cand[w].ratio};
	if (p->n_transforms) {
		q->transform = *vq_place_transform_of(p, w);
		q->transform_from = first_weight(p);
	}
	if (p->lin[i].codes.codes) {
		q->codes = p->lin[i].codes;
		q->error = p->lin[i].error;
		memset(&p->lin[i].codes, 0, sizeof(p->lin[i].codes));
		return VQ_OK;
	}
	if (p->nf)
		return fit_nf(p, i, w, q, err);
	return p->w.bits == 16 ? VQ_OK : fit(p, i, w, &q->codes, &q->error, err);
}

/* Whether the place would quantize linear i as q says. */
static int same_way(const struct vq_place *p, uint32_t i, const struct vq_searched *q)
{
	const struct vq_linear *l = p->lin[i].full;

	if (q->act.bits != p->a.bits || q->act.range != p->a.range ||
	    q->act.n_ranges != p->a.n_ranges || q->nf.bits != p->nf)
		return 0;
	if (q->nf.bits)
		return q->nf.n_out == l->n_out && q->nf.n_in == l->n_in;
	if (!q->codes.codes)
		return p->w.bits == 16;
	return q->codes.grid.bits == p->w.bits && q->codes.n_out == l->n_out &&
	       q->codes.n_in == l->n_in;
}

/* Adds a copy of t.  Nothing is rounded any more: it has no dual. */
static int adopt_transform(struct vq_place *p, const struct vq_transform *t, struct vq_err *err)
{
	size_t n_scale = t->n * sizeof(*t->scale), n_matrix = n_scale * t->block;
	float *scale = vq_alloc(n_scale, 1, err);
	float *matrix = scale && t->matrix ? vq_alloc(n_matrix, 1, err) : NULL;
	struct vq_transform own = {t->n, t->block, scale, matrix}, none = {0};

	if (!scale || (t->matrix && !matrix)) {
		vq_free(scale);
		return VQ_E_SYS;
	}
	memcpy(scale, t->scale, n_scale);
	if (matrix)
		memcpy(matrix, t->matrix, n_matrix);
	vq_place_transform(p, &own, &none);
	return VQ_OK;
}

int vq_place_adopt(struct vq_place *p, const struct vq_held_list *done, struct vq_err *err)
{
	int rc = VQ_OK;
	uint32_t i;

	for (i = 0; rc == VQ_OK && i < p->n; i++) {
		const char *name = p->lin[i].rec->rec.name;
		struct vq_searched q;

		rc = vq_held_searched(done, name, &q, err);
		if (rc < 0)
			return rc;
		if (!same_way(p, i, &q))
			return vq_fail(err, VQ_E_DATA, "'%s': was quantized in another way", name);
		p->a_ratio[0] = q.act.clip;
		if (i == 0)
			drop_transforms(p);
		if (i == 0 && q.transform.n)
			rc = adopt_transform(p, &q.transform, err);
		if (rc == VQ_OK && q.act.n_ranges && i == 0) /* its linears share them */
			rc = vq_place_take_ranges(p, &q.act, err);
		if (rc == VQ_OK && q.codes.codes)
			rc = form(&p->lin[i].cand[0], p, &q.codes, err);
		else if (rc == VQ_OK && q.nf.bits)
			rc = form_nf(&p->lin[i].cand[0], p, &q.nf, err);
	}
	return rc;
}
