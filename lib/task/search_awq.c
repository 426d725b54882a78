/* AWQ in one planned block. */
#include "task/search_awq.h"

#include <string.h>

#include "base/mem.h"
#include "quant/layerwise.h"
#include "task/search_sblock.h"

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

#define MOST 5 /* linears of a module that read its input */

/* The inspected module of a place: attention, the MLP, or of a parallel layer both. */
struct module {
	const struct vq_sblock *b;
	const struct vq_place *p;
	const struct vq_walk *at; /* full precision, before the place */
	struct vq_layer layer;    /* with the weights of a candidate; owns its experts */
	size_t n_rows;            /* of the place */
	/* Those that read the place's input, and their candidates; w owned */
	const struct vq_linear *full[MOST];
	enum vq_lin which[MOST];
	uint32_t n;
	float *w[MOST];
	float *s;          /* [n_in] the candidate's scales; owned */
	float *target, *y; /* [n_rows, width]; owned */
	uint32_t width;
};

/* x / s. */
static void divide(float *x, size_t n_rows, uint32_t n, const float *s)
{
	long long row;

#pragma omp parallel for schedule(static)
	for (row = 0; row < (long long)n_rows; row++) {
		uint32_t i;

		for (i = 0; i < n; i++)
			x[(size_t)row * n + i] /= s[i];
	}
}

/* What a parallel layer adds to its input, from its first stage on. */
static int both_halves(struct vq_walk *w, size_t n, float *y, struct vq_err *err)
{
	int rc = VQ_OK, i;

	memset(w->h, 0, n * sizeof(float));
	for (i = 0; rc == VQ_OK && i < VQ_N_SLOTS; i++)
		rc = vq_layer_next(&w->run, err);
	if (rc == VQ_OK)
		memcpy(y, w->h, n * sizeof(float));
	return rc;
}

/* y: the module's output with the linears of l, its input divided by s unless that is NULL. */
static int output(const struct module *m, const struct vq_layer *l, const float *s, float *y,
		  struct vq_err *err)
{
	struct vq_walk w = {0};
	int rc = vq_walk_fork(&w, m->at, err);
	uint32_t slot = m->p->slot;
	size_t n_rows;
	float *x;

	/* the cast: the fork is this function's */
	x = rc == VQ_OK ? (float *)(uintptr_t)vq_walk_input(&w, &n_rows) : NULL;
	if (rc == VQ_OK && s)
		divide(x, n_rows, m->p->lin[0].full->n_in, s);
	w.run.layer = l;
	if (rc == VQ_OK && m->n > m->p->n) {
		rc = both_halves(&w, m->n_rows * m->width, y, err);
		goto out;
	}
	/* Attention and MLP are all that is between their first linears and their last. */
	if (rc == VQ_OK && (slot == VQ_SLOT_QKV || slot == VQ_SLOT_UP))
		rc = vq_layer_next(&w.run, err);
	if (rc == VQ_OK)
		rc = vq_linear_one(vq_layer_linear((struct vq_layer *)(uintptr_t)l,
						   slot == VQ_SLOT_QKV || slot == VQ_SLOT_O
							   ? VQ_LIN_O
							   : VQ_LIN_DOWN,
						   m->p->expert),
				   vq_walk_input(&w, &n_rows), n_rows, y, err);
out:
	vq_walk_end(&w);
	return rc;
}

static int module_loss(void *ctx, const double *s, double *loss, struct vq_err *err)
{
	struct module *m = ctx;
	const struct vq_awq_opts o = {m->p->w, VQ_AWQ_STREAM};
	uint32_t n = m->p->lin[0].full->n_in, k;
	int rc = VQ_OK;

	for (k = 0; k < n; k++)
		m->s[k] = (float)s[k];
	for (k = 0; rc == VQ_OK && k < m->n; k++) {
		const struct vq_linear *l = m->full[k];

		rc = vq_awq_fake(&o,
				 &(struct vq_awq_weight){l->w, l->dtype, l->n_out, n, m->s, NULL},
				 m->w[k], err);
	}
	if (rc == VQ_OK)
		rc = output(m, &m->layer, m->s, m->y, err);
	if (rc == VQ_OK)
		*loss = vq_sum_weighted2(m->y, m->target, m->b->r, m->n_rows, m->width) /
			((double)m->n_rows * m->width);
	return rc;
}

static void module_free(struct module *m)
{
	uint32_t k;

	for (k = 0; k < MOST; k++)
		vq_free(m->w[k]);
	vq_free(m->layer.experts);
	vq_free(m->s);
	vq_free(m->target);
	vq_free(m->y);
}

static void collect(struct module *m, const struct vq_layer *l)
{
	enum vq_lin i;

	for (m->n = 0; m->n < m->p->n; m->n++) {
		m->full[m->n] = m->p->lin[m->n].full;
		m->which[m->n] = m->p->lin[m->n].which;
	}
	for (i = VQ_LIN_UP; i <= VQ_LIN_GATE; i++)
		if (l->cfg->parallel && m->p->slot == VQ_SLOT_QKV && l->lin[i].n_out) {
			m->full[m->n] = &l->lin[i];
			m->which[m->n++] = i;
		}
}

static int module_new(struct module *m, const struct vq_sblock *b, const struct vq_place *p,
		      const struct vq_walk *at, struct vq_err *err)
{
	const struct vq_layer *l = layer_of(b, p);
	size_t n_y, n_own = (size_t)l->n_experts * VQ_EXPERT_LINEARS;
	uint32_t k;

	*m = (struct module){.b = b, .p = p, .at = at, .layer = *l, .width = l->cfg->hidden};
	collect(m, l);
	vq_walk_input(at, &m->n_rows);
	n_y = m->n_rows * m->width;
	m->layer.experts = vq_alloc(n_own, sizeof(*l->experts), err);
	if (!m->layer.experts)
		return VQ_E_SYS;
	if (n_own)
		memcpy(m->layer.experts, l->experts, n_own * sizeof(*l->experts));
	m->s = vq_alloc_f32(p->lin[0].full->n_in, err);
	m->target = m->s ? vq_alloc_f32(n_y, err) : NULL;
	m->y = m->target ? vq_alloc_f32(n_y, err) : NULL;
	for (k = 0; m->y && k < m->n; k++) {
		struct vq_linear *c = vq_layer_linear(&m->layer, m->which[k], p->expert);

		m->w[k] = vq_alloc_f32((size_t)c->n_out * c->n_in, err);
		if (!m->w[k])
			return VQ_E_SYS;
		c->w = m->w[k];
		c->dtype = VQ_F32;
		if (b->o->awq_joint)
			c->act = p->a;
	}
	return m->y ? output(m, l, NULL, m->target, err) : VQ_E_SYS;
}

/* xm, and wm with duo: [n_in] each. */
static int means(const struct module *m, double *xm, double *wm, struct vq_err *err)
{
	struct vq_awq_weight w[MOST];
	size_t n_rows;
	const float *x = vq_walk_input(m->at, &n_rows);
	uint32_t k;

	vq_awq_input_mean(x, n_rows, m->full[0]->n_in, xm);
	for (k = 0; k < m->n; k++) {
		const struct vq_linear *l = m->full[k];

		w[k] = (struct vq_awq_weight){l->w, l->dtype, l->n_out, l->n_in, NULL, NULL};
	}
	return m->b->o->awq_duo ? vq_awq_weight_mean(&m->p->w, w, m->n, wm, err) : VQ_OK;
}

static int place_scales(struct vq_sblock *b, uint32_t i, const struct vq_walk *at,
			struct vq_err *err)
{
	const struct vq_place *p = &b->places[i];
	uint32_t n = p->lin[0].full->n_in, j;
	double *xm = vq_alloc(3 * (size_t)n, sizeof(*xm), err), *s = xm + 2 * (size_t)n;
	float *kept = xm ? vq_alloc_f32(n, err) : NULL;
	struct module m = {0};
	int rc = kept ? module_new(&m, b, p, at, err) : VQ_E_SYS;

	if (rc == VQ_OK)
		rc = means(&m, xm, xm + n, err);
	if (rc == VQ_OK)
		rc = vq_awq_search(xm, b->o->awq_duo ? xm + n : NULL, n, module_loss, &m, s,
				   &b->awq[i].scale, err);
	if (rc == VQ_OK) {
		uint32_t runs = m.n > p->n                                        ? VQ_N_SLOTS
				: p->slot == VQ_SLOT_QKV || p->slot == VQ_SLOT_UP ? 2
										  : 1;

		for (j = 0; j < n; j++)
			kept[j] = (float)s[j];
		*scales_of(b, p) = kept;
		kept = NULL;
		b->cost.n_evals += VQ_AWQ_RATIOS;
		b->cost.n_places += (VQ_AWQ_RATIOS + 1) * runs;
	} else {
		vq_err_prefix(err, "'%s'", p->lin[0].rec->rec.name);
	}
	module_free(&m);
	vq_free(kept);
	vq_free(xm);
	return rc;
}

/* The vector that a record of this block holds, if scales change it: 1 and *out as f32, given; else 0. */
static int changed_vector(const struct vq_sblock *b, const struct vq_record *rec, float **out,
			  uint32_t *n, struct vq_err *err)
{
	uint32_t unit = 0;
	const char *rest = b->folds && !b->projector ? below_layer(b, rec->name, &unit) : NULL;

	return !rest ? 0
		     : vq_fold_vector(&b->folds[unit - b->first], vq_model_layer(b->full, unit),
				      rest, out, n, err);
}

static int bind_vectors(struct vq_sblock *b, struct vq_err *err)
{
	int rc = 0;
	size_t i;

	for (i = 0; rc >= 0 && i < b->in->n; i++) {
		const struct vq_record *rec = &b->in->items[i].rec;
		struct vq_tensor t = {VQ_F32, 1, {0}, NULL};
		float *v = NULL;
		uint32_t n;

		rc = changed_vector(b, rec, &v, &n, err);
		if (rc == 1) {
			t.dims[0] = n;
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
	return rc == VQ_OK ? bind_vectors(b, err) : rc;
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
	uint32_t n;
	int rc = changed_vector(b, &rec->rec, &v, &n, err);

	if (rc == 1 && vq_held_vector(out, rec, v, err) < 0)
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
