/* The search of one planned block. */
#include "task/search_block.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "quant/layerwise.h"
#include "quant/qvlm.h"
#include "task/search_place.h"
#include "task/search_score.h"
#include "task/search_walk.h"

/* Rows that layer-wise trials multiply at once: bounds the memory of all candidates' outputs. */
#define TRIAL_ROWS 512u

struct vq_sblock {
	const struct vq_search_opts *o;
	const struct vq_acts *acts;
	struct vq_model *full, *quant;
	const struct vq_held_list *in;
	uint32_t first, last;
	int projector;
	struct vq_place *places;
	uint32_t n_places;
	int active;      /* something is quantized */
	uint8_t *choice; /* [2 * n_places] input's and weights' value of each place */
	uint8_t *usable; /* [2 * n_places, VQ_QVLM_VALUES] */

	/* while searching */
	struct vq_batch batch;
	float *input; /* what enters the block, quantized stream, rows of the batch */
	struct vq_score score;
	struct vq_walk walk; /* stands before place `at` with the choice of the places before it */
	uint32_t at;
	struct vq_block_cost cost;
};

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
	p->a.bits = VQ_ACT_FLOAT;
	if (b->o->parts & vq_search_part_of(l->rec->rec.name)) {
		p->w = b->o->w;
		p->a = b->o->a;
	}
	p->a.clip = 1;
	b->active = b->active || p->w.bits != 16 || p->a.bits != VQ_ACT_FLOAT;
	return VQ_OK;
}

static int layer_places(struct vq_sblock *b, uint32_t unit, struct vq_place *p, struct vq_err *err)
{
	struct vq_layer *full = vq_model_layer(b->full, unit),
			*quant = vq_model_layer(b->quant, unit);
	int slot, rc = VQ_OK;
	uint32_t i;

	for (slot = 0; rc == VQ_OK && slot < VQ_N_SLOTS; slot++, p++) {
		const struct vq_linear *l[3];
		enum vq_lin which[3];
		uint32_t n = vq_layer_slot_linears(full, (enum vq_slot)slot, l, which);

		p->unit = unit;
		p->slot = (uint32_t)slot;
		for (i = 0; rc == VQ_OK && i < n; i++)
			rc = add_linear(b, p, &full->lin[which[i]], &quant->lin[which[i]], err);
	}
	return rc;
}

static int find_places(struct vq_sblock *b, struct vq_err *err)
{
	const struct vq_config *c = &b->full->cfg;
	uint32_t unit, i;
	int rc = VQ_OK;

	for (unit = b->first; rc == VQ_OK && !b->projector && unit <= b->last; unit++)
		rc = layer_places(b, unit, b->places + (unit - b->first) * VQ_N_SLOTS, err);
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
	b->n_places = b->projector ? c->projector.n_linears : (last - first + 1) * VQ_N_SLOTS;
	b->places = vq_calloc(b->n_places, sizeof(*b->places), err);
	b->choice = vq_calloc(b->n_places, 2, err);
	b->usable = vq_calloc((size_t)b->n_places * 2, VQ_QVLM_VALUES, err);
	if (b->places && b->choice && b->usable)
		rc = find_places(b, err);
	for (i = 0; rc == VQ_OK && i < b->n_places; i++) {
		vq_place_measure_input(&b->places[i], NULL, 0);
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
	vq_free((void *)(uintptr_t)b->batch.start);
	vq_free(b->input);
	b->batch.start = NULL;
	b->input = NULL;
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
	vq_free(b->choice);
	vq_free(b->usable);
	vq_free(b);
}

/* --- layer-wise --- */

/* The buffers of one trial: outputs in full precision, and with every clip of the weights. */
struct trial {
	float *ref[3], *y[3 * VQ_QVLM_VALUES];
	struct vq_linear lin[3 * VQ_QVLM_VALUES];
	uint8_t value[3 * VQ_QVLM_VALUES], of[3 * VQ_QVLM_VALUES];
	uint32_t n;
};

static void trial_free(struct trial *t)
{
	uint32_t i;

	for (i = 0; i < 3; i++)
		vq_free(t->ref[i]);
	for (i = 0; i < t->n; i++)
		vq_free(t->y[i]);
}

static int trial_new(struct trial *t, const struct vq_place *p, struct vq_err *err)
{
	uint32_t i, w;

	memset(t, 0, sizeof(*t));
	for (i = 0; i < p->n; i++) {
		t->ref[i] = vq_alloc_f32((size_t)TRIAL_ROWS * p->lin[i].full->n_out, err);
		if (!t->ref[i])
			return VQ_E_SYS;
		for (w = 0; w < VQ_QVLM_VALUES; w++) {
			if (!p->w_usable[w])
				continue;
			t->of[t->n] = (uint8_t)i;
			t->value[t->n] = (uint8_t)w;
			t->y[t->n] = vq_alloc_f32((size_t)TRIAL_ROWS * p->lin[i].full->n_out, err);
			if (!t->y[t->n++])
				return VQ_E_SYS;
		}
	}
	return VQ_OK;
}

/* Adds the errors of some rows, input clip a. */
static int try_rows(struct trial *t, const struct vq_place *p, const float *xq, size_t n,
		    uint32_t a, double *errors, struct vq_err *err)
{
	const struct vq_linear *lin[3 * VQ_QVLM_VALUES];
	uint32_t i;
	int rc;

	for (i = 0; i < t->n; i++) {
		t->lin[i] = vq_place_linear_of(p, t->of[i], a, t->value[i]);
		lin[i] = &t->lin[i];
	}
	rc = vq_linear_apply(lin, t->n, xq, n, t->y, err);
	for (i = 0; rc == VQ_OK && i < t->n; i++)
		errors[a * VQ_QVLM_VALUES + t->value[i]] +=
			vq_sum_error2(t->y[i], t->ref[t->of[i]], n, t->lin[i].n_out);
	return rc;
}

/* errors [values of the input's clip, of the weights' clip]: of the place's own outputs. */
static int pair_errors(struct vq_sblock *b, const struct vq_place *p, const float *xq,
		       const float *xf, size_t n_rows, double *errors, struct vq_err *err)
{
	uint32_t n_in = p->lin[0].full->n_in, a, w, i;
	struct trial t;
	int rc = trial_new(&t, p, err);
	size_t at;

	for (a = 0; a < VQ_QVLM_VALUES; a++)
		for (w = 0; w < VQ_QVLM_VALUES; w++) {
			int use = p->a_usable[a] && p->w_usable[w];

			errors[a * VQ_QVLM_VALUES + w] = use ? 0 : INFINITY;
			b->cost.n_places += (uint64_t)use;
		}
	for (at = 0; rc == VQ_OK && at < n_rows; at += TRIAL_ROWS) {
		size_t n = n_rows - at < TRIAL_ROWS ? n_rows - at : TRIAL_ROWS;

		for (i = 0; rc == VQ_OK && i < p->n; i++)
			rc = vq_linear_one(p->lin[i].full, xf + at * n_in, n, t.ref[i], err);
		for (a = 0; rc == VQ_OK && a < VQ_QVLM_VALUES; a++)
			if (p->a_usable[a])
				rc = try_rows(&t, p, xq + at * n_in, n, a, errors, err);
	}
	trial_free(&t);
	return rc;
}

/* Chooses the clips of one place by its own error, with xq from quantized predecessors. */
static int layerwise_place(struct vq_sblock *b, uint32_t i, const float *xq, const float *xf,
			   struct vq_err *err)
{
	double errors[VQ_QVLM_VALUES * VQ_QVLM_VALUES];
	struct vq_place *p = &b->places[i];
	uint32_t v, a = 0, w = 0;
	int rc;

	vq_place_measure_input(p, xq, b->cost.n_rows);
	rc = vq_place_measure_weights(p, err);
	for (v = 0; rc == VQ_OK && v < VQ_QVLM_VALUES; v++)
		if (p->w_usable[v])
			rc = vq_place_build(p, v, err);
	if (rc == VQ_OK && (p->w.bits != 16 || p->a.bits != VQ_ACT_FLOAT)) {
		rc = pair_errors(b, p, xq, xf, b->cost.n_rows, errors, err);
		if (rc == VQ_OK)
			vq_layerwise_pick(errors, VQ_QVLM_VALUES, VQ_QVLM_VALUES, &a, &w);
	}
	if (rc < 0)
		return rc;
	b->choice[2 * i] = (uint8_t)a;
	b->choice[2 * i + 1] = (uint8_t)w;
	memcpy(b->usable + (size_t)2 * i * VQ_QVLM_VALUES, p->a_usable, VQ_QVLM_VALUES);
	memcpy(b->usable + (size_t)(2 * i + 1) * VQ_QVLM_VALUES, p->w_usable, VQ_QVLM_VALUES);
	vq_place_set(p, a, w);
	vq_place_keep(p, w);
	return VQ_OK;
}

static int gptq_place(struct vq_sblock *b, uint32_t i, const float *xq, const float *xf,
		      struct vq_err *err)
{
	struct vq_place *p = &b->places[i];
	int rc = vq_place_gptq(p, b->o, xq, xf, b->cost.n_rows, &b->cost.gptq, err);

	if (rc == VQ_OK)
		vq_place_set(p, 0, 0);
	return rc;
}

/* Both streams through the block, place by place.  Leaves the choice, the target and the choice's error. */
static int in_order(struct vq_sblock *b, const float *full_in, struct vq_err *err)
{
	struct vq_walk f = {0}, q = {0};
	uint32_t i;
	int rc = vq_walk_begin(&f, b->full, b->first, b->last, full_in, b->acts->width, &b->batch,
			       err);

	if (rc == VQ_OK)
		rc = vq_walk_begin(&q, b->quant, b->first, b->last, b->input, b->acts->width,
				   &b->batch, err);
	for (i = 0; rc == VQ_OK && i < b->n_places; i++) {
		rc = b->o->method == VQ_METHOD_GPTQ
			     ? gptq_place(b, i, vq_walk_input(&q), vq_walk_input(&f), err)
			     : layerwise_place(b, i, vq_walk_input(&q), vq_walk_input(&f), err);
		if (rc == VQ_OK)
			rc = vq_walk_next(&f, err);
		if (rc == VQ_OK)
			rc = vq_walk_next(&q, err);
	}
	if (rc == VQ_OK)
		rc = vq_score_target(&b->score, vq_walk_output(&f), err);
	if (rc == VQ_OK)
		rc = vq_score_of(&b->score, vq_walk_output(&q), &b->cost.layerwise, err);
	b->cost.n_places += 2 * (uint64_t)b->n_places;
	b->cost.n_evals++;
	vq_walk_end(&f);
	vq_walk_end(&q);
	return rc;
}

/* --- block-wise --- */

static int set_all(struct vq_sblock *b, const uint8_t *choice, struct vq_err *err)
{
	uint32_t i;

	for (i = 0; i < b->n_places; i++) {
		int rc = vq_place_build(&b->places[i], choice[2 * i + 1], err);

		if (rc < 0)
			return rc;
		vq_place_set(&b->places[i], choice[2 * i], choice[2 * i + 1]);
	}
	return VQ_OK;
}

static int finish_walk(struct vq_sblock *b, struct vq_walk *w, double *error, struct vq_err *err)
{
	int rc = VQ_OK;

	while (rc == VQ_OK && !vq_walk_done(w)) {
		rc = vq_walk_next(w, err);
		b->cost.n_places++;
	}
	b->cost.n_evals++;
	return rc < 0 ? rc : vq_score_of(&b->score, vq_walk_output(w), error, err);
}

static int restart(struct vq_sblock *b, struct vq_err *err)
{
	vq_walk_end(&b->walk);
	b->at = 0;
	return vq_walk_begin(&b->walk, b->quant, b->first, b->last, b->input, b->acts->width,
			     &b->batch, err);
}

static int enter(void *ctx, uint32_t coord, const uint8_t *choice, struct vq_err *err)
{
	struct vq_sblock *b = ctx;
	uint32_t place = coord / 2, v;
	int rc = set_all(b, choice, err);

	if (rc == VQ_OK && place < b->at)
		rc = restart(b, err);
	for (; rc == VQ_OK && b->at < place; b->at++) {
		vq_place_keep(&b->places[b->at], choice[2 * b->at + 1]);
		rc = vq_walk_next(&b->walk, err);
		b->cost.n_places++;
	}
	for (v = 0; rc == VQ_OK && coord % 2 == 1 && v < VQ_QVLM_VALUES; v++)
		if (b->places[place].w_usable[v])
			rc = vq_place_build(&b->places[place], v, err);
	return rc;
}

static int eval(void *ctx, uint32_t coord, const uint8_t *choice, double *error, struct vq_err *err)
{
	struct vq_sblock *b = ctx;
	uint32_t place = coord / 2;
	struct vq_walk w = {0};
	int rc;

	vq_place_set(&b->places[place], choice[2 * place], choice[2 * place + 1]);
	rc = vq_walk_fork(&w, &b->walk, err);
	if (rc == VQ_OK)
		rc = finish_walk(b, &w, error, err);
	vq_walk_end(&w);
	return rc;
}

/* The error with one choice for all places, from the block's input on. */
static int whole_error(struct vq_sblock *b, const uint8_t *choice, double *error,
		       struct vq_err *err)
{
	int rc = set_all(b, choice, err);

	if (rc == VQ_OK)
		rc = restart(b, err);
	if (rc == VQ_OK)
		rc = finish_walk(b, &b->walk, error, err);
	return rc;
}

static int blockwise(struct vq_sblock *b, struct vq_err *err)
{
	struct vq_descent d = {.n_coords = 2 * b->n_places,
			       .sweeps = b->o->sweeps,
			       .usable = b->usable,
			       .enter = enter,
			       .eval = eval,
			       .ctx = b,
			       .error = b->cost.layerwise};
	int rc;

	if (!(b->cost.layerwise < b->cost.plain)) {
		memset(b->choice, 0, (size_t)2 * b->n_places);
		d.error = b->cost.plain;
	}
	rc = restart(b, err);
	if (rc == VQ_OK)
		rc = vq_qvlm_descend(&d, b->choice, err);
	b->cost.error = d.error;
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
	rc = VQ_OK;
out:
	vq_free(seqs);
	return rc;
}

int vq_sblock_search(struct vq_sblock *b, struct vq_err *err)
{
	uint8_t *plain = vq_calloc(b->n_places, 2, err);
	float *full_in = NULL;
	double t0 = vq_now();
	uint32_t i;
	int rc = plain ? VQ_OK : VQ_E_SYS;

	if (rc == VQ_OK && b->active && b->acts->n_rows > 0) {
		vq_score_begin(&b->score, b->o, b->acts, &b->full->cfg, b->first, b->last);
		rc = choose_rows(b, &full_in, err);
		if (rc == VQ_OK)
			rc = in_order(b, full_in, err);
		vq_free(full_in);
		b->cost.error = b->cost.layerwise;
		b->cost.veo = b->score.veo;
		/* What layer-wise chose must survive the plain trial: it keeps only what it is told to. */
		if (rc == VQ_OK && b->o->method != VQ_METHOD_GPTQ)
			rc = whole_error(b, plain, &b->cost.plain, err);
		if (rc == VQ_OK && b->o->method == VQ_METHOD_QVLM)
			rc = blockwise(b, err);
	}
	if (rc == VQ_OK)
		rc = set_all(b, b->choice, err);
	for (i = 0; rc == VQ_OK && i < b->n_places; i++)
		vq_place_keep(&b->places[i], b->choice[2 * i + 1]);
	end_search(b);
	vq_free(plain);
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
	return rc;
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

const struct vq_block_cost *vq_sblock_cost(const struct vq_sblock *b)
{
	return &b->cost;
}

void vq_sblock_name(uint32_t first, uint32_t last, char name[64])
{
	snprintf(name, 64, "search/block/%u-%u", first, last);
}

static json_t *percentiles(const struct vq_sblock *b, uint32_t which)
{
	json_t *a = json_array();
	uint32_t i;

	for (i = 0; a && i < b->n_places; i++)
		json_array_append_new(a, json_real(vq_clip_percentiles[b->choice[2 * i + which]]));
	return a;
}

static json_t *gptq_stat(const struct vq_sblock *b)
{
	const struct vq_block_cost *c = &b->cost;

	return json_pack("{s:[I,I],s:I,s:f,s:f,s:f,s:I,s:I}", "units", (json_int_t)b->first,
			 (json_int_t)b->last, "rows", (json_int_t)c->n_rows, "error", c->error,
			 "loss", c->gptq.loss, "damp", c->gptq.damp, "evaluations",
			 (json_int_t)c->n_evals, "places", (json_int_t)c->n_places);
}

static json_t *clip_stat(const struct vq_sblock *b)
{
	const struct vq_block_cost *c = &b->cost;

	return json_pack("{s:[I,I],s:I,s:b,s:f,s:f,s:f,s:I,s:I,s:o,s:o}", "units",
			 (json_int_t)b->first, (json_int_t)b->last, "rows", (json_int_t)c->n_rows,
			 "veo", c->veo, "error_plain", c->plain, "error_layerwise", c->layerwise,
			 "error", c->error, "evaluations", (json_int_t)c->n_evals, "places",
			 (json_int_t)c->n_places, "p_act", percentiles(b, 0), "p_weight",
			 percentiles(b, 1));
}

json_t *vq_sblock_stat(const struct vq_sblock *b, struct vq_err *err)
{
	json_t *j = b->o->method == VQ_METHOD_GPTQ ? gptq_stat(b) : clip_stat(b);

	if (!j)
		vq_fail(err, VQ_E_SYS, "memory: cannot make the statistics of a block");
	return j;
}

void vq_sblock_say(const struct vq_sblock *b)
{
	const struct vq_block_cost *c = &b->cost;
	struct vq_str s = {0};
	uint32_t i, k;

	if (b->o->method == VQ_METHOD_GPTQ) {
		vq_info("units %u-%u: error %.4g, loss %.4g, damping %g, %u rows, %.1f s", b->first,
			b->last, c->error, c->gptq.loss, c->gptq.damp, c->n_rows, c->seconds);
		return;
	}
	for (k = 0; k < 2; k++) {
		vq_str_puts(&s, k ? "; w" : "a");
		for (i = 0; i < b->n_places; i++)
			vq_str_printf(&s, "%s%g", i % VQ_N_SLOTS || i == 0 ? " " : " | ",
				      vq_clip_percentiles[b->choice[2 * i + k]]);
	}
	vq_info("units %u-%u: error %.4g -> %.4g (layerwise %.4g)%s, %u rows, %llu evaluations, "
		"%.1f s; clips %s",
		b->first, b->last, c->plain, c->error, c->layerwise,
		c->veo ? " with effect on the final output" : "", c->n_rows,
		(unsigned long long)c->n_evals, c->seconds, s.s ? s.s : "");
	vq_str_free(&s);
}
