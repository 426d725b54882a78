/* What a search needs, from shapes alone.  Phases follow each other, so the peak is that of the hungriest one, above
 * what is held all the time.  What is left out (JSON, the C library, the libraries' own) is in BASE_BYTES. */
#include "task/search_cost.h"

#include <omp.h>
#include <string.h>

#include "quant/awq.h"
#include "quant/hadamard.h"
#include "stream/reader.h"
#include "task/search_place.h"
#include "task/search_scheme.h"

#define BASE_BYTES (10u << 20)
#define KEPT_BYTES \
	(32u       \
	 << 20) /* smaller blocks stay with the C library when they are freed: bin/vqlm-search.c */
#define TRIAL_ROWS 512u  /* search_block.c */
#define CHUNK_ROWS 2048u /* search_acts.c */

static uint64_t u64max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

struct shapes {
	const struct vq_search_opts *o;
	const struct vq_config *c;
	const struct vq_name *names;
	size_t n_names, size; /* bytes of an element of a weight */
	const struct vq_acts *acts;
	uint64_t rows[3], chosen[3]; /* vision, projector, decoder */
};

static uint64_t elements(const struct vq_name *n)
{
	uint64_t e = 1;
	uint32_t i;

	for (i = 0; i < n->n_dims; i++)
		e *= n->dims[i];
	return e;
}

static int quantized(const struct shapes *s, const struct vq_name *n)
{
	return n->linear && (vq_search_part_of(n->name) & s->o->parts) && s->o->w.bits != 16;
}

static struct vq_agrid act_grid(const struct shapes *s, const struct vq_name *n)
{
	return vq_scheme_grid(s->o, s->c, n->name, (uint32_t)n->dims[1]);
}

/* Bytes of the ranges of a linear's input. */
static uint64_t ranges(const struct shapes *s, const struct vq_name *n)
{
	return n->linear ? act_grid(s, n).n_ranges * 2 * sizeof(float) : 0;
}

/* Absmax of a linear in NF. */
static uint64_t blocks(const struct vq_name *n)
{
	return vq_nf_n_blocks((uint32_t)n->dims[0], (uint32_t)n->dims[1]);
}

/* Bytes of a linear in the stream. */
static uint64_t coded(const struct shapes *s, const struct vq_name *n)
{
	uint64_t groups = vq_grid_n_groups(&s->o->w, (uint32_t)n->dims[1]);

	if (vq_search_nf(s->o))
		return elements(n) + blocks(n) + 4 * (vq_nf_n_scales((size_t)blocks(n)) + 1);
	return elements(n) + n->dims[0] * groups * (s->o->w.sym ? 2 : 3);
}

/* Bytes of one candidate of a linear in memory. */
static uint64_t candidate(const struct shapes *s, const struct vq_name *n)
{
	uint64_t groups = vq_grid_n_groups(&s->o->w, (uint32_t)n->dims[1]);
	struct vq_agrid a = act_grid(s, n);

	if (!vq_agrid_is_integer(&a))
		return elements(n) * sizeof(float);
	if (vq_search_nf(s->o))
		return elements(n) * s->o->w.bits / 8 + 2 * sizeof(float) * blocks(n);
	return elements(n) * s->o->w.bits / 8 + n->dims[0] * groups * 3;
}

/* One tensor at a time: as it comes, its codes, and the rows that the threads convert. */
static uint64_t tensor_peak(const struct shapes *s, const struct vq_name *n, int level)
{
	uint64_t raw = elements(n) * s->size, out = raw;

	if (quantized(s, n)) {
		out = coded(s, n);
		raw += out + (uint64_t)omp_get_max_threads() * 16 * n->dims[1] * sizeof(float);
		raw += vq_search_nf(s->o) ? sizeof(float) * blocks(n) : 0;
	}
	/* A compressed record is whole in memory before it goes out. */
	return raw + (level ? out + out / 64 : 0);
}

/* Bytes of a tensor that is read while the one before is at work. */
static uint64_t ahead(const struct shapes *s, size_t i)
{
	uint64_t n = i < s->n_names ? elements(&s->names[i]) * s->size : 0;

	return n <= VQ_READER_AHEAD ? n : 0;
}

/* Beside a tensor at work the next one, and the hole that the one before has left in the heap. */
static uint64_t three_tensors(const struct shapes *s, size_t i, int level)
{
	uint64_t hole = i ? elements(&s->names[i - 1]) * s->size : 0;

	return tensor_peak(s, &s->names[i], level) + ahead(s, i + 1) + hole;
}

struct tower {
	const struct vq_layer_config *l; /* NULL: the projector */
	uint64_t rows, chosen, width, inter;
	uint64_t top_k; /* experts of a row; 0: no layer has some */
};

static struct tower tower_of(const struct shapes *s, uint32_t unit)
{
	const struct vq_config *c = s->c;
	uint32_t decoder = vq_config_decoder_unit(c);

	if (unit >= decoder)
		return (struct tower){&c->decoder.layer,      s->rows[2],
				      s->chosen[2],           c->decoder.layer.hidden,
				      c->decoder.layer.inter, c->decoder.moe.top_k};
	if (unit + 1 == decoder)
		return (struct tower){NULL,
				      s->rows[1],
				      s->chosen[1],
				      u64max(c->projector.in, c->projector.out),
				      c->projector.out,
				      0};
	return (struct tower){&c->vision.layer,      s->rows[0],
			      s->chosen[0],          c->vision.layer.hidden,
			      c->vision.layer.inter, 0};
}

/* Floats that a walk over n rows takes while a stage runs, and between stages. */
static uint64_t walk_floats(const struct tower *t, uint64_t n, int running)
{
	uint64_t between = t->width + (t->inter > t->width ? t->inter : t->width);

	if (t->top_k) /* gathered rows, those before them, and what has been made of the next slot's */
		between = 2 * t->width + t->top_k * (t->width + t->inter);
	return n * (running ? between + 2 * t->inter + 2 * t->width : between);
}

/* GPTQ at a linear: square matrices of double. */
static uint64_t gptq_squares(const struct shapes *s, const struct vq_name *n)
{
	uint64_t n_squares = s->o->gptaq > 0 ? 4 + 2 * (s->o->polish > 0) : s->o->polish ? 3 : 2;

	return n_squares * 8 * n->dims[1] * n->dims[1];
}

/* Beside them the rows whose moments are summed, and those that the threads round. */
static uint64_t gptq_rows(const struct shapes *s, const struct vq_name *n)
{
	return n->dims[1] *
	       (256 * 16 + (uint64_t)omp_get_max_threads() * 32 * (s->o->polish ? 36 : 20));
}

/* Moments, three steps of the inverse, rounding: at most, as if no two linears had the same input. */
static double gptq_flop(const struct shapes *s, uint32_t unit, uint64_t rows)
{
	double f = 0;
	size_t i;

	for (i = 0; i < s->n_names; i++) {
		const struct vq_name *n = &s->names[i];
		double in = n->linear ? (double)n->dims[1] : 0;

		if (quantized(s, n) && n->unit == unit)
			f += in * in *
			     ((s->o->gptaq > 0 ? 3 : 1) * (double)rows +
			      (s->o->gptaq > 0 ? 6 : 2) * in +
			      (2 + 2 * (s->o->gptaq > 0) + 4 * (s->o->polish > 0)) *
				      (double)n->dims[0]);
	}
	return f;
}

/* Bytes of weights that are floats while their scales are searched: of what reads the linear's input, at most. */
static uint64_t awq_weights(const struct shapes *s, const struct tower *t, const struct vq_name *n)
{
	uint32_t decoder = vq_config_decoder_unit(s->c);
	int up = n->dims[0] > n->dims[1];
	uint64_t mlps = 1, bytes = elements(n) * sizeof(float) * (up ? 2 : 1);

	if (t->top_k && n->unit >= decoder && up)
		mlps = u64max(s->c->decoder.moe.n_experts[n->unit - decoder], 1);
	return bytes * mlps +
	       (t->l && t->l->parallel ? 3 * t->width * t->width * sizeof(float) : 0);
}

/* AWQ at a place: its weights as float, output and target of the module, beside the fork that runs it, or the tokens that
 * clips are searched by and what the threads try. */
static uint64_t awq_place(const struct shapes *s, const struct tower *t, const struct vq_name *n)
{
	uint64_t step = u64max(t->chosen / VQ_AWQ_TOKENS, 1),
		 tokens = (t->chosen + step - 1) / step;
	uint64_t group = s->o->w.group ? s->o->w.group : n->dims[1];
	uint64_t scales = awq_weights(s, t, n) + 3 * t->chosen * t->width * sizeof(float);
	uint64_t clips = 8 * tokens * n->dims[1] +
			 (uint64_t)omp_get_max_threads() * 16 *
				 (8 * VQ_AWQ_CLIPS * (group + tokens) + 12 * n->dims[1]) +
			 coded(s, n);

	return t->l ? u64max(scales, clips) : clips;
}

/* One of the linears that share an input. */
static int leads(const struct vq_name *n)
{
	return !strstr(n->name, ".k_proj.") && !strstr(n->name, ".v_proj.") &&
	       !strstr(n->name, ".gate_proj.");
}

/* Bytes of the transforms of its input, with their duals. */
static uint64_t transforms(const struct shapes *s, const struct vq_name *n)
{
	uint64_t each =
		1 + (s->o->rotate == VQ_ROTATE_WUSH ? vq_hadamard_block((uint32_t)n->dims[1]) : 0);

	if (!leads(n) || (s->o->rotate == VQ_ROTATE_NONE && s->o->smooth == VQ_SMOOTH_OFF))
		return 0;
	return (s->o->smooth == VQ_SMOOTH_SEARCH ? VQ_QVLM_VALUES : 1) * 2 * each * n->dims[1] *
	       sizeof(float);
}

/* What making one takes meanwhile: five squares of doubles a block, and rows. */
static uint64_t transform_work(const struct shapes *s, const struct vq_name *n)
{
	uint64_t block = vq_hadamard_block((uint32_t)n->dims[1]);

	return s->o->rotate == VQ_ROTATE_WUSH ? (5 * block + 256 * 2) * 8 * n->dims[1] : 0;
}

/* Weights, their candidates, trials and walks of one block. */
static uint64_t block_peak(const struct shapes *s, const struct vq_block *b, int level)
{
	struct tower t = tower_of(s, b->first);
	uint64_t held = 0, chosen = 0, widest = 0, place = 0, kept = 0, search, run, fit = 0,
		 trial = 0, tails = 0, next = 0;
	int descend = vq_search_descends(s->o), gptq = vq_search_is_gptq(s->o),
	    awq = s->o->method == VQ_METHOD_AWQ;
	int rotate = s->o->rotate != VQ_ROTATE_NONE || s->o->smooth != VQ_SMOOTH_OFF;
	uint64_t n_values = vq_search_clips_weights(s->o) || s->o->smooth == VQ_SMOOTH_SEARCH
				    ? VQ_QVLM_VALUES
				    : 1;
	size_t i;

	for (i = 0; i < s->n_names; i++) {
		const struct vq_name *n = &s->names[i];

		if (n->unit == b->last + 1)
			next = u64max(next, ahead(s, i));
		if (n->unit < b->first || n->unit > b->last)
			continue;
		held += elements(n) * (n->linear || n->n_dims > 1 ? s->size : s->size + 8);
		widest = u64max(widest, elements(n) * s->size / (level ? 1 : 8));
		chosen += ranges(s, n) * VQ_QVLM_VALUES;
		if (ranges(s, n)) /* the tails of the rows, and some rows twice */
			tails = u64max(tails, n->dims[1] * (t.chosen / 12 + 2 * TRIAL_ROWS) *
						      sizeof(float));
		if (!quantized(s, n))
			continue;
		chosen += candidate(s, n) * (descend ? 2 : 1) + transforms(s, n);
		fit = u64max(fit, coded(s, n) + (rotate ? elements(n) * sizeof(float) : 0));
		place = u64max(place, transform_work(s, n));
		if (gptq) {
			chosen += coded(s, n);
			place = u64max(place, gptq_squares(s, n) + gptq_rows(s, n) +
						      (rotate ? elements(n) * sizeof(float) : 0));
			if (8 * n->dims[1] * n->dims[1] < KEPT_BYTES)
				kept = u64max(kept, gptq_squares(s, n));
		}
		if (awq) {
			chosen += coded(s, n);
			place = u64max(place, awq_place(s, &t, n));
		}
		if (awq || (gptq && !vq_search_chooses(s->o)))
			continue;
		place = u64max(place, candidate(s, n) * n_values *
					      (n->dims[0] > n->dims[1] || !t.l ? 2 : 1));
		trial = u64max(trial,
			       n->dims[0] * (n_values + 1) * (n->dims[0] > n->dims[1] ? 2 : 1));
	}
	run = walk_floats(&t, t.rows < CHUNK_ROWS ? t.rows : CHUNK_ROWS, 1) * sizeof(float);
	search = 3 * t.chosen * t.width + walk_floats(&t, t.chosen, 1) +
		 walk_floats(&t, t.chosen, 0);
	search = search * sizeof(float) + place +
		 u64max(u64max(fit, tails), TRIAL_ROWS * trial * sizeof(float));
	/* The record that is read meanwhile, and the hole that the one before it has left in the heap. */
	return held + chosen + kept + 2 * next + u64max(u64max(run, search), fit + widest);
}

static void count_rows(struct shapes *s)
{
	uint64_t images = s->acts->n_images, k;
	uint32_t i;

	s->rows[0] = s->c->has_vision ? images * vq_vision_positions(s->c) : 0;
	s->rows[1] = images * s->c->n_image_tokens;
	for (i = 0; i < s->acts->n_samples; i++)
		s->rows[2] += s->acts->samples[i].n_tokens;
	for (k = 0; k < 3; k++)
		s->chosen[k] = s->o->rows && s->o->rows < s->rows[k] ? s->o->rows : s->rows[k];
	/* The last vision block measures the sketched samples too. */
	for (i = 0, k = 0; i < s->acts->n_samples; i++)
		if (s->acts->samples[i].sketch)
			k += (uint64_t)s->acts->samples[i].n_images * vq_vision_positions(s->c);
	s->chosen[0] = s->chosen[0] + k < s->rows[0] ? s->chosen[0] + k : s->rows[0];
}

/* Samples, checkpoints, and the larger of the two streams' towers. */
static uint64_t held_always(const struct shapes *s)
{
	uint64_t side = s->c->vision.image_size, n = 0, streams, enter, pixels;
	uint32_t i;

	for (i = 0; i < s->acts->n_samples; i++)
		n += (uint64_t)s->acts->samples[i].n_tokens * 4 +
		     (uint64_t)s->acts->samples[i].n_sketch * s->acts->samples[i].n_images *
			     s->c->n_image_tokens * s->c->projector.in * 4;
	for (i = 0; i < s->acts->n_points; i++)
		n += (uint64_t)s->acts->points[i].n_rows * s->acts->points[i].width * 4;
	pixels = s->acts->n_images * 3 * side * side * 4;
	streams = 8 * s->rows[0] * s->c->vision.layer.hidden;
	enter = 8 * (s->rows[1] + s->rows[2]) * s->c->decoder.layer.hidden;
	if (s->o->first_unit > vq_config_decoder_unit(s->c) || !s->acts->n_images)
		enter = 8 * s->rows[2] * s->c->decoder.layer.hidden;
	return n + u64max(u64max(streams, enter), pixels);
}

/* The part of the rows that a linear gets. */
static double share(const struct shapes *s, const struct vq_name *n)
{
	const struct vq_moe_config *m = &s->c->decoder.moe;
	uint32_t first = vq_config_decoder_unit(s->c);

	return strstr(n->name, ".experts.") ? (double)m->top_k / m->n_experts[n->unit - first] : 1;
}

/* Products of one row through a unit, times two: of the experts of a layer, through those that it goes to. */
static double unit_flop(const struct shapes *s, uint32_t unit)
{
	double f = 0;
	size_t i;

	for (i = 0; i < s->n_names; i++)
		if (s->names[i].linear && s->names[i].unit == unit)
			f += 2.0 * (double)elements(&s->names[i]) * share(s, &s->names[i]);
	return f;
}

/* Layer-wise: up to 25 trials and a walk of both streams.  AWQ: every linear runs 21 times, o and down once more for the modules
 * that end in them, and three walks; clips are tried on fewer rows.  Block-wise: each sweep tries 4 values of up to 8 coordinates a layer, each
 * of which runs half of the block on average.  Then both streams go through. */
static double block_flop(const struct shapes *s, const struct vq_block *b)
{
	struct tower t = tower_of(s, b->first);
	double flop = 0, moments = 0, layers = b->last - b->first + 1, runs;
	int clips_w = vq_search_clips_weights(s->o), clips_a = vq_search_clips_inputs(s->o);
	int smooth = s->o->smooth == VQ_SMOOTH_SEARCH;
	uint32_t unit;

	for (unit = b->first; unit <= b->last; unit++) {
		flop += unit_flop(s, unit);
		if (vq_search_is_gptq(s->o))
			moments += gptq_flop(s, unit, t.chosen);
	}
	runs = vq_search_is_gptq(s->o) ? 2 : 4;
	if (s->o->method == VQ_METHOD_AWQ)
		runs = 2 * (VQ_AWQ_RATIOS + 1) + VQ_AWQ_CLIPS + 3;
	if (vq_search_chooses(s->o))
		runs += (clips_a ? VQ_QVLM_VALUES : 1) * (clips_w || smooth ? VQ_QVLM_VALUES : 1);
	if (vq_search_descends(s->o))
		runs += s->o->sweeps * (VQ_QVLM_VALUES - 1) * 4 * (clips_a + (clips_w || smooth)) *
				layers / 2 +
			(vq_search_is_gptq(s->o) ? 4 : 0);
	return moments + flop * (runs * (double)t.chosen + 2.0 * (double)t.rows);
}

void vq_search_cost(struct vq_search_cost *c, const struct vq_search_opts *o,
		    const struct vq_config *cfg, const struct vq_name *names, size_t n_names,
		    enum vq_dtype type, const struct vq_plan *plan, const struct vq_acts *acts,
		    int level)
{
	struct shapes s = {.o = o,
			   .c = cfg,
			   .names = names,
			   .n_names = n_names,
			   .size = vq_dtype_size(type),
			   .acts = acts};
	uint64_t peak = 0;
	size_t i;

	*c = (struct vq_search_cost){0, 0, 0};
	if (vq_search_calibrates(o))
		count_rows(&s);
	for (i = 0; i < n_names; i++) {
		if (names[i].unit < o->first_unit || names[i].unit > o->last_unit)
			continue;
		c->stream += quantized(&s, &names[i]) ? coded(&s, &names[i])
						      : elements(&names[i]) * s.size;
		c->stream += ranges(&s, &names[i]);
		if (!vq_search_by_block(o))
			peak = u64max(peak, three_tensors(&s, i, level));
	}
	for (i = 0; vq_search_by_block(o) && i < plan->n_blocks; i++) {
		const struct vq_block *b = &plan->blocks[i];

		if (b->first < o->first_unit || b->last > o->last_unit)
			continue;
		peak = u64max(peak, block_peak(&s, b, level));
		c->flop += block_flop(&s, b);
	}
	c->memory = BASE_BYTES + peak + (!vq_search_calibrates(o) ? 0 : held_always(&s));
}
