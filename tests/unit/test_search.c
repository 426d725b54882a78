/* Search on a small random model. */
#include "emulated.h"
#include "search_run.h"
#include "toy_stream.h"

#include <omp.h>

#include "quant/grid.h"
#include "quant/qvlm.h"
#include "quant/rtn.h"

static struct vq_search_opts defaults(void)
{
	return (struct vq_search_opts){
		.method = VQ_METHOD_QVLM,
		.w = {.bits = 4, .group = 128},
		.a = {.bits = 4, .group = 128, .clip = 1},
		.parts = VQ_PART_ALL,
		.veo = 1,
		.eta = 10,
		.last_unit = UINT32_MAX,
		.sweeps = 2,
	};
}

/* Every method, and transforms of every kind. */
enum { N_VARIANTS = 9 };

static struct vq_search_opts variant(int i)
{
	struct vq_search_opts o = defaults();

	o.method = i <= VQ_METHOD_AWQ ? (enum vq_method)i : VQ_METHOD_GPTQ;
	switch (i) {
	case 5:
		o.method = VQ_METHOD_RTN;
		o.rotate = VQ_ROTATE_HADAMARD;
		break;
	case 6:
		o.method = VQ_METHOD_QVLM;
		o.rotate = VQ_ROTATE_WUSH;
		o.smooth = VQ_SMOOTH_FIXED;
		o.smooth_exponent = .5;
		break;
	case 7: /* best */
		o.method = VQ_METHOD_BEST;
		o.rotate = VQ_ROTATE_WUSH;
		o.clip = o.act_order = 1;
		o.gptaq = .25;
		o.polish = 3;
		break;
	case 8:
		o.rotate = VQ_ROTATE_HADAMARD;
		o.smooth = VQ_SMOOTH_SEARCH;
		o.clip = o.w_clip = 1;
		break;
	default: break;
	}
	return o;
}

static void rtn_is_the_grid_applied_to_every_linear(void **state)
{
	static const uint32_t bits[] = {2, 3, 4, 5, 6, 7, 8};
	struct toy t = {.cfg = toy_config(), .seed = 1};
	size_t b, i;

	(void)state;
	toy_write(in_folder("in"), &t);
	for (b = 0; b < sizeof(bits) / sizeof(bits[0]); b++) {
		struct vq_search_opts o = defaults();
		struct vq_held_list in = {0}, out = {0};
		struct vq_err err = {0};
		size_t n_linears = 0;

		o.method = VQ_METHOD_RTN;
		o.w = (struct vq_wgrid){bits[b], 32, b % 2 == 0};
		assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
		load_stream("in", &in);
		load_stream("out", &out);
		for (i = 0; i < in.n; i++) {
			const struct vq_held *h = &in.items[i];
			const struct vq_held *q = vq_held_find(&out, h->rec.name);
			struct vq_codes c;
			struct vq_searched s;
			float *w;
			size_t n;

			assert_non_null(q);
			if (!json_is_true(json_object_get(h->rec.attrs, "linear"))) {
				assert_int_equal(h->rec.hash, q->rec.hash);
				continue;
			}
			n_linears++;
			n = (size_t)(h->rec.dims[0] * h->rec.dims[1]);
			w = vq_alloc_f32(n, NULL);
			vq_f16_to_f32_n(w, h->data, n);
			assert_int_equal(vq_codes_alloc(&c, &o.w, (uint32_t)h->rec.dims[0],
							(uint32_t)h->rec.dims[1], &err),
					 VQ_OK);
			vq_grid_fit(&c, w, 1);
			assert_int_equal(vq_held_searched(&out, h->rec.name, &s, &err), VQ_OK);
			assert_memory_equal(s.codes.codes, c.codes, n);
			assert_memory_equal(s.codes.scale, c.scale,
					    2 * c.n_out * vq_grid_n_groups(&c.grid, c.n_in));
			if (c.zero)
				assert_memory_equal(s.codes.zero, c.zero,
						    c.n_out * vq_grid_n_groups(&c.grid, c.n_in));
			else
				assert_null(s.codes.zero);
			assert_int_equal(s.codes.grid.bits, bits[b]);
			assert_int_equal(s.act.bits, 4);
			vq_codes_free(&c);
			vq_free(w);
		}
		assert_int_equal(n_linears, 2 * 6 + 2 + 3 * 7);
		vq_held_clear(&in);
		vq_held_clear(&out);
	}
}

/* Error of block A-B with a method, from the STAT record. */
static double stat_error(const char *from, uint32_t a, uint32_t b, const char *key)
{
	struct vq_held_list all = {0};
	const struct vq_held *h;
	struct vq_err err = {0};
	char name[64];
	double e;
	json_t *j;

	load_stream(from, &all);
	snprintf(name, sizeof(name), "search/block/%u-%u", a, b);
	h = vq_held_find(&all, name);
	assert_non_null(h);
	j = vq_json_parse(h->data, h->rec.raw_bytes, name, &err);
	assert_non_null(j);
	e = json_number_value(json_object_get(j, key));
	json_decref(j);
	vq_held_clear(&all);
	return e;
}

static const uint32_t toy_blocks[][2] = {{0, 1}, {2, 2}, {3, 4}, {5, 5}};

static void qvlm_is_never_worse_than_layerwise_and_rtn(void **state)
{
	struct toy t = {.cfg = toy_config(), .n_samples = 12, .blocks = toy_blocks, .n_blocks = 4};
	uint64_t seed;
	size_t i;

	(void)state;
	for (seed = 0; seed < 4; seed += stride(2)) {
		struct vq_search_opts o = defaults();
		struct vq_err err = {0};

		t.seed = seed;
		toy_write(in_folder("in"), &t);
		assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
		for (i = 0; i < 4; i++) {
			uint32_t a = toy_blocks[i][0], b = toy_blocks[i][1];
			double plain = stat_error("out", a, b, "error_plain");
			double lw = stat_error("out", a, b, "error_layerwise");
			double e = stat_error("out", a, b, "error");

			print_message("# figure: seed %d units %u-%u: plain %.4g layerwise %.4g "
				      "qvlm %.4g\n",
				      (int)seed, a, b, plain, lw, e);
			assert_true(e > 0 && e <= lw && e <= plain);
		}
	}
}

/* Whole files. */
static const struct toy usual = {.n_samples = 12, .blocks = toy_blocks, .n_blocks = 4, .seed = 5};

/* Writes the usual toy and searches it into "out" with o. */
static void search_usual(const struct vq_search_opts *o)
{
	struct toy t = usual;
	struct vq_err err = {0};

	t.cfg = toy_config();
	toy_write(in_folder("in"), &t);
	assert_int_equal(search_files(o, "in", "out", &err), VQ_OK);
}

static void the_output_does_not_depend_on_the_threads(void **state)
{
	int m, n;

	(void)state;
	for (m = 0; m < N_VARIANTS; m++) {
		struct vq_search_opts o = variant(m);
		struct vq_err err = {0};

		omp_set_num_threads(1);
		search_usual(&o);
		for (n = 2; n <= 4; n++) {
			omp_set_num_threads(n);
			assert_int_equal(search_files(&o, "in", "again", &err), VQ_OK);
			assert_same_files("out", "again");
		}
		omp_set_num_threads(1);
	}
}

/* Cut at its beginning, its end, and ten places between (in an emulator two). */
static void an_interrupted_run_is_resumed_to_the_same_bytes(void **state)
{
	int m;

	(void)state;
	for (m = 0; m < N_VARIANTS; m++) {
		struct vq_search_opts o = variant(m), again;
		struct vq_rng r = vq_rng_new((uint64_t)m, "cuts");
		size_t n;
		char *p;
		int i;

		search_usual(&o);
		p = bytes_of("out", &n);
		again = o;
		for (i = 0; i < (emulated() ? 4 : 12); i++) {
			struct vq_err err = {0};
			size_t cut =
				i < 2 ? (size_t)i * n : (size_t)(vq_rng_u64(r, (uint64_t)i) % n);

			put_file("cut", p, cut);
			again.resume = in_folder("cut");
			assert_int_equal(search_files(&again, "in", "again", &err), VQ_OK);
			assert_same_files("out", "again");
		}
		vq_free(p);
	}
}

/* The largest difference of W'(T e_i) from W e_i over the unit vectors, relative to the largest weight. */
static double product_error(const struct vq_held *h, const struct vq_searched *q)
{
	uint32_t n = q->codes.n_in, rows = q->codes.n_out, i, j, k;
	float *w = vq_alloc_f32((size_t)rows * n, NULL),
	      *back = vq_alloc_f32((size_t)rows * n, NULL);
	float *x = vq_calloc(n, sizeof(*x), NULL);
	double worst = 0, most = 0;

	vq_f16_to_f32_n(w, h->data, (size_t)rows * n);
	vq_grid_dequant(&q->codes, back);
	for (i = 0; i < n; i++) {
		memset(x, 0, n * sizeof(*x));
		x[i] = 1;
		if (q->transform.n)
			vq_transform_rows(&q->transform, x, 1, x);
		for (j = 0; j < rows; j++) {
			double y = 0;

			for (k = 0; k < n; k++)
				y += (double)x[k] * (double)back[(size_t)j * n + k];
			worst = fmax(worst, fabs(y - (double)w[(size_t)j * n + i]));
			most = fmax(most, fabs((double)w[(size_t)j * n + i]));
		}
	}
	vq_free(w);
	vq_free(back);
	vq_free(x);
	return worst / most;
}

static void transformed_weights_and_inputs_give_the_products_of_the_originals(void **state)
{
	int m;

	(void)state;
	for (m = VQ_METHOD_AWQ + 1; m < N_VARIANTS; m++) {
		struct vq_search_opts o = variant(m);
		struct vq_held_list in = {0}, out = {0};
		struct vq_err err = {0};
		size_t i, n = 0, n_transforms = 0;

		o.method = VQ_METHOD_RTN; /* weights are neither clipped nor moved */
		o.w = (struct vq_wgrid){8, 32, 0};
		search_usual(&o);
		load_stream("in", &in);
		load_stream("out", &out);
		for (i = 0; i < in.n; i++) {
			const struct vq_held *h = &in.items[i];
			struct vq_searched q;

			if (!json_is_true(json_object_get(h->rec.attrs, "linear")))
				continue;
			assert_int_equal(vq_held_searched(&out, h->rec.name, &q, &err), VQ_OK);
			assert_true(product_error(h, &q) < .05);
			n_transforms += q.transform.n != 0;
			n++;
		}
		assert_true(n > 20 && n_transforms == n);
		vq_held_clear(&in);
		vq_held_clear(&out);
	}
}

static void resuming_another_run_is_refused(void **state)
{
	struct vq_search_opts o = defaults(), other;
	struct toy t = usual;
	struct vq_err err = {0};

	(void)state;
	search_usual(&o);
	other = o;
	other.w.bits = 5;
	other.resume = in_folder("out");
	assert_int_equal(search_files(&other, "in", "again", &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "other parameters"));

	err = (struct vq_err){0};
	t.cfg = toy_config();
	t.seed = 6; /* other inputs and weights */
	toy_write(in_folder("in2"), &t);
	other = o;
	other.resume = in_folder("out");
	assert_int_equal(search_files(&other, "in2", "again", &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "input"));

	err = (struct vq_err){0};
	other.resume = in_folder("no such file");
	assert_int_equal(search_files(&other, "in", "again", &err), VQ_E_SYS);
}

static void pieces_at_checkpoints_are_what_one_run_gives(void **state)
{
	static const uint32_t points[] = {4}, blocks[][2] = {{0, 1}, {2, 2}, {3, 3}, {4, 5}};
	struct toy t = usual;
	int m;

	(void)state;
	t.cfg = toy_config();
	t.blocks = blocks;
	t.checkpoints = points;
	t.n_checkpoints = 1;
	toy_write(in_folder("in"), &t);
	for (m = 0; m <= VQ_METHOD_AWQ; m++) {
		struct vq_search_opts o = defaults();
		struct vq_held_list whole = {0}, part[2] = {{0}};
		struct vq_err err = {0};
		size_t i, n_weights = 0;

		o.method = (enum vq_method)m;
		assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
		load_stream("out", &whole);
		o.last_unit = 3;
		assert_int_equal(search_files(&o, "in", "a", &err), VQ_OK);
		load_stream("a", &part[0]);
		o.first_unit = 4;
		o.last_unit = UINT32_MAX;
		assert_int_equal(search_files(&o, "in", "b", &err), VQ_OK);
		load_stream("b", &part[1]);
		for (i = 0; i < whole.n; i++) {
			const struct vq_held *w = &whole.items[i];
			const struct vq_held *a = vq_held_find(&part[0], w->rec.name);
			const struct vq_held *b = vq_held_find(&part[1], w->rec.name);
			int head = w->rec.kind == VQ_KIND_META || w->rec.kind == VQ_KIND_PLAN;

			assert_true(head ? a && b : !a != !b);
			a = a ? a : b;
			assert_int_equal(a->rec.hash, w->rec.hash);
			assert_true(json_equal(a->rec.attrs, w->rec.attrs) ||
				    (!a->rec.attrs && !w->rec.attrs));
			n_weights += w->rec.kind == VQ_KIND_TENSOR;
		}
		assert_int_equal(part[0].n + part[1].n > whole.n, 1);
		assert_true(n_weights > 50);
		vq_held_clear(&whole);
		vq_held_clear(&part[0]);
		vq_held_clear(&part[1]);
	}
}

static void a_piece_begins_at_a_block_and_a_checkpoint(void **state)
{
	struct vq_search_opts o = defaults();
	struct vq_err err = {0};

	(void)state;
	search_usual(&o);
	o.first_unit = 4; /* within 3-4 */
	assert_int_equal(search_files(&o, "in", "again", &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "3-4"));
	err = (struct vq_err){0};
	o.first_unit = 3; /* no checkpoint */
	assert_int_equal(search_files(&o, "in", "again", &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "checkpoint"));
	err = (struct vq_err){0};
	o.first_unit = 17;
	assert_int_equal(search_files(&o, "in", "again", &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "unit 17"));
}

static void sixteen_bits_leave_weights_and_inputs_alone(void **state)
{
	static const uint32_t bits[][2] = {{16, 16}, {16, 8}, {8, 16}, {3, 5}};
	size_t k, i;
	int m;

	(void)state;
	for (m = 0; m <= VQ_METHOD_AWQ; m++)
		for (k = 0; k < 4; k++) {
			struct vq_search_opts o = defaults();
			struct vq_held_list in = {0}, out = {0};

			o.method = (enum vq_method)m;
			o.w.bits = bits[k][0];
			o.a.bits = bits[k][1];
			search_usual(&o);
			load_stream("in", &in);
			load_stream("out", &out);
			for (i = 0; i < in.n; i++) {
				const struct vq_held *h = &in.items[i];
				struct vq_searched q;
				struct vq_err err = {0};

				if (!json_is_true(json_object_get(h->rec.attrs, "linear")))
					continue;
				assert_int_equal(vq_held_searched(&out, h->rec.name, &q, &err),
						 VQ_OK);
				assert_int_equal(q.act.bits, bits[k][1]);
				assert_int_equal(q.codes.codes != NULL, bits[k][0] != 16);
				if (bits[k][0] == 16)
					assert_int_equal(vq_held_find(&out, h->rec.name)->rec.hash,
							 h->rec.hash);
				else
					assert_int_equal(q.codes.grid.bits, bits[k][0]);
			}
			vq_held_clear(&in);
			vq_held_clear(&out);
		}
}

static void only_the_parts_that_are_named_are_quantized(void **state)
{
	static const char *const words[] = {"llm", "vision", "projector", "llm,projector"};
	static const char *const probes[] = {"decoder.layers.1.up_proj.weight",
					     "vision.layers.0.o_proj.weight", "projector.1.weight"};
	size_t k, i;
	int m;

	(void)state;
	for (m = 0; m < 3; m += 2)
		for (k = 0; k < 4; k++) {
			struct vq_search_opts o = defaults();
			struct vq_held_list out = {0};
			struct vq_err err = {0};

			o.method = (enum vq_method)m;
			assert_int_equal(vq_search_parts(words[k], &o.parts, &err), VQ_OK);
			search_usual(&o);
			load_stream("out", &out);
			for (i = 0; i < 3; i++) {
				int is = vq_held_find(&out, probes[i])->rec.dtype == VQ_U8;

				assert_int_equal(is, (o.parts & vq_search_part_of(probes[i])) != 0);
			}
			vq_held_clear(&out);
		}
}

/* At each width, the search finds no more error than rounding alone. */
static void every_bit_width_is_searched(void **state)
{
	uint32_t bits;

	(void)state;
	for (bits = 2; bits <= 8; bits++) {
		struct vq_search_opts o = defaults();
		double plain, e;

		o.w.bits = o.a.bits = bits;
		o.w.group = 32;
		o.a.group = bits % 2 ? 0 : 32;
		o.a.sym = bits % 3 == 0;
		o.w.sym = bits % 3 == 1;
		search_usual(&o);
		plain = stat_error("out", 3, 4, "error_plain");
		e = stat_error("out", 3, 4, "error");
		print_message("# figure: %u bits, units 3-4: %.3g -> %.3g\n", bits, plain, e);
		assert_true(e <= plain && e > 0);
	}
}

static void bad_input_is_refused_by_name(void **state)
{
	static const struct {
		const char *skip, *spoil, *want;
		uint32_t n_samples, n_blocks;
		enum vq_method method;
	} cases[] = {
		{NULL, "decoder.layers.1.up_proj.weight", "decoder.layers.1.up_proj.weight", 4, 4,
		 VQ_METHOD_RTN},
		{NULL, "decoder.layers.1.up_proj.weight", "decoder.layers.1.up_proj.weight", 4, 4,
		 VQ_METHOD_QVLM},
		{NULL, "decoder.norm.weight", "decoder.norm.weight", 4, 4, VQ_METHOD_RTN},
		{"decoder.layers.0.q_proj.weight", NULL, "decoder.layers.0.q_proj.weight", 4, 4,
		 VQ_METHOD_RTN},
		{"vision.layers.1.norm2.bias", NULL, "vision.layers.1.norm2.bias", 4, 4,
		 VQ_METHOD_LAYERWISE},
		{NULL, NULL, "vqlm-calib with -d", 0, 4, VQ_METHOD_QVLM},
		{NULL, NULL, "vqlm-entropy", 4, 0, VQ_METHOD_QVLM},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vq_search_opts o = defaults();
		struct toy t = usual;
		struct vq_err err = {0};

		t.cfg = toy_config();
		t.skip = cases[i].skip;
		t.spoil = cases[i].spoil;
		t.n_samples = cases[i].n_samples;
		t.n_blocks = cases[i].n_blocks;
		o.method = cases[i].method;
		toy_write(in_folder("in"), &t);
		assert_int_equal(search_files(&o, "in", "out", &err), VQ_E_DATA);
		assert_non_null(strstr(err.text, cases[i].want));
	}
}

static void a_cut_stream_and_a_searched_one_are_refused(void **state)
{
	struct vq_search_opts o = defaults();
	struct vq_rng r = vq_rng_new(1, "cuts");
	struct vq_err err = {0};
	size_t n;
	char *p;
	int i;

	(void)state;
	search_usual(&o);
	assert_int_equal(search_files(&o, "out", "again", &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "searched already"));
	p = bytes_of("in", &n);
	for (i = 0; i < 20; i++) {
		o.method = (enum vq_method)(i % 3);
		put_file("cut", p, (size_t)(vq_rng_u64(r, (uint64_t)i) % n));
		err = (struct vq_err){0};
		assert_int_equal(search_files(&o, "cut", "again", &err), VQ_E_DATA);
	}
	/* Two streams, one after the other. */
	p = realloc(p, 2 * n);
	assert_non_null(p);
	memcpy(p + n, p, n);
	put_file("cut", p, 2 * n);
	err = (struct vq_err){0};
	assert_int_equal(search_files(&o, "cut", "again", &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "one segment"));
	free(p);
}

static void inputs_are_passed_on_when_asked_for(void **state)
{
	int m;

	(void)state;
	for (m = 0; m <= VQ_METHOD_AWQ; m++) {
		struct vq_search_opts o = defaults();
		struct vq_held_list in = {0}, out = {0};
		const struct vq_held *h;
		size_t i;
		int keep;

		o.method = (enum vq_method)m;
		for (keep = 0; keep < 2; keep++) {
			o.keep_inputs = keep;
			search_usual(&o);
			load_stream("in", &in);
			load_stream("out", &out);
			for (i = 0; i < in.n; i++) {
				if (in.items[i].rec.kind != VQ_KIND_INPUT)
					continue;
				h = vq_held_find(&out, in.items[i].rec.name);
				assert_int_equal(h != NULL, keep);
				if (keep)
					assert_int_equal(h->rec.hash, in.items[i].rec.hash);
			}
			vq_held_clear(&in);
			vq_held_clear(&out);
		}
	}
}

/* --- the descent --- */

struct table {
	double e[VQ_QVLM_VALUES * VQ_QVLM_VALUES * VQ_QVLM_VALUES];
	uint64_t n;
};

static int no_enter(void *ctx, uint32_t coord, const uint8_t *choice, struct vq_err *err)
{
	(void)ctx;
	(void)coord;
	(void)choice;
	(void)err;
	return VQ_OK;
}

static double look_up(const struct table *t, const uint8_t *c)
{
	return t->e[(c[0] * VQ_QVLM_VALUES + c[1]) * VQ_QVLM_VALUES + c[2]];
}

static int table_eval(void *ctx, uint32_t coord, const uint8_t *choice, double *error,
		      struct vq_err *err)
{
	struct table *t = ctx;

	(void)coord;
	(void)err;
	t->n++;
	*error = look_up(t, choice);
	return VQ_OK;
}

/* Three coordinates, so that all 125 choices can be looked at. */
static void descent_is_bounded_by_exhaustive_search(void **state)
{
	uint8_t usable[3 * VQ_QVLM_VALUES], choice[3], probe[3];
	int trial, same = 0;

	(void)state;
	memset(usable, 1, sizeof(usable));
	for (trial = 0; trial < 200; trial++) {
		struct vq_rng r = vq_rng_new((uint64_t)trial, "table");
		int additive = trial % 2, i, v;
		struct table t = {.n = 0};
		struct vq_descent d = {3, 20, usable, no_enter, table_eval, &t, 0, 0};
		struct vq_err err = {0};
		double best = 1e9, start;

		for (i = 0; i < 125; i++) {
			t.e[i] = additive
					 ? vq_rng_uniform(r, (uint64_t)(1000 + i / 25)) +
						   vq_rng_uniform(r, (uint64_t)(2000 + i / 5 % 5)) +
						   vq_rng_uniform(r, (uint64_t)(3000 + i % 5))
					 : vq_rng_uniform(r, (uint64_t)i);
			best = t.e[i] < best ? t.e[i] : best;
		}
		for (i = 0; i < 3; i++)
			choice[i] = (uint8_t)(vq_rng_u64(r, (uint64_t)(5000 + i)) % VQ_QVLM_VALUES);
		start = d.error = look_up(&t, choice);
		assert_int_equal(vq_qvlm_descend(&d, choice, &err), VQ_OK);
		assert_true(d.error == look_up(&t, choice));
		assert_true(d.error <= start && d.error >= best);
		assert_int_equal(d.n_evals, t.n);
		if (additive)
			assert_true(d.error <= best + 1e-12);
		same += d.error == best;
		/* No single change is better. */
		for (i = 0; i < 3; i++)
			for (v = 0; v < VQ_QVLM_VALUES; v++) {
				memcpy(probe, choice, 3);
				probe[i] = (uint8_t)v;
				assert_true(look_up(&t, probe) >= d.error);
			}
	}
	print_message("# figure: descent finds the best of 125 choices in %d of 200 tables\n",
		      same);
}

static void ties_keep_the_smaller_clip(void **state)
{
	uint8_t usable[3 * VQ_QVLM_VALUES], choice[3] = {4, 2, 1};
	struct table t = {.n = 0};
	struct vq_descent d = {3, 2, usable, no_enter, table_eval, &t, 0, 0};
	struct vq_err err = {0};

	(void)state;
	memset(usable, 1, sizeof(usable));
	assert_int_equal(vq_qvlm_descend(&d, choice, &err), VQ_OK);
	assert_int_equal(choice[0] + choice[1] + choice[2], 0);
	/* What has been looked at since the last change is not looked at again. */
	assert_int_equal(d.n_evals, 3 * 4 + 2 * 4);
}

/* The score of the last vision block has the sketched effect in it, in proportion to eta; other blocks do not. */
static void the_sketch_scores_the_last_vision_block(void **state)
{
	static const uint32_t blocks[][2] = {{0, 0}, {1, 1}, {2, 2}, {3, 5}};
	static const double eta[] = {0, 1, 3};
	double e[3], first[3];
	struct toy t = usual;
	size_t i;

	(void)state;
	t.cfg = toy_config();
	t.blocks = blocks;
	t.n_sketch = 3;
	toy_write(in_folder("in"), &t);
	for (i = 0; i < 3; i++) {
		struct vq_search_opts o = defaults();
		struct vq_err err = {0};

		o.eta = eta[i];
		o.rows = 12; /* fewer than all: the sketched sample is measured all the same */
		assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
		assert_true(stat_error("out", 1, 1, "error") <=
			    stat_error("out", 1, 1, "error_plain"));
		e[i] = stat_error("out", 1, 1, "error_plain");
		first[i] = stat_error("out", 0, 0, "error_plain");
	}
	assert_true(e[1] > e[0]);
	assert_true(fabs((e[2] - e[0]) - 3 * (e[1] - e[0])) < 1e-6 * e[2]);
	assert_true(first[0] == first[1] && first[1] == first[2]);
}

/* The slope of the entropies too, in proportion to lambda; the search goes down with it. */
static void slopes_of_entropies_score_the_last_vision_block(void **state)
{
	static const uint32_t blocks[][2] = {{0, 1}, {2, 2}, {3, 5}};
	static const double lambda[] = {0, 1, 3};
	struct toy t = usual;
	double e[3];
	size_t i;

	(void)state;
	t.cfg = toy_config();
	t.blocks = blocks;
	t.n_blocks = 3;
	t.n_sketch = 3;
	toy_write(in_folder("in"), &t);
	for (i = 0; i < 3; i++) {
		struct vq_search_opts o = defaults();
		struct vq_err err = {0};

		o.veo_lambda = lambda[i];
		assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
		e[i] = stat_error("out", 0, 1, "error_plain");
		assert_true(stat_error("out", 0, 1, "error") <= e[i]);
	}
	assert_true(fabs(e[1] - e[0]) > 1e-4);
	assert_true(fabs((e[2] - e[0]) - 3 * (e[1] - e[0])) < 1e-6 * fabs(e[2] - e[0]));
}

/* How many weights of codes in the decoder, and outside it, differ between "out" and another stream; and whether
 * any STAT does. */
static void count_changes(const char *other, size_t *decoder, size_t *before, size_t *stats)
{
	struct vq_held_list a = {0}, b = {0};
	size_t i;

	load_stream("out", &a);
	load_stream(other, &b);
	assert_int_equal(a.n, b.n);
	*decoder = *before = *stats = 0;
	for (i = 0; i < a.n; i++) {
		const struct vq_record *r = &a.items[i].rec;
		size_t change = r->hash != b.items[i].rec.hash;

		assert_string_equal(r->name, b.items[i].rec.name);
		if (r->kind == VQ_KIND_STAT)
			*stats += change;
		else if (vq_search_part_of(r->name) == VQ_PART_LLM)
			*decoder += change || !json_equal(r->attrs, b.items[i].rec.attrs);
		else
			*before += change;
	}
	vq_held_clear(&a);
	vq_held_clear(&b);
}

static void equal_token_weights_change_no_byte_and_others_the_decoder(void **state)
{
	static const enum vq_method methods[] = {VQ_METHOD_LAYERWISE, VQ_METHOD_QVLM,
						 VQ_METHOD_GPTQ};
	size_t m, decoder, before, stats;

	(void)state;
	for (m = 0; m < 3; m++) {
		struct vq_search_opts o = defaults();
		struct vq_err err = {0};

		o.method = methods[m];
		o.gptaq = .25;
		search_usual(&o);
		o.token_weights = VQ_TOKENS_VISION;
		o.vision_weight = 1;
		assert_int_equal(search_files(&o, "in", "again", &err), VQ_OK);
		count_changes("again", &decoder, &before, &stats);
		assert_true(decoder == 0 && before == 0 && stats == 0);
		o.vision_weight = .01;
		assert_int_equal(search_files(&o, "in", "again", &err), VQ_OK);
		count_changes("again", &decoder, &before, &stats);
		assert_true(decoder > 0 && before == 0 && stats > 0);
		o.token_weights = VQ_TOKENS_ATTENTION;
		assert_int_equal(search_files(&o, "in", "again", &err), VQ_OK);
		count_changes("again", &decoder, &before, &stats);
		assert_true(decoder > 0 && before == 0 && stats > 0);
		o.token_weights = VQ_TOKENS_VISION;
		o.vision_weight = -1;
		assert_int_equal(search_files(&o, "in", "again", &err), VQ_E_DATA);
		assert_non_null(strstr(err.text, "stat/vision_weight"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(qvlm_is_never_worse_than_layerwise_and_rtn),
		cmocka_unit_test(the_output_does_not_depend_on_the_threads),
		cmocka_unit_test(an_interrupted_run_is_resumed_to_the_same_bytes),
		cmocka_unit_test(transformed_weights_and_inputs_give_the_products_of_the_originals),
		cmocka_unit_test(resuming_another_run_is_refused),
		cmocka_unit_test(pieces_at_checkpoints_are_what_one_run_gives),
		cmocka_unit_test(a_piece_begins_at_a_block_and_a_checkpoint),
		cmocka_unit_test(sixteen_bits_leave_weights_and_inputs_alone),
		cmocka_unit_test(only_the_parts_that_are_named_are_quantized),
		cmocka_unit_test(every_bit_width_is_searched),
		cmocka_unit_test(bad_input_is_refused_by_name),
		cmocka_unit_test(a_cut_stream_and_a_searched_one_are_refused),
		cmocka_unit_test(inputs_are_passed_on_when_asked_for),
		cmocka_unit_test(descent_is_bounded_by_exhaustive_search),
		cmocka_unit_test(the_sketch_scores_the_last_vision_block),
		cmocka_unit_test(slopes_of_entropies_score_the_last_vision_block),
		cmocka_unit_test(ties_keep_the_smaller_clip),
		cmocka_unit_test(equal_token_weights_change_no_byte_and_others_the_decoder),
		cmocka_unit_test(rtn_is_the_grid_applied_to_every_linear),
	};

	return cmocka_run_group_tests(tests, quiet_folder_setup, folder_teardown);
}
