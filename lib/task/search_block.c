/* The search of one planned block. */
#include "task/search_block.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "task/search_mixed.h"
#include "task/search_sblock.h"
#include "task/search_scheme.h"
#include "task/search_transform.h"

/* --- which linears --- */

/* The record whose weight a linear of the full model has. */
static const struct vq_held *record_of(const struct vq_sblock *b, const struct vq_linear *l)
{
	size_t i;

	for (i = 0; i < b->in->n; i++) {
		const char *name = b->in->items[i].rec.name;
		size_t n = strlen(name);

		if (n > 7 && strcmp(name + n - 7, ".weight") == 0 &&
		    vq_model_linear(b->full, name) == l)
			return &b->in->items[i];
	}
	return NULL;
}

static int add_linear(struct vq_sblock *b, struct vq_place *p, struct vq_linear *full,
		      struct vq_linear *quant, struct vq_err *err)
{
	struct vq_place_linear *l = &p->lin[p->n++];

	l->full = full;
	l->quant = quant;
	l->rec = record_of(b, full);
	if (!l->rec)
		return vq_fail(err, VQ_E_DATA, "unit %u: the weight of a linear layer is missing",
			       p->unit);
	p->w.bits = 16;
	if (b->o->parts & vq_search_part_of(l->rec->rec.name)) {
		p->w = b->o->w;
		p->nf = vq_search_nf(b->o);
	}
	p->a = vq_scheme_grid(b->o, &b->full->cfg, l->rec->rec.name, full->n_in);
	if (b->acts->wide && b->acts->wide[p->unit] && p->a.bits < VQ_MIXED_BITS)
		p->a.bits = VQ_MIXED_BITS;
	b->active = b->active || p->w.bits != 16 || p->a.bits != VQ_ACT_FLOAT;
	return VQ_OK;
}

static int layer_places(struct vq_sblock *b, uint32_t unit, struct vq_place *p, struct vq_err *err)
{
	struct vq_layer *full = vq_model_layer(b->full, unit),
			*quant = vq_model_layer(b->quant, unit);
	uint32_t k, i, n_places = vq_layer_n_places(full);
	int rc = VQ_OK;

	for (k = 0; rc == VQ_OK && k < n_places; k++, p++) {
		const struct vq_layer_place at = vq_layer_place(full, k);
		const struct vq_linear *l[3];
		enum vq_lin which[3];
		uint32_t n = vq_layer_place_linears(full, at, l, which);

		p->unit = unit;
		p->slot = at.slot;
		p->expert = at.expert;
		for (i = 0; rc == VQ_OK && i < n; i++) {
			rc = add_linear(b, p, vq_layer_linear(full, which[i], at.expert),
					vq_layer_linear(quant, which[i], at.expert), err);
			p->lin[i].which = which[i];
		}
	}
	return rc;
}

static int find_places(struct vq_sblock *b, struct vq_err *err)
{
	const struct vq_config *c = &b->full->cfg;
	struct vq_place *p = b->places;
	uint32_t unit, i;
	int rc = VQ_OK;

	for (unit = b->first; rc == VQ_OK && !b->projector && unit <= b->last; unit++) {
		rc = layer_places(b, unit, p, err);
		p += vq_layer_n_places(vq_model_layer(b->full, unit));
	}
	for (i = 0; rc == VQ_OK && b->projector && i < c->projector.n_linears; i++) {
		b->places[i].unit = b->first;
		b->places[i].slot = i;
		rc = add_linear(b, &b->places[i], &b->full->projector.fc[i],
				&b->quant->projector.fc[i], err);
	}
	return rc;
}

int vq_sblock_open(struct vq_sblock **out, const struct vq_search_opts *o,
		   const struct vq_acts *acts, struct vq_model *full, struct vq_model *quant,
		   const struct vq_held_list *in, uint32_t first, uint32_t last, struct vq_err *err)
{
	struct vq_sblock *b = vq_calloc(1, sizeof(*b), err);
	const struct vq_config *c = &full->cfg;
	uint32_t i, v;
	int rc = VQ_E_SYS;

	if (!b)
		return rc;
	b->o = o;
	b->acts = acts;
	b->full = full;
	b->quant = quant;
	b->in = in;
	b->first = first;
	b->last = last;
	b->projector = c->has_vision && first == vq_config_projector_unit(c);
	b->n_places = b->projector ? c->projector.n_linears : 0;
	for (i = first; !b->projector && i <= last; i++)
		b->n_places += vq_layer_n_places(vq_model_layer(full, i));
	b->routes = vq_calloc(last - first + 1, sizeof(*b->routes), err);
	b->places = vq_calloc(b->n_places, sizeof(*b->places), err);
	b->choice = vq_calloc(b->n_places, 2, err);
	b->usable = vq_calloc((size_t)b->n_places * 2, VQ_QVLM_VALUES, err);
	b->cost.per_layer = b->projector ? VQ_N_SLOTS : (double)b->n_places / (last - first + 1);
	if (b->routes && b->places && b->choice && b->usable)
		rc = find_places(b, err);
	for (i = 0; rc == VQ_OK && i < b->n_places; i++) {
		rc = vq_place_measure_input(&b->places[i], NULL, 0, err);
		for (v = 0; v < VQ_QVLM_VALUES; v++) {
			uint32_t l;

			for (l = 0; l < b->places[i].n; l++)
				b->places[i].lin[l].cand[v].ratio = 1;
		}
	}
	if (rc < 0)
		vq_sblock_close(b);
	else
		*out = b;
	return rc;
}

static void end_search(struct vq_sblock *b)
{
	vq_walk_end(&b->walk);
	vq_score_free(&b->score);
	vq_tokens_free(&b->tokens);
	vq_free((void *)(uintptr_t)b->batch.start);
	vq_free(b->input);
	vq_free(b->r_part);
	b->batch.start = NULL;
	b->input = NULL;
	b->r_part = NULL;
}

void vq_sblock_close(struct vq_sblock *b)
{
	uint32_t i;

	if (!b)
		return;
	end_search(b);
	for (i = 0; b->places && i < b->n_places; i++)
		vq_place_free(&b->places[i]);
	vq_free(b->places);
	for (i = 0; b->routes && i <= b->last - b->first; i++)
		vq_free(b->routes[i].choice);
	vq_free(b->routes);
	vq_free(b->choice);
	vq_free(b->usable);
	vq_sblock_awq_free(b);
	vq_free(b);
}

/* --- searching --- */

/* What is done at a place when both streams come to it. */
enum { CHOOSE = 1, CODE = 2 };

static int at_place(struct vq_sblock *b, uint32_t i, unsigned what, const struct vq_walk *q,
		    const struct vq_walk *f, struct vq_err *err)
{
	struct vq_place *p = &b->places[i];
	uint8_t *c = b->choice + 2 * (size_t)i;
	int awq = b->o->method == VQ_METHOD_AWQ, rc = vq_sblock_rows(b, f, err);
	size_t n_rows;
	const float *xq = vq_walk_input(q, &n_rows), *xf = vq_walk_input(f, &n_rows);

	if (rc == VQ_OK && !awq)
		rc = vq_place_prepare(p, b->o, xq, n_rows, err);
	if (rc == VQ_OK && p->a.n_ranges && !vq_search_clips_inputs(b->o))
		rc = vq_place_measure_ranges(p, xq, n_rows, b->o->act_lp, err);
	if (rc == VQ_OK && awq)
		return vq_sblock_awq_codes(b, i, xf, n_rows, err);
	if (rc == VQ_OK && (what & CHOOSE))
		rc = vq_sblock_layerwise(b, i, xq, xf, n_rows, err);
	if (rc == VQ_OK && (what & CODE))
		rc = vq_place_gptq(p, b->o, c, xq, xf, b->r, n_rows, &b->cost.gptq, err);
	else if (rc == VQ_OK)
		rc = vq_place_build(p, c[1], err);
	if (rc == VQ_OK)
		vq_place_set(p, c[0], c[1]);
	return rc;
}

/* Both streams through the block, place by place.  Leaves the choice, the target and the choice's error. */
static int in_order(struct vq_sblock *b, unsigned what, const float *full_in, double *error,
		    struct vq_err *err)
{
	struct vq_walk f = {0}, q = {0};
	uint32_t i;
	size_t n_rows;
	int rc = vq_walk_begin(&f, b->full, b->first, b->last, full_in, b->acts->width, &b->batch,
			       b->routes, err);

	if (rc == VQ_OK)
		rc = vq_walk_begin(&q, b->quant, b->first, b->last, b->input, b->acts->width,
				   &b->batch, b->routes, err);
	for (i = 0; rc == VQ_OK && i < b->n_places; i++) {
		if (!b->projector && b->places[i].slot == 0 && b->o->method != VQ_METHOD_AWQ)
			rc = vq_tokens_layer(&b->tokens, b->places[i].unit,
					     vq_model_layer(b->full, b->places[i].unit),
					     vq_walk_input(&f, &n_rows), err);
		if (rc == VQ_OK)
			rc = at_place(b, i, what, &q, &f, err);
		if (rc == VQ_OK)
			rc = vq_sblock_next_full(b, &f, err);
		if (rc == VQ_OK)
			rc = vq_walk_next(&q, err);
	}
	b->score.r = b->tokens.block;
	if (rc == VQ_OK && !b->score.target)
		rc = vq_score_target(&b->score, vq_walk_output(&f), err);
	if (rc == VQ_OK)
		rc = vq_score_of(&b->score, vq_walk_output(&q), error, err);
	b->cost.n_places += 2 * (uint64_t)b->n_places;
	b->cost.n_evals++;
	b->cost.n_rerouted = q.n_rerouted;
	vq_walk_end(&f);
	vq_walk_end(&q);
	return rc;
}

/* Rows that errors are measured on. */
static int choose_rows(struct vq_sblock *b, float **full_in, struct vq_err *err)
{
	uint32_t n, *start, *seqs = vq_score_rows(&b->score, b->acts, b->o->rows, &n, err);
	int rc = VQ_E_SYS;

	if (!seqs)
		return rc;
	start = vq_alloc((size_t)n + 1, sizeof(*start), err);
	if (!start)
		goto out;
	b->batch = (struct vq_batch){n, start};
	b->input = vq_acts_gather(b->acts, b->acts->quant, b->acts->width, seqs, n, start, err);
	if (b->input)
		*full_in =
			vq_acts_gather(b->acts, b->acts->full, b->acts->width, seqs, n, start, err);
	if (!b->input || !*full_in)
		goto out;
	b->cost.n_rows = start[n];
	rc = vq_tokens_begin(&b->tokens, b->o, b->acts, seqs, &b->batch, b->first, err);
out:
	vq_free(seqs);
	return rc;
}

/* With activations.  Clips and smoothing are chosen with weights rounded to nearest; when all of the block's are, GPTQ
 * makes the codes for them.  Without descent it does so at each place at once. */
static int search(struct vq_sblock *b, struct vq_err *err)
{
	int gptq = vq_search_is_gptq(b->o), descend = vq_search_descends(b->o), rc;
	unsigned what = vq_search_chooses(b->o) ? CHOOSE : 0;
	uint8_t *plain = vq_calloc(b->n_places, 2, err);
	float *full_in = NULL;

	if (!plain)
		return VQ_E_SYS;
	vq_score_begin(&b->score, b->o, b->acts, b->full, b->first, b->last);
	rc = choose_rows(b, &full_in, err);
	if (rc == VQ_OK && b->o->method == VQ_METHOD_AWQ)
		rc = vq_sblock_awq_scales(b, full_in, err);
	if (rc == VQ_OK)
		rc = in_order(b, gptq && !descend ? what | CODE : what, full_in, &b->cost.layerwise,
			      err);
	b->cost.error = b->cost.layerwise;
	b->cost.veo = b->score.veo;
	/* What layer-wise chose must survive the plain trial: it keeps only what it is told to. */
	if (rc == VQ_OK && (descend || (!gptq && b->o->method != VQ_METHOD_AWQ)))
		rc = vq_sblock_error(b, plain, &b->cost.plain, err);
	if (rc == VQ_OK && descend)
		rc = vq_sblock_blockwise(b, err);
	if (rc == VQ_OK && descend && gptq)
		rc = in_order(b, CODE, full_in, &b->cost.error, err);
	vq_free(full_in);
	vq_free(plain);
	return rc;
}

/* Without rows a clip can be left alone; a range that is stored cannot. */
static int check_ranges(const struct vq_sblock *b, struct vq_err *err)
{
	uint32_t i;

	for (i = 0; i < b->n_places; i++)
		if (b->places[i].a.n_ranges)
			return vq_fail(err, VQ_E_DATA,
				       "'%s': no calibration sample has a picture, and --acts %s "
				       "wants its ranges; run vqlm-calib with pictures, or search "
				       "with --acts group or --parts llm",
				       b->places[i].lin[0].rec->rec.name, vq_scheme_name(b->o));
	return VQ_OK;
}

int vq_sblock_search(struct vq_sblock *b, struct vq_err *err)
{
	double t0 = vq_now();
	uint32_t i;
	int rc = b->acts->n_rows ? VQ_OK : check_ranges(b, err);

	if (rc == VQ_OK && b->active && b->acts->n_rows > 0)
		rc = search(b, err);
	for (i = 0; rc == VQ_OK && i < b->n_places; i++)
		rc = vq_place_prepare(&b->places[i], b->o, NULL, 0, err);
	if (rc == VQ_OK)
		rc = vq_sblock_set(b, b->choice, err);
	for (i = 0; rc == VQ_OK && i < b->n_places; i++)
		vq_place_keep(&b->places[i], b->choice[2 * i + 1]);
	end_search(b);
	b->cost.seconds = vq_now() - t0;
	return rc;
}

/* --- results --- */

int vq_sblock_adopt(struct vq_sblock *b, const struct vq_held_list *done, struct vq_err *err)
{
	uint32_t i;
	int rc = VQ_OK;

	memset(b->choice, 0, (size_t)2 * b->n_places);
	for (i = 0; rc == VQ_OK && i < b->n_places; i++) {
		rc = vq_place_adopt(&b->places[i], done, err);
		if (rc == VQ_OK)
			vq_place_set(&b->places[i], 0, 0);
	}
	return rc == VQ_OK && b->o->method == VQ_METHOD_AWQ ? vq_sblock_awq_adopt(b, done, err)
							    : rc;
}

int vq_sblock_round(struct vq_sblock *b, const struct vq_held *rec, struct vq_searched *q,
		    struct vq_err *err)
{
	uint32_t i, k;

	for (i = 0; i < b->n_places; i++)
		for (k = 0; k < b->places[i].n; k++) {
			struct vq_place *p = &b->places[i];
			int rc;

			if (p->lin[k].rec != rec || (p->w.bits == 16 && p->a.bits == VQ_ACT_FLOAT))
				continue;
			rc = vq_place_round(p, k, b->choice[2 * i], b->choice[2 * i + 1], q, err);
			return rc < 0 ? rc : 1;
		}
	return 0;
}
