/* task/calib_probe: what calibration measures by adjoints, against central differences on a small random model. */
#include "toy_stream.h"

#include "kernel/ops.h"
#include "model/model.h"
#include "model/prompt.h"
#include "quant/dependency.h"
#include "quant/sketch.h"
#include "stream/reader.h"
#include "task/calib_probe.h"
#include "task/search_held.h"

#define TOKENS 11
#define SEED   3
#define BITS   4

static char path[] = "/tmp/vqlm-probe-XXXXXX";

/* One sample: text, a picture, text. */
static struct {
	struct vq_config cfg;
	struct vq_model model;
	struct vq_held_list stream; /* the model's tensors, and the sample's pixels */
	int32_t tokens[TOKENS];
	struct vq_prompt prompt;
	struct vq_calib_run run;
	uint32_t d, n_layers, rows, width, unit;
	float *features; /* [rows, width] */
	float *levels;   /* [n_layers, 2, d] */
	float P[2][1 << (2 * BITS)];
	struct vq_held_list stats; /* what the probe wrote */
} toy;

static const float *stat_of(const char *name)
{
	const struct vq_held *h = vq_held_find(&toy.stats, name);

	assert_non_null(h);
	return h->data;
}

static void read_all(struct vq_held_list *out)
{
	struct vq_err err = {0};
	struct vq_record rec;
	struct vq_reader *r;
	int fd = open(path, O_RDONLY), rc;

	assert_int_equal(vq_reader_open(&r, fd, path, &err), VQ_OK);
	assert_int_equal(vq_reader_segment(r, &err), 1);
	while ((rc = vq_reader_next(r, &rec, &err)) == 1)
		assert_int_equal(vq_held_load(out, r, &rec, &err), VQ_OK);
	assert_int_equal(rc, 0);
	vq_reader_close(r);
	close(fd);
}

static void make_model(void)
{
	struct toy t = {.cfg = toy_config(), .n_samples = 1, .seed = 2};
	struct vq_err err = {0};
	size_t i;

	toy.cfg = t.cfg;
	toy_write(path, &t);
	read_all(&toy.stream);
	assert_int_equal(vq_model_new(&toy.model, &toy.cfg, &err), VQ_OK);
	for (i = 0; i < toy.stream.n; i++) {
		const struct vq_held *h = &toy.stream.items[i];
		struct vq_tensor v = {h->rec.dtype, h->rec.n_dims, {0}, h->data};

		memcpy(v.dims, h->rec.dims, sizeof(v.dims));
		if (h->rec.kind == VQ_KIND_TENSOR)
			assert_int_equal(vq_model_bind(&toy.model, h->rec.name, &v, &err), VQ_OK);
		if (strcmp(h->rec.name, "input/0/pixels") == 0)
			toy.prompt.pixels = h->data;
	}
	toy.d = toy.cfg.decoder.layer.hidden;
	toy.n_layers = toy.cfg.decoder.n_layers;
	toy.rows = toy.cfg.n_image_tokens;
	toy.width = toy.cfg.vision.layer.hidden;
	toy.unit = vq_config_decoder_unit(&toy.cfg);
	for (i = 0; i < TOKENS; i++)
		toy.tokens[i] =
			i >= 3 && i < 3 + toy.rows ? toy.cfg.image_token : (int32_t)(5 + 3 * i);
	toy.prompt.tokens = toy.tokens;
	toy.prompt.n_tokens = TOKENS;
	toy.prompt.n_images = 1;
	assert_non_null(toy.prompt.pixels);
}

static void embed(const float *features, float *h)
{
	float *image = vq_alloc_f32((size_t)toy.rows * toy.d, NULL);

	assert_int_equal(
		vq_projector_apply(&toy.cfg, &toy.model.projector, features, toy.rows, image, NULL),
		VQ_OK);
	assert_int_equal(vq_decoder_embed(&toy.model, toy.tokens, TOKENS, image, toy.rows, h, NULL),
			 VQ_OK);
	vq_free(image);
}

static void forward(uint32_t l, float *h)
{
	static const uint32_t start[2] = {0, TOKENS};
	const struct vq_batch b = {1, start};

	assert_int_equal(vq_layer_forward(&toy.model.decoder.layers[l], h, &b, NULL, NULL), VQ_OK);
}

/* Hidden states of the tower kept for the probe; the features. */
static void run_tower(struct vq_calib_probe *p)
{
	uint32_t n_pos = vq_vision_positions(&toy.cfg), l;
	const uint32_t start[2] = {0, n_pos};
	const struct vq_batch b = {1, start};
	float *h = vq_alloc_f32((size_t)n_pos * toy.width, NULL);

	assert_int_equal(vq_vision_embed(&toy.model, toy.prompt.pixels, 1, h, NULL), VQ_OK);
	for (l = 0; l <= toy.cfg.vision.n_layers; l++) {
		assert_int_equal(vq_calib_probe_keep(p, 1, l, 0, h, n_pos, NULL), VQ_OK);
		if (l < toy.cfg.vision.n_layers)
			assert_int_equal(
				vq_layer_forward(&toy.model.vision.layers[l], h, &b, NULL, NULL),
				VQ_OK);
	}
	toy.features = vq_alloc_f32((size_t)toy.rows * toy.width, NULL);
	vq_vision_features(&toy.model, h, 1, toy.features);
	vq_free(h);
}

/* A tenth more than the range that the outputs have, so that none is at an edge. */
static void widen(const float *h, float *range)
{
	uint32_t c, t;

	for (c = 0; c < toy.d; c++) {
		float low = h[c], high = h[c], more;

		for (t = 1; t < TOKENS; t++) {
			low = fminf(low, h[t * toy.d + c]);
			high = fmaxf(high, h[t * toy.d + c]);
		}
		more = (high - low) / 10;
		range[c] = low - more;
		range[toy.d + c] = high + more;
	}
}

static void run_decoder(struct vq_calib_probe *p)
{
	float *h = vq_alloc_f32((size_t)TOKENS * toy.d, NULL);
	uint32_t l;

	toy.levels = vq_alloc_f32((size_t)toy.n_layers * 2 * toy.d, NULL);
	embed(toy.features, h);
	for (l = 0; l <= toy.n_layers; l++) {
		assert_int_equal(vq_calib_probe_keep(p, 0, l, 0, h, TOKENS, NULL), VQ_OK);
		if (l == toy.n_layers)
			break;
		forward(l, h);
		widen(h, toy.levels + (size_t)l * 2 * toy.d);
		vq_calib_probe_levels(p, l, toy.levels + (size_t)l * 2 * toy.d,
				      toy.levels + ((size_t)l * 2 + 1) * toy.d);
	}
	vq_free(h);
}

/* Sums of soft levels of every pair of decoder layers, from features on; returns L_ent with the given influences. */
static double entropy_loss(const float *features, const float *influence,
			   float P[2][1 << (2 * BITS)])
{
	enum { N = 1 << (2 * BITS) };
	float *h = vq_alloc_f32((size_t)TOKENS * toy.d, NULL),
	      *last = vq_alloc_f32((size_t)TOKENS * toy.d, NULL);
	double sums[N], loss = 0;
	uint32_t l, i;

	embed(features, h);
	for (l = 0; l < toy.n_layers; l++) {
		const float *range = toy.levels + (size_t)l * 2 * toy.d;
		struct vq_levels k = {last, range - 2 * toy.d, range - toy.d},
				 k1 = {h, range, range + toy.d};

		memcpy(last, h, (size_t)TOKENS * toy.d * sizeof(float));
		forward(l, h);
		if (l == 0)
			continue;
		memset(sums, 0, sizeof(sums));
		assert_int_equal(vq_joint_add(sums, &k, &k1, TOKENS, toy.d, BITS, 0, NULL), VQ_OK);
		loss += influence ? (double)influence[toy.unit + l - 1] *
					    vq_joint_dependency(sums, 1 << BITS)
				  : 0;
		for (i = 0; P && i < N; i++)
			P[l - 1][i] = (float)(sums[i] / (TOKENS * toy.d));
	}
	vq_free(h);
	vq_free(last);
	return loss;
}

static void write_stats(struct vq_calib_probe *p, const struct vq_calib_joint *j)
{
	json_t *model = json_pack("{s:s,s:s}", "name", "toy", "sha256", "0"), *header;
	int fd = open(path, O_WRONLY | O_TRUNC);
	struct vq_err err = {0};
	struct vq_writer *w;

	header = vq_header_new("toy", model, &err);
	assert_true(header && fd >= 0);
	assert_int_equal(vq_writer_open(&w, fd, path, 0, &err), VQ_OK);
	assert_int_equal(vq_writer_begin(w, header, &err), VQ_OK);
	assert_int_equal(vq_calib_probe_run(p, &toy.model, j, w, &err), VQ_OK);
	assert_int_equal(vq_writer_end(w, &err), VQ_OK);
	vq_writer_close(w);
	close(fd);
	json_decref(header);
	json_decref(model);
	read_all(&toy.stats);
}

static int set_up(void **state)
{
	struct vq_calib_joint j;
	struct vq_calib_probe p;
	uint32_t i;

	(void)state;
	close(mkstemp(path));
	make_model();
	toy.run = (struct vq_calib_run){.cfg = &toy.cfg,
					.prompts = &toy.prompt,
					.n = 1,
					.seed = SEED,
					.bits = {BITS},
					.n_bits = 1,
					.influence_samples = 1};
	assert_int_equal(vq_calib_probe_new(&p, &toy.run, NULL), VQ_OK);
	run_tower(&p);
	run_decoder(&p);
	entropy_loss(toy.features, NULL, toy.P);
	assert_int_equal(vq_calib_joint_new(&j, &toy.run, 1 + 2, NULL), VQ_OK);
	for (i = 0; i < 2; i++) /* the tower's pair comes first */
		memcpy(j.p[0][0] + (size_t)(1 + i) * (1 << (2 * BITS)), toy.P[i], sizeof(toy.P[i]));
	write_stats(&p, &j);
	vq_calib_joint_free(&j);
	vq_calib_probe_free(&p);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(path);
	vq_model_free(&toy.model);
	vq_held_clear(&toy.stream);
	vq_held_clear(&toy.stats);
	vq_free(toy.features);
	vq_free(toy.levels);
	return 0;
}

/* The final hidden state at the last token, from the output of layer l on. */
static void final_of(uint32_t l, const float *from, float *out)
{
	float *h = vq_alloc_f32((size_t)TOKENS * toy.d, NULL);

	memcpy(h, from, (size_t)TOKENS * toy.d * sizeof(float));
	while (++l < toy.n_layers)
		forward(l, h);
	vq_rmsnorm(h + (size_t)(TOKENS - 1) * toy.d, 1, toy.d, toy.model.decoder.norm,
		   toy.cfg.decoder.layer.eps, out);
	vq_free(h);
}

/* Mean |g| over pictures' rows by that over the others, g by central differences for the probe's sign vectors. */
static double gradient_ratio(uint32_t l, uint32_t n_k)
{
	size_t all = (size_t)TOKENS * toy.d, i;
	float *h = vq_alloc_f32(all, NULL), up[64], down[64], u[64];
	double sum[2] = {0, 0}, n[2] = {0, 0};
	uint32_t k, c;

	embed(toy.features, h);
	for (k = 0; k <= l; k++)
		forward(k, h);
	for (i = 0; i < all; i++) {
		int image = toy.tokens[i / toy.d] == toy.cfg.image_token;
		float keep = h[i];

		h[i] = keep + 5e-3f;
		final_of(l, h, up);
		h[i] = keep - 5e-3f;
		final_of(l, h, down);
		h[i] = keep;
		n[image]++;
		for (k = 0; k < n_k; k++) {
			double g = 0;

			vq_sketch_signs(SEED, k, toy.d, u);
			for (c = 0; c < toy.d; c++)
				g += ((double)up[c] - down[c]) * u[c] / 1e-2;
			sum[image] += fabs(g);
		}
	}
	vq_free(h);
	return sum[1] / n[1] / (sum[0] / n[0]);
}

static void vision_weights_are_those_of_gradients_by_central_differences(void **state)
{
	const float *got = stat_of("stat/vision_weight");
	double ratio[3], middle;
	uint32_t l, n_k, one;

	(void)state;
	vq_calib_probe_size(&toy.run, &one, &n_k);
	assert_true(toy.n_layers == 3 && toy.d <= 64 && n_k >= 4);
	for (l = 0; l < 3; l++)
		ratio[l] = gradient_ratio(l, n_k);
	assert_true(ratio[2] == 0); /* nothing but the last token reaches the output */
	middle = fmin(ratio[0], ratio[1]);
	print_message("# figure: gradients at pictures by those at text: layers %.4f %.4f, "
		      "weights %.4f %.4f %.4f\n",
		      ratio[0], ratio[1], (double)got[toy.unit], (double)got[toy.unit + 1],
		      (double)got[toy.unit + 2]);
	for (l = 0; l < 3; l++)
		assert_float_equal(got[toy.unit + l] / fmax(ratio[l], middle), 1, 0.01);
	for (l = 0; l < toy.unit; l++)
		assert_true(got[l] == 1);
}

static void the_entropy_sketch_is_the_slope_of_the_entropy_loss(void **state)
{
	const float *got = stat_of("stat/entropy_sketch/0"), *influence = stat_of("stat/influence");
	size_t n = (size_t)toy.rows * toy.width, i;
	float *v = vq_alloc_f32(n, NULL), *dir = vq_alloc_f32(n, NULL);
	struct vq_rng r = vq_rng_new(1, "direction");
	double size = 0, worst = 0, along = 0, t;
	uint32_t draw;

	(void)state;
	for (i = 0; i < n; i++)
		size += (double)got[i] * got[i];
	for (draw = 0; draw < 8; draw++) {
		double want, slope = 0;

		for (i = 0; i < n; i++) {
			dir[i] = draw ? (float)vq_rng_normal(r, n * draw + i)
				      : (float)(got[i] / sqrt(size / (double)n));
			slope += (double)got[i] * dir[i];
		}
		t = 2e-3;
		for (i = 0; i < n; i++)
			v[i] = toy.features[i] + (float)t * dir[i];
		want = entropy_loss(v, influence, NULL);
		for (i = 0; i < n; i++)
			v[i] = toy.features[i] - (float)t * dir[i];
		want = (want - entropy_loss(v, influence, NULL)) / (2 * t);
		if (draw == 0)
			along = slope / want - 1;
		worst = fmax(worst, fabs(slope - want) / sqrt(size));
	}
	print_message("# figure: slope of the entropy loss in the features: %+.2g off along "
		      "itself, within %.2g in random directions\n",
		      along, worst);
	assert_true(fabs(along) < 0.05 && worst < 0.1);
	vq_free(v);
	vq_free(dir);
}

/* --- a sample of several pictures --- */

enum { PICTURES = 3, MANY_TOKENS = 4 + 4 * PICTURES };

static struct {
	int32_t tokens[MANY_TOKENS];
	struct vq_prompt prompt;
	uint32_t n_pos;
	float *h[3]; /* [PICTURES, n_pos, C] before each vision layer, after the last */
} many;

static void tower_layers(uint32_t from, float *h)
{
	uint32_t start[PICTURES + 1], i;
	const struct vq_batch b = {PICTURES, start};

	for (i = 0; i <= PICTURES; i++)
		start[i] = i * many.n_pos;
	for (; from < toy.cfg.vision.n_layers; from++)
		assert_int_equal(
			vq_layer_forward(&toy.model.vision.layers[from], h, &b, NULL, NULL), VQ_OK);
}

/* From the tower's output to the decoder's input. */
static void enter_decoder(const float *out, float *h)
{
	size_t rows = (size_t)PICTURES * toy.rows;
	float *features = vq_alloc_f32(rows * toy.width, NULL),
	      *image = vq_alloc_f32(rows * toy.d, NULL);

	vq_vision_features(&toy.model, out, PICTURES, features);
	assert_int_equal(
		vq_projector_apply(&toy.cfg, &toy.model.projector, features, rows, image, NULL),
		VQ_OK);
	assert_int_equal(
		vq_decoder_embed(&toy.model, many.tokens, MANY_TOKENS, image, rows, h, NULL),
		VQ_OK);
	vq_free(features);
	vq_free(image);
}

static void decoder_layer(uint32_t l, float *h)
{
	static const uint32_t start[2] = {0, MANY_TOKENS};
	const struct vq_batch b = {1, start};

	assert_int_equal(vq_layer_forward(&toy.model.decoder.layers[l], h, &b, NULL, NULL), VQ_OK);
}

/* F from the hidden states h before a vision layer. */
static void many_final(uint32_t from, const float *h, float *out)
{
	size_t n = (size_t)PICTURES * many.n_pos * toy.width;
	float *v = vq_alloc_f32(n, NULL), *x = vq_alloc_f32((size_t)MANY_TOKENS * toy.d, NULL);
	uint32_t l;

	memcpy(v, h, n * sizeof(float));
	tower_layers(from, v);
	enter_decoder(v, x);
	for (l = 0; l < toy.n_layers; l++)
		decoder_layer(l, x);
	vq_rmsnorm(x + (size_t)(MANY_TOKENS - 1) * toy.d, 1, toy.d, toy.model.decoder.norm,
		   toy.cfg.decoder.layer.eps, out);
	vq_free(v);
	vq_free(x);
}

static void make_many(struct vq_calib_probe *p)
{
	size_t each = 3 * (size_t)toy.cfg.vision.image_size * toy.cfg.vision.image_size, i, n;
	float *pixels = vq_alloc_f32(PICTURES * each, NULL),
	      *x = vq_alloc_f32((size_t)MANY_TOKENS * toy.d, NULL);
	struct vq_rng r = vq_rng_new(5, "pixels");
	uint32_t l;

	for (i = 0; i < PICTURES * each; i++)
		pixels[i] = (float)vq_rng_normal(r, i);
	many.n_pos = vq_vision_positions(&toy.cfg);
	n = (size_t)PICTURES * many.n_pos * toy.width;
	for (l = 0; l < 3; l++) {
		many.h[l] = vq_alloc_f32(n, NULL);
		if (l == 0)
			assert_int_equal(
				vq_vision_embed(&toy.model, pixels, PICTURES, many.h[0], NULL),
				VQ_OK);
		else
			memcpy(many.h[l], many.h[0], n * sizeof(float));
	}
	tower_layers(0, many.h[2]);
	/* One layer alone: the second's input is the first's output. */
	for (i = 0; i < PICTURES; i++) {
		const uint32_t start[2] = {0, many.n_pos};
		const struct vq_batch b = {1, start};

		assert_int_equal(vq_layer_forward(&toy.model.vision.layers[0],
						  many.h[1] + i * n / PICTURES, &b, NULL, NULL),
				 VQ_OK);
	}
	for (l = 0; l < 3; l++)
		assert_int_equal(vq_calib_probe_keep(p, 1, l, 0, many.h[l],
						     (size_t)PICTURES * many.n_pos, NULL),
				 VQ_OK);
	enter_decoder(many.h[2], x);
	for (l = 0; l <= toy.n_layers; l++) {
		assert_int_equal(vq_calib_probe_keep(p, 0, l, 0, x, MANY_TOKENS, NULL), VQ_OK);
		if (l < toy.n_layers)
			decoder_layer(l, x);
	}
	vq_free(pixels);
	vq_free(x);
}

/* Influence of the vision layer whose output is h, by central differences: picture i with n_each of the n_k vectors. */
static double many_influence(uint32_t from, float *h, uint32_t n_k, uint32_t n_each)
{
	float f[64], up[64], down[64], u[64];
	double sum = 0, final_sq = 0;
	uint32_t i, row, c, k, j;

	many_final(from, h, f);
	for (j = 0; j < toy.d; j++)
		final_sq += (double)f[j] * f[j];
	for (i = 0; i < PICTURES * many.n_pos; i++) {
		float *x = h + (size_t)i * toy.width;
		double hh = 0, gg = 0;

		for (c = 0; c < toy.width; c++)
			hh += (double)x[c] * x[c];
		for (c = 0; c < toy.width; c++) {
			float keep = x[c];

			x[c] = keep + 5e-3f;
			many_final(from, h, up);
			x[c] = keep - 5e-3f;
			many_final(from, h, down);
			x[c] = keep;
			for (k = 0; k < n_each; k++) {
				double g = 0;

				row = (i / many.n_pos * n_each + k) % n_k;
				vq_sketch_signs(SEED, row, toy.d, u);
				for (j = 0; j < toy.d; j++)
					g += ((double)up[j] - down[j]) * u[j] / 1e-2;
				gg += g * g;
			}
		}
		sum += hh / toy.width * gg / n_each;
	}
	return sqrt(sum / final_sq);
}

static void pictures_of_a_sample_share_the_vectors_that_go_through_the_tower(void **state)
{
	struct vq_calib_run run = toy.run;
	struct vq_calib_probe p;
	const float *got;
	uint32_t i, n, n_k;
	double off[2];

	(void)state;
	for (i = 0; i < MANY_TOKENS; i++)
		many.tokens[i] = i >= 2 && i < MANY_TOKENS - 2 ? toy.cfg.image_token : (int32_t)i;
	many.prompt = (struct vq_prompt){many.tokens, MANY_TOKENS, NULL, PICTURES};
	run.prompts = &many.prompt;
	run.n_bits = 0;
	vq_calib_probe_size(&run, &n, &n_k);
	assert_true(n == 1 && n_k == 4);
	assert_int_equal(vq_calib_probe_new(&p, &run, NULL), VQ_OK);
	make_many(&p);
	vq_held_clear(&toy.stats);
	write_stats(&p, NULL);
	got = stat_of("stat/influence");
	for (i = 0; i < 2; i++) {
		off[i] = got[i] / many_influence(i + 1, many.h[i + 1], n_k, 2) - 1;
		assert_true(fabs(off[i]) < 1e-2);
	}
	print_message("# figure: influence of vision layers over %d pictures by central "
		      "differences: off by %.4f, %.4f\n",
		      PICTURES, off[0], off[1]);
	for (i = 0; i < 3; i++)
		vq_free(many.h[i]);
	vq_calib_probe_free(&p);
}

/* Vectors fall with the pictures of a sample, so that a sketch does not grow with its tiles. */
static void a_sketch_of_many_pictures_has_fewer_vectors(void **state)
{
	struct vq_prompt prompts[16] = {{0}};
	struct vq_calib_run run = {.prompts = prompts, .n = 16, .influence_samples = 8};
	const uint32_t images[] = {0, 1, 4, 5, 8, 13, 17, 64, 1000};
	uint32_t i, n, n_k;

	(void)state;
	for (i = 0; i < sizeof(images) / sizeof(*images); i++) {
		prompts[7].n_images = images[i];
		vq_calib_probe_size(&run, &n, &n_k);
		assert_int_equal(n, 1);
		assert_true(n_k >= 4 && n_k <= 16 && (n_k == 4 || n_k * images[i] <= 64));
		assert_true(images[i] > 4 || n_k == 16);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vision_weights_are_those_of_gradients_by_central_differences),
		cmocka_unit_test(the_entropy_sketch_is_the_slope_of_the_entropy_loss),
		cmocka_unit_test(pictures_of_a_sample_share_the_vectors_that_go_through_the_tower),
		cmocka_unit_test(a_sketch_of_many_pictures_has_fewer_vectors),
	};

	return cmocka_run_group_tests_name("calib probe", tests, set_up, tear_down);
}
