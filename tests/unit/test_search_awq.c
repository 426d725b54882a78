/* Search by AWQ on a small random model: scales and their folding, by their definition. */
#include "search_run.h"
#include "toy_stream.h"

#include <omp.h>

#include "base/json.h"
#include "model/model.h"
#include "quant/grid.h"
#include "task/search_fold.h"

static struct vq_search_opts defaults(void)
{
	return (struct vq_search_opts){
		.method = VQ_METHOD_AWQ,
		.w = {3, 32, 0},
		.a = {.bits = 16, .group = 128, .clip = 1},
		.parts = VQ_PART_ALL,
		.last_unit = UINT32_MAX,
	};
}

/* The toy with as many keys as queries, and biases everywhere: all four slots of its decoder have scales. */
static struct toy full_toy(void)
{
	static const uint32_t blocks[][2] = {{0, 1}, {2, 2}, {3, 4}, {5, 5}};
	struct toy t = {
		.cfg = toy_config(), .n_samples = 12, .blocks = blocks, .n_blocks = 4, .seed = 5};

	t.cfg.decoder.layer.n_kv_heads = t.cfg.decoder.layer.n_heads;
	t.cfg.decoder.layer.qkv_bias = t.cfg.decoder.layer.mlp_bias = 1;
	return t;
}

static json_t *block_stat(const struct vq_held_list *all, const char *name)
{
	const struct vq_held *h = vq_held_find(all, name);
	json_t *j;

	assert_non_null(h);
	j = vq_json_parse(h->data, h->rec.raw_bytes, name, NULL);
	assert_non_null(j);
	return j;
}

static double entry(const json_t *stat, const char *key, uint32_t i)
{
	const json_t *j = json_array_get(json_object_get(stat, key), i);

	assert_true(json_is_number(j));
	return json_number_value(j);
}

/* --- folding --- */

static float *random_floats(size_t n, uint64_t seed, double mean, double scale)
{
	struct vq_rng r = vq_rng_new(seed, "fold");
	float *p = vq_alloc_f32(n, NULL);
	size_t i;

	for (i = 0; i < n; i++)
		p[i] = (float)(mean + scale * vq_rng_normal(r, i));
	return p;
}

static void random_linear(struct vq_linear *m, uint32_t k)
{
	m->dtype = VQ_F32;
	m->w = random_floats((size_t)m->n_out * m->n_in, 10 + k, 0, 1 / sqrt(m->n_in));
	m->bias = random_floats(m->n_out, 20 + k, 0, .1);
}

#define EXPERTS 3u

/* A layer with random weights; decoder: LLaMA, else CLIP.  own [EXPERTS * VQ_EXPERT_LINEARS]: it is sparse; or NULL. */
static void random_layer(struct vq_layer *l, const struct vq_layer_config *c, struct vq_linear *own)
{
	static const struct vq_gating gating = {.top_k = 2};
	uint32_t k;

	vq_layer_init(l, c);
	if (own)
		vq_layer_init_sparse(l, c, own, EXPERTS, 0, &gating);
	l->router = own ? random_floats((size_t)EXPERTS * c->hidden, 5, 0, .2) : NULL;
	for (k = 0; k < l->n_experts * VQ_EXPERT_LINEARS; k++)
		random_linear(&own[k], 100 + k);
	l->norm1_w = random_floats(c->hidden, 1, 1, .2);
	l->norm2_w = random_floats(c->hidden, 2, 1, .2);
	l->norm1_b = c->norm == VQ_NORM_LAYER ? random_floats(c->hidden, 3, 0, .2) : NULL;
	l->norm2_b = c->norm == VQ_NORM_LAYER ? random_floats(c->hidden, 4, 0, .2) : NULL;
	for (k = 0; k < VQ_N_LINEARS; k++)
		random_linear(&l->lin[k], k);
}

static void free_linear(const struct vq_linear *m)
{
	vq_free((void *)(uintptr_t)m->w);
	vq_free((void *)(uintptr_t)m->bias);
}

static void free_layer(struct vq_layer *l)
{
	const void *p[] = {l->norm1_w, l->norm1_b, l->norm2_w, l->norm2_b, l->router};
	uint32_t k;

	for (k = 0; k < 5; k++)
		vq_free((void *)(uintptr_t)p[k]);
	for (k = 0; k < VQ_N_LINEARS; k++)
		free_linear(&l->lin[k]);
	for (k = 0; k < l->n_experts * VQ_EXPERT_LINEARS; k++)
		free_linear(&l->experts[k]);
}

static void fold_floats(const struct vq_fold *f, const struct vq_layer *l, const char *name,
			const float **field)
{
	float *v;

	if (vq_fold_floats(f, l, name, &v, NULL) == 1) {
		vq_free((void *)(uintptr_t)*field);
		*field = v;
	}
}

/* to: a second layer of the same random weights, becomes l folded. */
static void fold_layer(const struct vq_fold *f, const struct vq_layer *l, struct vq_layer *to)
{
	uint32_t k, e, n = l->n_experts ? l->n_experts : 1;
	char name[64];

	fold_floats(f, l, "norm1.weight", &to->norm1_w);
	fold_floats(f, l, "norm1.bias", &to->norm1_b);
	fold_floats(f, l, "norm2.weight", &to->norm2_w);
	fold_floats(f, l, "norm2.bias", &to->norm2_b);
	fold_floats(f, l, "v_proj.bias", &to->lin[VQ_LIN_V].bias);
	fold_floats(f, l, "router.weight", &to->router);
	for (e = 0; e < n; e++) {
		snprintf(name, sizeof(name),
			 l->n_experts ? "experts.%u.up_proj.bias" : "up_proj.bias", e);
		fold_floats(f, l, name, &vq_layer_linear(to, VQ_LIN_UP, e)->bias);
		for (k = e ? VQ_LIN_UP : 0; k < VQ_N_LINEARS; k++) {
			struct vq_awq_weight w = vq_fold_weight(f, l, (enum vq_lin)k, e);

			if (w.n_out)
				vq_awq_rows(
					&w, 0, w.n_out,
					(float *)(uintptr_t)vq_layer_linear(to, (enum vq_lin)k, e)
						->w);
		}
	}
}

/* Random scales wherever the layer can have some; returns how many slots. */
static uint32_t random_scales(struct vq_fold *f, const struct vq_layer *l, int decoder)
{
	uint32_t slot, e, n = 0, j;

	for (slot = 0; slot < VQ_N_SLOTS; slot++) {
		if (!vq_fold_can(l, (enum vq_slot)slot, decoder))
			continue;
		for (e = 0; e == 0 || (e < l->n_experts && slot == VQ_SLOT_DOWN); e++) {
			const struct vq_linear *lin[3];
			enum vq_lin which[3];
			float **s = vq_fold_at(f, l, (enum vq_slot)slot, e);

			assert_true(vq_layer_place_linears(
					    l, (struct vq_layer_place){(enum vq_slot)slot, e}, lin,
					    which) > 0);
			*s = random_floats(lin[0]->n_in, 40 + 10 * (uint64_t)e + slot, 0, 1);
			for (j = 0; j < lin[0]->n_in; j++)
				(*s)[j] = expf((*s)[j]);
		}
		n++;
	}
	return n;
}

static void folding_leaves_what_a_layer_computes(void **state)
{
	const struct vq_layer_config full = full_toy().cfg.decoder.layer;
	struct vq_layer_config parallel = full;
	const struct {
		struct vq_layer_config c;
		int sparse;
		uint32_t n_scaled;
	} cases[] = {{full, 0, 4},
		     {toy_config().decoder.layer, 0, 3},
		     {toy_config().vision.layer, 0, 2},
		     {full, 1, 4},
		     {(parallel.parallel = 1, parallel), 0, 3},
		     {parallel, 1, 3}};
	static const uint32_t start[] = {0, 7, 20};
	const struct vq_batch b = {2, start};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vq_linear own[2][EXPERTS * VQ_EXPERT_LINEARS];
		struct vq_layer l, to;
		struct vq_fold f = {{NULL}, {NULL}};
		size_t n = (size_t)20 * cases[i].c.hidden, k;
		float *h = random_floats(n, 30, 0, 2), *g = random_floats(n, 30, 0, 2);
		double worst = 0, largest = 0;

		random_layer(&l, &cases[i].c, cases[i].sparse ? own[0] : NULL);
		random_layer(&to, &cases[i].c, cases[i].sparse ? own[1] : NULL);
		assert_int_equal(random_scales(&f, &l, i != 2), cases[i].n_scaled);
		fold_layer(&f, &l, &to);
		assert_int_equal(vq_layer_forward(&l, h, &b, NULL, NULL), VQ_OK);
		assert_int_equal(vq_layer_forward(&to, g, &b, NULL, NULL), VQ_OK);
		for (k = 0; k < n; k++)
			worst = fmax(worst, fabs((double)h[k] - (double)g[k]));
		for (k = 0; k < n; k++)
			largest = fmax(largest, fabs((double)h[k]));
		print_message("# figure: folding changes a layer's output by %.2g of %.3g\n", worst,
			      largest);
		assert_true(worst < 1e-5 * largest && largest > 1);
		vq_fold_free(&f);
		free_layer(&l);
		free_layer(&to);
		vq_free(h);
		vq_free(g);
	}
}

/* --- the search, by its definition --- */

struct reference {
	struct vq_held_list in;
	struct vq_model m;
	uint32_t start[32], n_seqs;
	struct vq_batch b;
	float *h; /* what enters the first layer of the decoder, all samples */
	uint32_t n_rows;
};

static void reference_new(struct reference *r, const char *from, const struct vq_config *c)
{
	uint32_t d = c->decoder.layer.hidden, i;
	char name[64];
	float *image;

	memset(r, 0, sizeof(*r));
	load_stream(from, &r->in);
	assert_int_equal(vq_model_new(&r->m, c, NULL), VQ_OK);
	for (i = 0; i < r->in.n; i++) {
		const struct vq_held *h = &r->in.items[i];
		struct vq_tensor t = {h->rec.dtype, h->rec.n_dims, {0}, h->data};

		memcpy(t.dims, h->rec.dims, sizeof(t.dims));
		if (h->rec.kind == VQ_KIND_TENSOR)
			assert_int_equal(vq_model_bind(&r->m, h->rec.name, &t, NULL), VQ_OK);
	}
	r->h = vq_alloc_f32((size_t)32 * 16 * d, NULL);
	image = vq_alloc_f32((size_t)c->n_image_tokens * d, NULL);
	for (;; r->n_seqs++) {
		const struct vq_held *tokens, *pixels;
		uint32_t n;

		snprintf(name, sizeof(name), "input/%u/tokens", r->n_seqs);
		tokens = vq_held_find(&r->in, name);
		if (!tokens)
			break;
		snprintf(name, sizeof(name), "input/%u/pixels", r->n_seqs);
		pixels = vq_held_find(&r->in, name);
		n = (uint32_t)tokens->rec.dims[0];
		if (pixels)
			assert_int_equal(vq_vision_encode(&r->m, pixels->data, 1, image, NULL),
					 VQ_OK);
		assert_int_equal(vq_decoder_embed(&r->m, tokens->data, n, image,
						  pixels ? c->n_image_tokens : 0,
						  r->h + (size_t)r->n_rows * d, NULL),
				 VQ_OK);
		r->n_rows += n;
		r->start[r->n_seqs + 1] = r->n_rows;
	}
	r->b = (struct vq_batch){r->n_seqs, r->start};
	vq_free(image);
}

static void reference_free(struct reference *r)
{
	vq_model_free(&r->m);
	vq_held_clear(&r->in);
	vq_free(r->h);
}

/* What module `slot` of layer l puts out, its input computed by the layer before: y [n_rows, hidden], and its input x
 * (given) when x is not NULL. */
static void module(const struct reference *r, const struct vq_layer *before,
		   const struct vq_layer *l, int slot, float *y, float **x)
{
	size_t n = (size_t)r->n_rows * l->cfg->hidden;
	float *h = vq_alloc_f32(n, NULL);
	struct vq_layer_run s;
	int i;

	memcpy(h, r->h, n * sizeof(float));
	assert_int_equal(vq_layer_begin(&s, before, h, &r->b, NULL, NULL), VQ_OK);
	for (i = 0; i < slot; i++)
		assert_int_equal(vq_layer_next(&s, NULL), VQ_OK);
	if (x) {
		*x = vq_alloc_f32((size_t)r->n_rows * s.x_width, NULL);
		memcpy(*x, s.x, (size_t)r->n_rows * s.x_width * sizeof(float));
	}
	s.layer = l;
	if (l->n_experts && slot == VQ_SLOT_UP) {
		if (x)
			memcpy(*x, s.wide, n * sizeof(float));
		memset(h, 0, n * sizeof(float));
		while (s.slot < VQ_N_SLOTS)
			assert_int_equal(vq_layer_next(&s, NULL), VQ_OK);
		memcpy(y, h, n * sizeof(float));
		goto out;
	}
	if (slot == VQ_SLOT_QKV || slot == VQ_SLOT_UP)
		assert_int_equal(vq_layer_next(&s, NULL), VQ_OK);
	assert_int_equal(vq_linear_one(&l->lin[slot < VQ_SLOT_UP ? VQ_LIN_O : VQ_LIN_DOWN], s.x,
				       r->n_rows, y, NULL),
			 VQ_OK);
out:
	vq_layer_end(&s);
	vq_free(h);
}

/* W <- Q(W diag(s)) diag(s)^-1, as the authors write it; given. */
static float *rounded(const struct vq_linear *l, const struct vq_wgrid *g, const double *s)
{
	size_t n = (size_t)l->n_out * l->n_in, i;
	float *w = vq_alloc_f32(n, NULL);
	struct vq_codes c;

	vq_f16_to_f32_n(w, l->w, n);
	for (i = 0; i < n; i++)
		w[i] *= (float)s[i % l->n_in];
	assert_int_equal(vq_codes_alloc(&c, g, l->n_out, l->n_in, NULL), VQ_OK);
	vq_grid_fit(&c, w, 1);
	vq_grid_dequant(&c, w);
	for (i = 0; i < n; i++)
		w[i] /= (float)s[i % l->n_in];
	vq_codes_free(&c);
	return w;
}

/* The losses of all ratios; scale [n_in] becomes that of ratio `chosen`. */
static void losses_of(const struct reference *r, const struct vq_layer *l, int slot,
		      const struct vq_wgrid *g, double *loss, uint32_t chosen, double *scale)
{
	size_t n_y = (size_t)r->n_rows * l->cfg->hidden, i;
	float *target = vq_alloc_f32(n_y, NULL), *y = vq_alloc_f32(n_y, NULL), *x;
	const struct vq_linear *lin[3];
	enum vq_lin which[3];
	uint32_t n_lin = vq_layer_place_linears(l, (struct vq_layer_place){(enum vq_slot)slot, 0},
						lin, which),
		 n_parts = l->n_experts ? l->n_experts : 1, k, t, ratio;
	uint32_t n = lin[0]->n_in;
	struct vq_linear own[64];
	double *s = vq_alloc(n, sizeof(*s), NULL);

	module(r, l, l, slot, target, &x);
	for (ratio = 0; ratio < 20; ratio++) {
		double min = 1e30, max = 0;
		struct vq_layer c = *l;

		if (l->n_experts)
			memcpy(own, l->experts, (size_t)n_parts * VQ_EXPERT_LINEARS * sizeof(*own));
		c.experts = own;
		for (k = 0; k < n; k++) {
			double mean = 0;

			for (t = 0; t < r->n_rows; t++)
				mean += fabs((double)x[(size_t)t * n + k]) / r->n_rows;
			s[k] = fmax(pow(mean, ratio / 20.), 1e-4);
			min = fmin(min, s[k]);
			max = fmax(max, s[k]);
		}
		for (k = 0; k < n; k++)
			s[k] /= sqrt(min * max);
		if (ratio == chosen)
			memcpy(scale, s, n * sizeof(*s));
		for (k = 0; k < n_lin * n_parts; k++) {
			struct vq_linear *m = vq_layer_linear(&c, which[k % n_lin], k / n_lin);

			m->w = rounded(m, g, s);
			m->dtype = VQ_F32;
		}
		module(r, l, &c, slot, y, NULL);
		loss[ratio] = 0;
		for (i = 0; i < n_y; i++)
			loss[ratio] += pow((double)y[i] - (double)target[i], 2) / (double)n_y;
		for (k = 0; k < n_lin * n_parts; k++)
			vq_free((void *)(uintptr_t)vq_layer_linear(&c, which[k % n_lin], k / n_lin)
					->w);
	}
	vq_free(target);
	vq_free(y);
	vq_free(x);
	vq_free(s);
}

static const float *vector(const struct vq_held_list *l, const char *name, enum vq_dtype type)
{
	const struct vq_held *h = vq_held_find(l, name);

	assert_non_null(h);
	assert_int_equal(h->rec.dtype, type);
	return h->data;
}

/* out = in / s, by name below the first layer of the decoder. */
static void check_vector(const struct vq_held_list *in, const struct vq_held_list *out,
			 const char *rest, const double *s, uint32_t n)
{
	const uint16_t *was;
	const float *is;
	char name[64];
	uint32_t i;

	snprintf(name, sizeof(name), "decoder.layers.0.%s", rest);
	was = (const uint16_t *)vector(in, name, VQ_F16);
	is = vector(out, name, VQ_F32);
	for (i = 0; i < n; i++)
		assert_true(fabs((double)is[i] - (double)vq_f16_to_f32(was[i]) / s[i]) <
			    1e-4 * fabs((double)is[i]) + 1e-9);
}

/* The codes of a linear stand for W diag(in) / out: their distance is that of rounding with clips, not of scales. */
static void check_weight(const struct vq_held_list *in, const struct vq_held_list *out,
			 const char *rest, const double *col, const double *row)
{
	struct vq_searched q;
	double e = 0, all = 0;
	char name[64];
	const struct vq_held *h;
	size_t n, i;
	float *w, *back;

	snprintf(name, sizeof(name), "decoder.layers.0.%s.weight", rest);
	h = vq_held_find(in, name);
	assert_int_equal(vq_held_searched(out, name, &q, NULL), VQ_OK);
	n = (size_t)q.codes.n_out * q.codes.n_in;
	w = vq_alloc_f32(n, NULL);
	back = vq_alloc_f32(n, NULL);
	vq_f16_to_f32_n(w, h->data, n);
	vq_grid_dequant(&q.codes, back);
	for (i = 0; i < n; i++) {
		double want =
			(double)w[i] * col[i % q.codes.n_in] / (row ? row[i / q.codes.n_in] : 1);

		e += pow((double)back[i] - want, 2);
		all += want * want;
	}
	/* To the digits of what the record says of itself. */
	assert_true(
		fabs(e / all - json_number_value(json_object_get(vq_held_find(out, name)->rec.attrs,
								 "error"))) < 1e-3 * e / all);
	assert_true(e / all < .1);
	vq_free(w);
	vq_free(back);
}

static void scales_are_those_of_the_definition_and_are_folded(void **state)
{
	struct toy t = full_toy();
	struct vq_search_opts o = defaults();
	struct vq_held_list out = {0};
	struct reference r;
	double loss[20], *s[VQ_N_SLOTS];
	const struct vq_layer *l;
	uint32_t slot, ratio, i, d = t.cfg.decoder.layer.hidden;
	json_t *stat;

	(void)state;
	toy_write(in_folder("in"), &t);
	assert_int_equal(search_files(&o, "in", "out", NULL), VQ_OK);
	load_stream("out", &out);
	stat = block_stat(&out, "search/block/3-4");
	reference_new(&r, "in", &t.cfg);
	l = vq_model_layer(&r.m, 3);
	for (slot = 0; slot < VQ_N_SLOTS; slot++) {
		double best = 1e30;

		s[slot] = vq_alloc(t.cfg.decoder.layer.inter, sizeof(double), NULL);
		ratio = (uint32_t)lround(20 * entry(stat, "ratio", slot));
		losses_of(&r, l, (int)slot, &o.w, loss, ratio, s[slot]);
		for (i = 0; i < 20; i++)
			best = fmin(best, loss[i]);
		print_message("# figure: slot %u: ratio %g, loss %.5g (ratio 0: %.5g), by the "
			      "definition %.5g (%.5g)\n",
			      slot, entry(stat, "ratio", slot), entry(stat, "loss", slot),
			      entry(stat, "loss_0", slot), best, loss[0]);
		assert_true(fabs(entry(stat, "loss_0", slot) - loss[0]) < 1e-3 * loss[0]);
		assert_true(fabs(entry(stat, "loss", slot) - loss[ratio]) < 1e-3 * loss[ratio]);
		assert_true(loss[ratio] <= best * 1.001 && best < loss[0]);
	}
	check_vector(&r.in, &out, "norm1.weight", s[VQ_SLOT_QKV], d);
	check_vector(&r.in, &out, "norm2.weight", s[VQ_SLOT_UP], d);
	check_vector(&r.in, &out, "v_proj.bias", s[VQ_SLOT_O], d);
	check_vector(&r.in, &out, "up_proj.bias", s[VQ_SLOT_DOWN], t.cfg.decoder.layer.inter);
	check_weight(&r.in, &out, "q_proj", s[VQ_SLOT_QKV], NULL);
	check_weight(&r.in, &out, "v_proj", s[VQ_SLOT_QKV], s[VQ_SLOT_O]);
	check_weight(&r.in, &out, "o_proj", s[VQ_SLOT_O], NULL);
	check_weight(&r.in, &out, "gate_proj", s[VQ_SLOT_UP], NULL);
	check_weight(&r.in, &out, "up_proj", s[VQ_SLOT_UP], s[VQ_SLOT_DOWN]);
	check_weight(&r.in, &out, "down_proj", s[VQ_SLOT_DOWN], NULL);
	for (slot = 0; slot < VQ_N_SLOTS; slot++)
		vq_free(s[slot]);
	json_decref(stat);
	vq_held_clear(&out);
	reference_free(&r);
}

static void experts_share_scales_which_the_router_takes_too(void **state)
{
	struct toy t = full_toy();
	struct vq_search_opts o = defaults();
	struct vq_held_list out = {0};
	const struct vq_held *router;
	const struct vq_layer *l;
	struct reference r;
	double loss[20], *s, best = 1e30;
	uint32_t d = t.cfg.decoder.layer.hidden, e, i;
	json_t *stat;

	(void)state;
	t.cfg.decoder.layer.mlp_bias = 0;
	t.cfg.decoder.moe =
		(struct vq_moe_config){.top_k = 2, .capacity_factor = 2, .n_experts = {EXPERTS}};
	toy_write(in_folder("in"), &t);
	assert_int_equal(search_files(&o, "in", "out", NULL), VQ_OK);
	load_stream("out", &out);
	stat = block_stat(&out, "search/block/3-4");
	reference_new(&r, "in", &t.cfg);
	l = vq_model_layer(&r.m, 3);
	assert_int_equal(l->n_experts, EXPERTS);
	s = vq_alloc(d, sizeof(*s), NULL);
	losses_of(&r, l, VQ_SLOT_UP, &o.w, loss,
		  (uint32_t)lround(20 * entry(stat, "ratio", VQ_SLOT_UP)), s);
	for (i = 0; i < 20; i++)
		best = fmin(best, loss[i]);
	print_message(
		"# figure: experts: ratio %g, loss %.5g (ratio 0: %.5g), by the definition %.5g "
		"(%.5g)\n",
		entry(stat, "ratio", VQ_SLOT_UP), entry(stat, "loss", VQ_SLOT_UP),
		entry(stat, "loss_0", VQ_SLOT_UP), best, loss[0]);
	assert_true(fabs(entry(stat, "loss_0", VQ_SLOT_UP) - loss[0]) < 1e-3 * loss[0]);
	assert_true(fabs(entry(stat, "loss", VQ_SLOT_UP) - best) < 1e-3 * best && best < loss[0]);
	/* The others' places have no scales of their own at up. */
	for (e = 1; e < EXPERTS; e++)
		assert_true(json_is_null(
			json_array_get(json_object_get(stat, "ratio"), VQ_SLOT_UP + e)));
	check_vector(&r.in, &out, "norm2.weight", s, d);
	for (e = 0; e < EXPERTS; e++) {
		char name[64];

		snprintf(name, sizeof(name), "experts.%u.gate_proj", e);
		check_weight(&r.in, &out, name, s, NULL);
	}
	router = vq_held_find(&out, "decoder.layers.0.router.weight");
	assert_int_equal(router->rec.dtype, VQ_F32);
	assert_int_equal(router->rec.n_dims, 2);
	for (i = 0; i < EXPERTS * d; i++)
		assert_true(fabs((double)((const float *)router->data)[i] -
				 (double)l->router[i] * s[i % d]) <=
			    1e-6 * fabs((double)l->router[i] * s[i % d]));
	vq_free(s);
	json_decref(stat);
	vq_held_clear(&out);
	reference_free(&r);
}

/* The quantized stream of the search runs with the divided norms, and routers for them: at 8 bits nothing much is lost. */
static void eight_bits_leave_every_block_as_it_was(void **state)
{
	static const char *const names[] = {"search/block/0-1", "search/block/2-2",
					    "search/block/3-4", "search/block/5-5"};
	struct toy t[2] = {full_toy(), full_toy()};
	struct vq_search_opts o = defaults();
	size_t i, k;

	(void)state;
	t[1].cfg.decoder.layer.mlp_bias = 0;
	t[1].cfg.decoder.layer.parallel = 1;
	t[1].cfg.decoder.moe = (struct vq_moe_config){
		.top_k = 1, .capacity_factor = 2, .n_experts = {EXPERTS, EXPERTS, EXPERTS}};
	o.w.bits = 8;
	for (k = 0; k < 2; k++) {
		struct vq_held_list out = {0}, other = {0};

		toy_write(in_folder("in"), &t[k]);
		o.method = VQ_METHOD_AWQ;
		assert_int_equal(search_files(&o, "in", "out", NULL), VQ_OK);
		load_stream("out", &out);
		o.method = VQ_METHOD_LAYERWISE;
		assert_int_equal(search_files(&o, "in", "other", NULL), VQ_OK);
		load_stream("other", &other);
		for (i = 0; i < 4; i++) {
			json_t *j = block_stat(&out, names[i]), *was = block_stat(&other, names[i]);
			double e = json_number_value(json_object_get(j, "error"));
			double rtn = json_number_value(json_object_get(was, "error_plain"));

			print_message("# figure: %s at 8 bits%s: error %.3g, rounding to nearest "
				      "%.3g\n",
				      names[i], k ? ", parallel, experts" : "", e, rtn);
			assert_true(e > 0 && e < 2 * rtn);
			json_decref(j);
			json_decref(was);
		}
		vq_held_clear(&out);
		vq_held_clear(&other);
	}
}

/* --- which tensors change --- */

static int changed(const struct vq_held_list *a, const struct vq_held_list *b, const char *name)
{
	const struct vq_held *x = vq_held_find(a, name), *y = vq_held_find(b, name);

	assert_true(x && y);
	return x->rec.dtype != y->rec.dtype || x->rec.hash != y->rec.hash;
}

static void only_norms_and_biases_of_quantized_parts_change(void **state)
{
	static const struct {
		const char *name;
		unsigned part; /* with which it changes; 0: never */
	} cases[] = {{"vision.layers.0.norm1.weight", VQ_PART_VISION},
		     {"vision.layers.0.norm1.bias", VQ_PART_VISION},
		     {"vision.layers.1.norm2.weight", VQ_PART_VISION},
		     {"vision.layers.1.norm2.bias", VQ_PART_VISION},
		     {"vision.layers.0.v_proj.bias", 0}, /* o has no scales there */
		     {"vision.layers.0.up_proj.bias", 0},
		     {"vision.layers.0.o_proj.bias", 0},
		     {"projector.0.bias", 0},
		     {"decoder.layers.2.norm1.weight", VQ_PART_LLM},
		     {"decoder.layers.2.norm2.weight", VQ_PART_LLM},
		     {"decoder.layers.2.v_proj.bias", VQ_PART_LLM},
		     {"decoder.layers.2.up_proj.bias", VQ_PART_LLM},
		     {"decoder.layers.2.q_proj.bias", 0},
		     {"decoder.norm.weight", 0},
		     {"decoder.embed.weight", 0}};
	static const unsigned parts[] = {VQ_PART_ALL, VQ_PART_LLM, VQ_PART_VISION,
					 VQ_PART_PROJECTOR};
	struct toy t = full_toy();
	struct vq_held_list in = {0};
	size_t k, i;

	(void)state;
	toy_write(in_folder("in"), &t);
	load_stream("in", &in);
	for (k = 0; k < 5; k++) {
		struct vq_search_opts o = defaults();
		struct vq_held_list out = {0};

		o.parts = parts[k % 4];
		if (k == 4) {
			o.w.bits = 16;
			o.a.bits = 8;
		}
		assert_int_equal(search_files(&o, "in", "out", NULL), VQ_OK);
		load_stream("out", &out);
		for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
			assert_int_equal(changed(&in, &out, cases[i].name),
					 k < 4 && (cases[i].part & o.parts) != 0);
		vq_held_clear(&out);
	}
	vq_held_clear(&in);
	/* Queries that share keys: v and its bias are left to their own scales. */
	t.cfg.decoder.layer.n_kv_heads = 1;
	toy_write(in_folder("in"), &t);
	load_stream("in", &in);
	{
		struct vq_search_opts o = defaults();
		struct vq_held_list out = {0};
		json_t *stat;

		assert_int_equal(search_files(&o, "in", "out", NULL), VQ_OK);
		load_stream("out", &out);
		assert_int_equal(changed(&in, &out, "decoder.layers.2.v_proj.bias"), 0);
		assert_int_equal(changed(&in, &out, "decoder.layers.2.up_proj.bias"), 1);
		stat = block_stat(&out, "search/block/5-5");
		assert_true(
			json_is_null(json_array_get(json_object_get(stat, "ratio"), VQ_SLOT_O)));
		json_decref(stat);
		vq_held_clear(&out);
	}
	vq_held_clear(&in);
}

/* How many records of weights and statistics differ between "out" and "other". */
static size_t differences(void)
{
	struct vq_held_list a = {0}, b = {0};
	size_t i, n = 0;

	load_stream("out", &a);
	load_stream("other", &b);
	assert_int_equal(a.n, b.n);
	for (i = 0; i < a.n; i++)
		n += a.items[i].rec.hash != b.items[i].rec.hash;
	vq_held_clear(&a);
	vq_held_clear(&b);
	return n;
}

static void losses_with_quantized_inputs_differ_where_inputs_are_quantized(void **state)
{
	struct toy t = full_toy();
	struct vq_search_opts o = defaults();
	int bits;

	(void)state;
	toy_write(in_folder("in"), &t);
	for (bits = 16; bits > 0; bits -= 12) {
		o.a.bits = (uint32_t)bits;
		o.awq_joint = 0;
		assert_int_equal(search_files(&o, "in", "out", NULL), VQ_OK);
		o.awq_joint = 1;
		assert_int_equal(search_files(&o, "in", "other", NULL), VQ_OK);
		assert_int_equal(differences() > 0, bits < 16);
	}
	o.awq_duo = 1;
	assert_int_equal(search_files(&o, "in", "out", NULL), VQ_OK);
	assert_true(differences() > 0);
}

static void token_weights_weigh_the_losses(void **state)
{
	struct toy t = full_toy();
	struct vq_search_opts o = defaults();

	(void)state;
	toy_write(in_folder("in"), &t);
	assert_int_equal(search_files(&o, "in", "out", NULL), VQ_OK);
	o.token_weights = VQ_TOKENS_VISION;
	o.vision_weight = 1;
	assert_int_equal(search_files(&o, "in", "other", NULL), VQ_OK);
	assert_int_equal(differences(), 0);
	o.vision_weight = .01;
	assert_int_equal(search_files(&o, "in", "other", NULL), VQ_OK);
	assert_true(differences() > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(folding_leaves_what_a_layer_computes),
		cmocka_unit_test(scales_are_those_of_the_definition_and_are_folded),
		cmocka_unit_test(experts_share_scales_which_the_router_takes_too),
		cmocka_unit_test(eight_bits_leave_every_block_as_it_was),
		cmocka_unit_test(only_norms_and_biases_of_quantized_parts_change),
		cmocka_unit_test(losses_with_quantized_inputs_differ_where_inputs_are_quantized),
		cmocka_unit_test(token_weights_weigh_the_losses),
	};

	return cmocka_run_group_tests(tests, quiet_folder_setup, folder_teardown);
}
