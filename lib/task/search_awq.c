/* AWQ in one planned block. */
#include "task/search_awq.h"

#include <string.h>

#include "base/mem.h"
#include "task/search_awq_module.h"

/* --- which --- */

static const struct vq_layer *layer_of(const struct vq_sblock *b, const struct vq_place *p)
{
	return b->projector ? NULL : vq_model_layer(b->full, p->unit);
}

static struct vq_fold *fold_of(const struct vq_sblock *b, const struct vq_place *p)
{
	return &b->folds[p->unit - b->first];
}

/* Where its scales are kept. */
static float **scales_of(const struct vq_sblock *b, const struct vq_place *p)
{
	return vq_fold_at(fold_of(b, p), layer_of(b, p), (enum vq_slot)p->slot, p->expert);
}

/* Whether a parallel layer's MLP reads what the place does, and is quantized too: its weights take the same scales. */
static int with_mlp(const struct vq_sblock *b, const struct vq_place *p)
{
	uint32_t i;

	for (i = 0; i < b->n_places; i++)
		if (b->places[i].unit == p->unit && b->places[i].slot == VQ_SLOT_UP)
			return p->slot == VQ_SLOT_QKV && b->places[i].w.bits != 16;
	return 0;
}

int vq_sblock_awq_scaled(const struct vq_sblock *b, const struct vq_place *p)
{
	const struct vq_layer *l = layer_of(b, p);

	return p->w.bits != 16 && l &&
	       vq_fold_can(l, (enum vq_slot)p->slot,
			   vq_search_part_of(p->lin[0].rec->rec.name) == VQ_PART_LLM) &&
	       !(p->slot == VQ_SLOT_UP && p->expert) &&
	       (!l->cfg->parallel || p->slot != VQ_SLOT_QKV || with_mlp(b, p));
}

/* The unit of the block whose layer a record's name is below, and the rest of the name; NULL: none. */
static const char *below_layer(const struct vq_sblock *b, const char *name, uint32_t *unit)
{
	uint32_t i;

	for (i = 0; i < b->n_places; i++) {
		const char *first = b->places[i].lin[0].rec->rec.name;
		size_t n = strlen(first) - strlen("q_proj.weight");

		if (b->places[i].slot != VQ_SLOT_QKV)
			continue;
		*unit = b->places[i].unit;
		if (strncmp(first, name, n) == 0)
			return name + n;
	}
	return NULL;
}

/* --- scales --- */

static int place_scales(struct vq_sblock *b, uint32_t i, const struct vq_walk *at,
			struct vq_err *err)
{
	const struct vq_place *p = &b->places[i];
	uint32_t n = p->lin[0].full->n_in, j;
	double *xm = vq_alloc(3 * (size_t)n, sizeof(*xm), err), *s = xm + 2 * (size_t)n;
	float *kept = xm ? vq_alloc_f32(n, err) : NULL;
	struct vq_awq_module m = {0};
	int rc = kept ? vq_awq_module_new(&m, b, p, at, err) : VQ_E_SYS;

	if (rc == VQ_OK)
		rc = vq_awq_module_means(&m, xm, xm + n, err);
	if (rc == VQ_OK)
		rc = vq_awq_search(xm, b->o->awq_duo ? xm + n : NULL, n, vq_awq_module_loss, &m, s,
				   &b->awq[i].scale, err);
	if (rc == VQ_OK) {
		for (j = 0; j < n; j++)
			kept[j] = (float)s[j];
		*scales_of(b, p) = kept;
		kept = NULL;
		b->cost.n_evals += VQ_AWQ_RATIOS;
		b->cost.n_places += (VQ_AWQ_RATIOS + 1) * vq_awq_module_places(&m);
	} else {
		vq_err_prefix(err, "'%s'", p->lin[0].rec->rec.name);
	}
	vq_awq_module_free(&m);
	vq_free(kept);
	vq_free(xm);
	return rc;
}

/* What a record of this block that is no quantized weight holds, if scales change it: 1 and *out as f32, given; else 0. */
static int changed_floats(const struct vq_sblock *b, const struct vq_record *rec, float **out,
			  struct vq_err *err)
{
	uint32_t unit = 0;
	const char *rest = b->folds && !b->projector ? below_layer(b, rec->name, &unit) : NULL;

	return !rest ? 0
		     : vq_fold_floats(&b->folds[unit - b->first], vq_model_layer(b->full, unit),
				      rest, out, err);
}

static int bind_changed(struct vq_sblock *b, struct vq_err *err)
{
	int rc = 0;
	size_t i;

	for (i = 0; rc >= 0 && i < b->in->n; i++) {
		const struct vq_record *rec = &b->in->items[i].rec;
		struct vq_tensor t = {VQ_F32, rec->n_dims, {0}, NULL};
		float *v = NULL;

		rc = changed_floats(b, rec, &v, err);
		if (rc == 1) {
			memcpy(t.dims, rec->dims, sizeof(t.dims));
			t.data = v;
			rc = vq_model_bind(b->quant, rec->name, &t, err);
		}
		vq_free(v);
	}
	return rc < 0 ? rc : VQ_OK;
}

int vq_sblock_awq_scales(struct vq_sblock *b, const float *full_in, struct vq_err *err)
{
	struct vq_walk f = {0};
	uint32_t i;
	size_t n_rows;
	int rc = VQ_E_SYS;

	b->awq = vq_calloc(b->n_places, sizeof(*b->awq), err);
	b->folds = vq_calloc(b->last - b->first + 1, sizeof(*b->folds), err);
	if (!b->awq || !b->folds)
		return rc;
	rc = vq_walk_begin(&f, b->full, b->first, b->last, full_in, b->acts->width, &b->batch,
			   b->routes, err);
	for (i = 0; rc == VQ_OK && i < b->n_places; i++) {
		const struct vq_place *p = &b->places[i];

		if (!b->projector && p->slot == 0)
			rc = vq_tokens_layer(&b->tokens, p->unit, layer_of(b, p),
					     vq_walk_input(&f, &n_rows), err);
		if (rc == VQ_OK)
			rc = vq_sblock_rows(b, &f, err);
		if (rc == VQ_OK && vq_sblock_awq_scaled(b, p))
			rc = place_scales(b, i, &f, err);
		if (rc == VQ_OK)
			rc = vq_sblock_next_full(b, &f, err);
		b->cost.n_places++;
	}
	vq_walk_end(&f);
	return rc == VQ_OK ? bind_changed(b, err) : rc;
}

/* --- codes --- */

/* Linear k of place p with the scales around it. */
static struct vq_awq_weight folded(const struct vq_sblock *b, const struct vq_place *p, uint32_t k)
{
	const struct vq_linear *l = p->lin[k].full;

	if (b->projector)
		return (struct vq_awq_weight){l->w, l->dtype, l->n_out, l->n_in, NULL, NULL};
	return vq_fold_weight(fold_of(b, p), layer_of(b, p), p->lin[k].which, p->expert);
}

/* The authors do not clip queries and keys. */
static int clips(const struct vq_sblock *b, const struct vq_place *p, uint32_t k)
{
	return b->projector || (p->lin[k].which != VQ_LIN_Q && p->lin[k].which != VQ_LIN_K);
}

int vq_sblock_awq_codes(struct vq_sblock *b, uint32_t i, const float *xf, size_t n_rows,
			struct vq_err *err)
{
	struct vq_place *p = &b->places[i];
	const float *s = b->projector ? NULL : *scales_of(b, p);
	double *x, sum = 0;
	uint32_t tokens, k, n_clipped = 0;
	int rc = VQ_OK;

	if (p->w.bits == 16)
		goto set;
	x = vq_awq_tokens(xf, n_rows, p->lin[0].full->n_in, s, &tokens, err);
	if (!x)
		return VQ_E_SYS;
	for (k = 0; rc == VQ_OK && k < p->n; k++) {
		const struct vq_awq_weight w = folded(b, p, k);
		struct vq_codes c = {0};
		double error, clip;
		int clipped = clips(b, p, k);

		rc = vq_codes_alloc(&c, &p->w, w.n_out, w.n_in, err);
		if (rc == VQ_OK)
			rc = vq_awq_fit(&c, &w, clipped ? x : NULL, tokens, &error, &clip, err);
		if (rc == VQ_OK)
			rc = vq_place_take(p, k, 0, &c, error, err);
		vq_codes_free(&c);
		if (rc == VQ_OK && clipped) {
			sum += clip;
			n_clipped++;
		}
	}
	vq_free(x);
	if (rc < 0) {
		vq_err_prefix(err, "'%s'", p->lin[0].rec->rec.name);
		return rc;
	}
	b->awq[i].clip = sum / n_clipped;
	/* Each bound is tried on a part of the rows. */
	b->cost.n_places += (VQ_AWQ_CLIPS * tokens + n_rows - 1) / n_rows;
set:
	vq_place_set(p, 0, 0);
	return VQ_OK;
}

/* --- records --- */

int vq_sblock_rewrite(const struct vq_sblock *b, const struct vq_held *rec,
		      struct vq_held_list *out, struct vq_err *err)
{
	float *v = NULL;
	int rc = changed_floats(b, &rec->rec, &v, err);

	if (rc == 1 && vq_held_floats(out, rec, v, err) < 0)
		rc = VQ_E_SYS;
	return rc;
}

int vq_sblock_awq_adopt(struct vq_sblock *b, const struct vq_held_list *done, struct vq_err *err)
{
	int rc = VQ_OK;
	size_t i;

	for (i = 0; rc == VQ_OK && i < done->n; i++) {
		const struct vq_record *rec = &done->items[i].rec;
		struct vq_tensor t = {rec->dtype, rec->n_dims, {0}, done->items[i].data};

		if (rec->kind != VQ_KIND_TENSOR || rec->dtype != VQ_F32 ||
		    !json_object_get(rec->attrs, "source"))
			continue;
		memcpy(t.dims, rec->dims, sizeof(t.dims));
		rc = vq_model_bind(b->quant, rec->name, &t, err);
	}
	return rc;
}

void vq_sblock_awq_free(struct vq_sblock *b)
{
	uint32_t i;

	for (i = 0; b->folds && i <= b->last - b->first; i++)
		vq_fold_free(&b->folds[i]);
	vq_free(b->folds);
	vq_free(b->awq);
	b->folds = NULL;
	b->awq = NULL;
}
