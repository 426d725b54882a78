/* task/calib: what the statistics say, on the demo model. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <omp.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "format/checkpoint.h"
#include "kernel/ops.h"
#include "model/model.h"
#include "quant/dependency.h"
#include "quant/grid.h"
#include "quant/sketch.h"
#include "stream/reader.h"
#include "task/calib.h"
#include "task/calib_joint.h"
#include "emulated.h"

#define MODEL   "pipelines/demo/mini-llava"
#define DATA    "pipelines/demo/mini-sqa/llava_train_calib_CQM-A.json"
#define SAMPLES 64
#define PROBED  4 /* a sixteenth */

/* What a calibration sent about one probed sample, and what the model makes of it. */
struct probed {
	int32_t *tokens;
	uint32_t n_tokens;
	float *pixels, *sketch, *entropy;
	uint32_t n_k;
	float *features; /* [rows, C] */
	float *final;    /* [d] */
};

static struct {
	struct vq_ckpt *ckpt;
	struct vq_config cfg;
	struct vq_model model;
	struct probed s[PROBED];
	uint32_t n;
	float *influence;
	size_t rows, n_features; /* rows times C */
	uint32_t d;
} demo;

/* A layer's output, changed; t = 0 leaves it. */
struct nudge {
	uint32_t unit;
	double t; /* relative to the rms of each row */
	uint64_t draw;
};

static void nudge_rows(const struct nudge *g, uint32_t unit, float *h, size_t rows, size_t width)
{
	struct vq_rng r = vq_rng_new(g ? g->draw : 0, "nudge");
	size_t i, c;

	if (!g || g->unit != unit)
		return;
	for (i = 0; i < rows; i++) {
		double ss = 0;

		for (c = 0; c < width; c++)
			ss += (double)h[i * width + c] * h[i * width + c];
		for (c = 0; c < width; c++)
			h[i * width + c] += (float)(g->t * sqrt(ss / (double)width) *
						    vq_rng_normal(r, i * width + c));
	}
}

static void features_of(const struct vq_layer *layers, const struct probed *p,
			const struct nudge *g, float *out)
{
	uint32_t n_pos = vq_vision_positions(&demo.cfg), width = demo.cfg.vision.layer.hidden, l;
	const uint32_t start[2] = {0, n_pos};
	const struct vq_batch b = {1, start};
	float *h = vq_alloc_f32((size_t)n_pos * width, NULL);

	assert_non_null(h);
	assert_int_equal(vq_vision_embed(&demo.model, p->pixels, 1, h, NULL), VQ_OK);
	for (l = 0; l < demo.cfg.vision.n_layers; l++) {
		assert_int_equal(vq_layer_forward(&layers[l], h, &b, NULL, NULL), VQ_OK);
		nudge_rows(g, l, h, n_pos, width);
	}
	vq_vision_features(&demo.model, h, 1, out);
	vq_free(h);
}

/* The final hidden state at the last prompt token. */
static void final_of(const struct probed *p, const float *features, const struct nudge *g,
		     float *out)
{
	uint32_t d = demo.d, l, unit = vq_config_decoder_unit(&demo.cfg);
	const uint32_t start[2] = {0, p->n_tokens};
	const struct vq_batch b = {1, start};
	float *h = vq_alloc_f32((size_t)p->n_tokens * d, NULL);
	float *image = vq_alloc_f32(demo.rows * d, NULL);

	assert_non_null(h);
	assert_non_null(image);
	assert_int_equal(vq_projector_apply(&demo.cfg, &demo.model.projector, features, demo.rows,
					    image, NULL),
			 VQ_OK);
	nudge_rows(g, unit - 1, image, demo.rows, d);
	assert_int_equal(
		vq_decoder_embed(&demo.model, p->tokens, p->n_tokens, image, demo.rows, h, NULL),
		VQ_OK);
	for (l = 0; l < demo.cfg.decoder.n_layers; l++) {
		assert_int_equal(vq_layer_forward(&demo.model.decoder.layers[l], h, &b, NULL, NULL),
				 VQ_OK);
		nudge_rows(g, unit + l, h, p->n_tokens, d);
	}
	vq_rmsnorm(h + (size_t)(p->n_tokens - 1) * d, 1, d, demo.model.decoder.norm,
		   demo.cfg.decoder.layer.eps, out);
	vq_free(h);
	vq_free(image);
}

static double square_of_difference(const float *a, const float *b, size_t n)
{
	double s = 0;
	size_t i;

	for (i = 0; i < n; i++)
		s += ((double)a[i] - (b ? b[i] : 0)) * ((double)a[i] - (b ? b[i] : 0));
	return s;
}

/* Takes the records of the probed samples out of a stream: the sketches tell which ones they are, but come after
 * the inputs, so the stream is read twice. */
static void read_stream(const char *path, int want_inputs)
{
	struct vq_reader *r;
	struct vq_record rec;
	static uint32_t ids[PROBED];
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(vq_reader_open(&r, fd, path, NULL), VQ_OK);
	assert_int_equal(vq_reader_segment(r, NULL), 1);
	while (vq_reader_next(r, &rec, NULL) == 1) {
		void **to = NULL;
		uint32_t id, i;

		if (!want_inputs && sscanf(rec.name, "stat/sketch/%u", &id) == 1) {
			assert_true(demo.n < PROBED);
			demo.s[demo.n].n_k = (uint32_t)rec.dims[0];
			ids[demo.n] = id;
			to = (void **)&demo.s[demo.n++].sketch;
		}
		if (!want_inputs && sscanf(rec.name, "stat/entropy_sketch/%u", &id) == 1)
			for (i = 0; i < demo.n; i++)
				if (ids[i] == id)
					to = (void **)&demo.s[i].entropy;
		if (!want_inputs && strcmp(rec.name, "stat/influence") == 0)
			to = (void **)&demo.influence;
		for (i = 0; want_inputs && i < demo.n; i++) {
			char tokens[64], pixels[64];

			snprintf(tokens, sizeof(tokens), "input/%u/tokens", ids[i]);
			snprintf(pixels, sizeof(pixels), "input/%u/pixels", ids[i]);
			if (strcmp(rec.name, tokens) == 0) {
				demo.s[i].n_tokens = (uint32_t)rec.dims[0];
				to = (void **)&demo.s[i].tokens;
			}
			if (strcmp(rec.name, pixels) == 0)
				to = (void **)&demo.s[i].pixels;
		}
		if (to)
			assert_int_equal(vq_reader_load(r, to, NULL), VQ_OK);
	}
	vq_reader_close(r);
	close(fd);
}

static int open_demo(void **state)
{
	char path[] = "/tmp/vqlm-calib-XXXXXX";
	struct vq_calib_opts o = {.from = {.model = MODEL},
				  .data = DATA,
				  .n = SAMPLES,
				  .bits = "4",
				  .influence_samples = 8,
				  .output = path};
	struct vq_err err = {0};
	uint32_t i;

	(void)state;
	omp_set_num_threads(1); /* so small a model gains nothing from more */
	close(mkstemp(path));
	if (vq_calib(&o, &err) < 0 || vq_ckpt_open(&demo.ckpt, MODEL, &err) < 0 ||
	    vq_config_from_ckpt(&demo.cfg, demo.ckpt, NULL, &err) < 0 ||
	    vq_model_from_ckpt(&demo.model, &demo.cfg, demo.ckpt, &err) < 0) {
		print_message("%s\n", err.text);
		return -1;
	}
	read_stream(path, 0);
	read_stream(path, 1);
	unlink(path);
	demo.rows = demo.cfg.n_image_tokens;
	demo.n_features = demo.rows * demo.cfg.vision.layer.hidden;
	demo.d = demo.cfg.decoder.layer.hidden;
	for (i = 0; i < demo.n; i++) {
		demo.s[i].features = vq_alloc_f32(demo.n_features, NULL);
		demo.s[i].final = vq_alloc_f32(demo.d, NULL);
		features_of(demo.model.vision.layers, &demo.s[i], NULL, demo.s[i].features);
		final_of(&demo.s[i], demo.s[i].features, NULL, demo.s[i].final);
	}
	return demo.n == PROBED && demo.influence ? 0 : -1;
}

static int close_demo(void **state)
{
	uint32_t i;

	(void)state;
	for (i = 0; i < demo.n; i++) {
		vq_free(demo.s[i].tokens);
		vq_free(demo.s[i].pixels);
		vq_free(demo.s[i].sketch);
		vq_free(demo.s[i].entropy);
		vq_free(demo.s[i].features);
		vq_free(demo.s[i].final);
	}
	vq_free(demo.influence);
	vq_model_free(&demo.model);
	vq_ckpt_close(demo.ckpt);
	return 0;
}

static void rank(const double *x, uint32_t n, double *r)
{
	uint32_t i, j;

	for (i = 0; i < n; i++)
		for (r[i] = j = 0; j < n; j++)
			r[i] += x[j] < x[i];
}

/* Spearman's rank correlation. */
static double spearman(const double *x, const double *y, uint32_t n)
{
	double a[64], b[64], s = 0;
	uint32_t i;

	rank(x, n, a);
	rank(y, n, b);
	for (i = 0; i < n; i++)
		s += (a[i] - b[i]) * (a[i] - b[i]);
	return 1 - 6 * s / ((double)n * ((double)n * n - 1));
}

#define CANDIDATES 24

/* The vision tower with rounded weights, and inputs quantized with random clips. */
static void make_candidate(struct vq_layer *layers, uint32_t bits, float *const *w, uint32_t seed)
{
	static const float clips[] = {1, .995f, .99f, .985f, .98f, .95f, .9f, .85f, .8f, .7f};
	struct vq_rng r = vq_rng_new(seed, "clips");
	uint32_t l, i, k = 0;

	for (l = 0; l < demo.cfg.vision.n_layers; l++) {
		float clip[VQ_N_SLOTS];

		for (i = 0; i < VQ_N_SLOTS; i++)
			clip[i] = clips[(size_t)(vq_rng_uniform(r, l * VQ_N_SLOTS + i) *
						 (sizeof(clips) / sizeof(clips[0])))];
		for (i = 0; i < VQ_N_LINEARS; i++) {
			struct vq_linear *lin = &layers[l].lin[i];

			if (!lin->n_out)
				continue;
			lin->w = w[k++];
			lin->dtype = VQ_F32;
			lin->act = (struct vq_agrid){
				.bits = bits, .group = 128, .clip = clip[vq_lin_slot(i)]};
		}
	}
}

/* All linears of the tower rounded at `bits`, in order. */
static uint32_t round_weights(uint32_t bits, float **w)
{
	const struct vq_wgrid grid = {bits, 128, 0};
	uint32_t l, i, k = 0;

	for (l = 0; l < demo.cfg.vision.n_layers; l++)
		for (i = 0; i < VQ_N_LINEARS; i++) {
			const struct vq_linear *lin = &demo.model.vision.layers[l].lin[i];
			struct vq_tensor t = {lin->dtype, 2, {lin->n_out, lin->n_in}, lin->w};
			size_t n = (size_t)lin->n_out * lin->n_in;
			struct vq_codes c;

			if (!lin->n_out)
				continue;
			w[k] = vq_alloc_f32(n, NULL);
			assert_non_null(w[k]);
			assert_int_equal(vq_tensor_to_f32(&t, 0, n, w[k], NULL), VQ_OK);
			assert_int_equal(vq_codes_alloc(&c, &grid, lin->n_out, lin->n_in, NULL),
					 VQ_OK);
			vq_grid_fit(&c, w[k], 1);
			vq_grid_dequant(&c, w[k++]);
			vq_codes_free(&c);
		}
	return k;
}

/* L_ent of one sample: the decoder's joint soft levels from its features on, weighted by influence; ranges are those
 * of its own outputs in full precision [L, 2, d], taken when there is none yet. */
static double entropy_loss(const struct probed *p, const float *features, float *range, int take)
{
	enum { BITS = 4, N = 1 << (2 * BITS) };
	uint32_t d = demo.d, l, unit = vq_config_decoder_unit(&demo.cfg), t, c;
	const uint32_t start[2] = {0, p->n_tokens};
	const struct vq_batch b = {1, start};
	size_t all = (size_t)p->n_tokens * d;
	float *h = vq_alloc_f32(all, NULL), *last = vq_alloc_f32(all, NULL);
	float *image = vq_alloc_f32(demo.rows * d, NULL);
	double sums[N], loss = 0;

	assert_int_equal(vq_projector_apply(&demo.cfg, &demo.model.projector, features, demo.rows,
					    image, NULL),
			 VQ_OK);
	assert_int_equal(
		vq_decoder_embed(&demo.model, p->tokens, p->n_tokens, image, demo.rows, h, NULL),
		VQ_OK);
	for (l = 0; l < demo.cfg.decoder.n_layers; l++) {
		float *low = range + (size_t)l * 2 * d, *high = low + d;
		struct vq_levels k = {last, low - 2 * d, low - d}, k1 = {h, low, high};

		memcpy(last, h, all * sizeof(float));
		assert_int_equal(vq_layer_forward(&demo.model.decoder.layers[l], h, &b, NULL, NULL),
				 VQ_OK);
		for (c = 0; take && c < d; c++)
			for (low[c] = high[c] = h[c], t = 1; t < p->n_tokens; t++) {
				low[c] = fminf(low[c], h[(size_t)t * d + c]);
				high[c] = fmaxf(high[c], h[(size_t)t * d + c]);
			}
		if (l == 0)
			continue;
		memset(sums, 0, sizeof(sums));
		assert_int_equal(vq_joint_add(sums, &k, &k1, p->n_tokens, d, BITS, 0, NULL), VQ_OK);
		loss += (double)demo.influence[unit + l - 1] * vq_joint_dependency(sums, 1 << BITS);
	}
	vq_free(h);
	vq_free(last);
	vq_free(image);
	return loss;
}

/* Rank correlations with the true relative change of F over random clips: of ||dV||^2, of the sketch, of both; with
 * the slope of the entropies besides; and of that slope with the true change of L_ent. */
static void correlate(uint32_t bits, uint32_t n, double out[5])
{
	double truth[CANDIDATES] = {0}, dv2[CANDIDATES] = {0}, sketch[CANDIDATES] = {0};
	double both[CANDIDATES], slope[CANDIDATES] = {0}, change[CANDIDATES] = {0};
	double three[CANDIDATES], before[PROBED], v2 = 0;
	float *range[PROBED];
	float *w[64], *v = vq_alloc_f32(demo.n_features, NULL), *f = vq_alloc_f32(demo.d, NULL);
	struct vq_layer layers[8];
	uint32_t n_w = round_weights(bits, w), c, i;
	size_t k;

	assert_true(demo.cfg.vision.n_layers <= 8 && v && f);
	for (i = 0; i < demo.n; i++) {
		v2 += square_of_difference(demo.s[i].features, NULL, demo.n_features);
		range[i] = vq_alloc_f32((size_t)demo.cfg.decoder.n_layers * 2 * demo.d, NULL);
		before[i] = entropy_loss(&demo.s[i], demo.s[i].features, range[i], 1);
	}
	for (c = 0; c < n; c++) {
		memcpy(layers, demo.model.vision.layers,
		       demo.cfg.vision.n_layers * sizeof(*layers));
		make_candidate(layers, bits, w, c);
		for (i = 0; i < demo.n; i++) {
			const struct probed *p = &demo.s[i];

			features_of(layers, p, NULL, v);
			final_of(p, v, NULL, f);
			change[c] += entropy_loss(p, v, range[i], 0) - before[i];
			truth[c] += square_of_difference(f, p->final, demo.d) /
				    square_of_difference(p->final, NULL, demo.d);
			for (k = 0; k < demo.n_features; k++)
				v[k] -= p->features[k];
			dv2[c] += square_of_difference(v, NULL, demo.n_features);
			sketch[c] += vq_sketch_energy(p->sketch, p->n_k, demo.n_features, v);
			for (k = 0; k < demo.n_features; k++)
				slope[c] += (double)p->entropy[k] * v[k];
		}
		both[c] = dv2[c] / v2 + VQ_SKETCH_ETA * sketch[c] / demo.n;
		three[c] = both[c] + slope[c] / demo.n;
	}
	out[0] = spearman(dv2, truth, n);
	out[1] = spearman(sketch, truth, n);
	out[2] = spearman(both, truth, n);
	out[3] = spearman(three, truth, n);
	out[4] = spearman(slope, change, n);
	print_message("# figure: rank correlation with the true final error, %u bits, %u random "
		      "clips: ||dV||^2 %.3f, sketch %.3f, both (eta %g) %.3f\n",
		      bits, n, out[0], out[1], VQ_SKETCH_ETA, out[2]);
	print_message("# figure: the same with the slope of entropies (lambda 1) %.3f; of that "
		      "slope with the true change of the entropies %.3f\n",
		      out[3], out[4]);
	for (i = 0; i < demo.n; i++)
		vq_free(range[i]);
	while (n_w)
		vq_free(w[--n_w]);
	vq_free(v);
	vq_free(f);
}

static void the_sketch_ranks_vision_errors_by_their_effect_on_the_final_output(void **state)
{
	double four[5], six[5];

	(void)state;
	correlate(4, emulated() ? CANDIDATES / 2 : CANDIDATES, four);
	correlate(6, CANDIDATES / 2, six);
	assert_true(four[1] > 0.6 && four[1] > four[0]);
	assert_true(six[1] > 0.8 && six[1] > six[0]);
	assert_true(four[2] > four[0] && six[2] > six[0]);
	assert_true(four[4] > 0.6 && six[4] > 0.6);
}

static void influence_is_what_small_random_changes_do(void **state)
{
	enum { DRAWS = 2 };
	static const uint32_t units[] = {1, 4, 7}; /* of the tower, projector, decoder */
	float *v = vq_alloc_f32(demo.n_features, NULL), *f = vq_alloc_f32(demo.d, NULL);
	double worst = 0;
	uint32_t n, u, i, k;

	(void)state;
	assert_int_equal(vq_config_projector_unit(&demo.cfg), 4);
	for (n = 0; n < 3; n++) {
		double sum = 0, measured, off;

		u = units[n];
		for (i = 0; i < demo.n; i++)
			for (k = 0; k < DRAWS; k++) {
				struct nudge g = {u, 2e-3, 100 * u + 10 * i + k};

				features_of(demo.model.vision.layers, &demo.s[i], &g, v);
				final_of(&demo.s[i], v, &g, f);
				sum += square_of_difference(f, demo.s[i].final, demo.d) /
				       square_of_difference(demo.s[i].final, NULL, demo.d) /
				       (g.t * g.t);
			}
		measured = sqrt(sum / (demo.n * DRAWS));
		off = fabs(log(demo.influence[u] / measured));
		worst = off > worst ? off : worst;
	}
	print_message("# figure: influence of units against forward perturbations: within a "
		      "factor of %.2f\n",
		      exp(worst));
	assert_true(exp(worst) < 1.5);
	vq_free(v);
	vq_free(f);
}

/* Two layers of random outputs; the second is a mix of the first and of noise. */
static double dependency_of(double mix, int space)
{
	const struct vq_calib_run r = {.bits = {4}, .n_bits = 1, .seed = 1};
	enum { ROWS = 200, WIDTH = 128 };
	struct vq_calib_joint j;
	struct vq_rng rng = vq_rng_new(5, "mix");
	float *h = vq_alloc_f32(ROWS * WIDTH, NULL);
	double p[256], d, sum = 0;
	int i;

	assert_int_equal(vq_calib_joint_new(&j, &r, 1, NULL), VQ_OK);
	assert_int_equal(vq_calib_joint_tower(&j, ROWS, WIDTH, NULL), VQ_OK);
	for (i = 0; i < ROWS * WIDTH; i++)
		h[i] = (float)vq_rng_normal(rng, (uint64_t)i);
	assert_int_equal(vq_calib_joint_output(&j, h, NULL), VQ_OK);
	for (i = 0; i < ROWS * WIDTH; i++)
		h[i] = (float)(mix * h[i] +
			       sqrt(1 - mix * mix) * vq_rng_normal(rng, (uint64_t)i + 1000000));
	assert_int_equal(vq_calib_joint_output(&j, h, NULL), VQ_OK);
	for (i = 0; i < 256; i++)
		sum += p[i] = j.p[space][0][i];
	assert_true(fabs(sum - 1) < 1e-5);
	d = vq_joint_dependency(p, 16);
	vq_calib_joint_free(&j);
	vq_free(h);
	return d;
}

static void dependency_falls_as_the_next_layer_follows_from_this_one(void **state)
{
	int space;

	(void)state;
	for (space = 0; space < VQ_CALIB_SPACES; space++) {
		double same = dependency_of(1, space), half = dependency_of(0.7, space),
		       none = dependency_of(0, space);

		assert_true(same < half && half < none);
		assert_true(none < 4 * M_LN2);
	}
}

static void only_a_choice_of_rows_is_looked_at(void **state)
{
	const struct vq_calib_run r = {.bits = {4}, .n_bits = 1, .seed = 1};
	struct vq_calib_joint j;
	uint32_t i;

	(void)state;
	assert_int_equal(vq_calib_joint_new(&j, &r, 1, NULL), VQ_OK);
	assert_int_equal(vq_calib_joint_tower(&j, 100000, 4096, NULL), VQ_OK);
	assert_int_equal(j.n_rows, VQ_CALIB_JOINT_ELEMENTS / 4096);
	for (i = 1; i < j.n_rows; i++)
		assert_true(j.rows[i] > j.rows[i - 1]);
	assert_true(j.rows[j.n_rows - 1] < 100000 && j.rows[j.n_rows - 1] > 50000);
	vq_calib_joint_free(&j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			the_sketch_ranks_vision_errors_by_their_effect_on_the_final_output),
		cmocka_unit_test(influence_is_what_small_random_changes_do),
		cmocka_unit_test(dependency_falls_as_the_next_layer_follows_from_this_one),
		cmocka_unit_test(only_a_choice_of_rows_is_looked_at),
	};

	return cmocka_run_group_tests_name("calib", tests, open_demo, close_demo);
}
