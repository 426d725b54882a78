/* quant/nf4 against bitsandbytes' published table and packing (vectors.json), the rule the codes come from, and
 * numpy. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "quant/grid.h"
#include "quant/nf4.h"
#include "vectors.h"

static float at(const json_t *a, size_t i)
{
	return (float)json_number_value(json_array_get(a, i));
}

/* --- the codes --- */

/* Quantile of the normal distribution: the x for which Phi(x) = p, found by halving until doubles end. */
static double quantile(double p)
{
	double lo = -40, hi = 40;

	for (;;) {
		double x = lo + (hi - lo) / 2;

		if (x == lo || x == hi)
			return x;
		if (erfc(-x / sqrt(2)) / 2 < p)
			lo = x;
		else
			hi = x;
	}
}

/* Element i of torch.linspace(start, .5, n) in float: counted from the nearer end. */
static float line(float start, uint32_t n, uint32_t i)
{
	float step = (0.5f - start) / (float)(n - 1);

	return i < n / 2 ? start + step * (float)i : 0.5f - step * (float)(n - 1 - i);
}

/* The rule of QLoRA's authors: 2^(bits-1) quantiles above 0 and one fewer below, divided by the largest. */
static void generate(uint32_t bits, float start, float *codes)
{
	uint32_t half = 1u << (bits - 1), i;
	float top = (float)quantile(start);

	for (i = 0; i < half; i++)
		codes[2 * half - 1 - i] = (float)quantile(line(start, half + 1, i)) / top;
	codes[half - 1] = 0;
	for (i = 0; i + 1 < half; i++)
		codes[i] = -(float)quantile(line(start, half, i)) / top;
}

static void the_nf4_table_is_bitsandbytes_and_comes_out_of_its_rule_to_the_bit(void **state)
{
	const json_t *want = vector("nf4", "table"),
		     *in_double = vector("nf4", "generated_float64");
	const float *c = vq_nf_codes(4);
	float made[16];
	uint32_t i;

	(void)state;
	generate(4, 0.9677083f, made); /* seven digits, as the authors wrote it */
	assert_int_equal(json_array_size(want), 16);
	for (i = 0; i < 16; i++) {
		assert_true(c[i] == at(want, i));
		assert_true(c[i] == made[i]);
		assert_true(fabs((double)c[i] - json_number_value(json_array_get(in_double, i))) <
			    2e-7);
	}
	assert_null(vq_nf_codes(2));
	assert_null(vq_nf_codes(5));
}

static void the_nf3_table_comes_out_of_the_same_rule(void **state)
{
	const float *c = vq_nf_codes(3);
	float made[8];
	uint32_t i;

	(void)state;
	generate(3, (float)(0.5 * ((1 - 1. / 16) + (1 - 1. / 14))), made);
	for (i = 0; i < 8; i++)
		assert_true(c[i] == made[i]);
}

static void nf4_thresholds_are_float_midpoints_and_a_tie_takes_the_lower_code(void **state)
{
	const json_t *cuda = vector("nf4", "thresholds_cuda"),
		     *mid = vector("nf4", "midpoints_f32");
	uint32_t bits, i;

	(void)state;
	assert_int_equal(json_array_size(cuda), 15);
	for (i = 0; i < 15; i++) {
		assert_true(vq_nf_threshold(4, i) == at(cuda, i));
		assert_true(vq_nf_threshold(4, i) == at(mid, i));
	}
	for (bits = 3; bits <= 4; bits++)
		for (i = 0; i + 1 < 1u << bits; i++) {
			float t = vq_nf_threshold(bits, i);

			assert_int_equal(vq_nf_nearest(bits, t), i);
			assert_int_equal(vq_nf_nearest(bits, nextafterf(t, 2)), i + 1);
			assert_int_equal(vq_nf_nearest(bits, nextafterf(t, -2)), i);
			assert_int_equal(vq_nf_nearest(bits, vq_nf_codes(bits)[i]), i);
		}
	assert_int_equal(vq_nf_nearest(4, INFINITY), 15);
	assert_int_equal(vq_nf_nearest(4, -INFINITY), 0);
	assert_int_equal(vq_nf_nearest(4, NAN), 0);
}

/* --- blocks --- */

static uint32_t lcg;

static double draw(void)
{
	lcg = (1103515245u * lcg + 12345u) & 0x7fffffff;
	return lcg / 2147483648.0 - 0.5;
}

static void hex_of(const uint8_t *bytes, size_t n, char *hex)
{
	size_t i;

	for (i = 0; i < n; i++)
		snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
}

static void an_nf4_block_has_the_reference_absmax_codes_packing_and_error(void **state)
{
	const json_t *idx = vector("nf4_block", "idx");
	float w[64], back[64], absmax;
	uint8_t codes[64], packed[32];
	char hex[65];
	double mse = 0, want = json_number_value(vector("nf4_block", "mse"));
	uint32_t i;

	(void)state;
	lcg = 42;
	for (i = 0; i < 64; i++)
		w[i] = (float)(draw() * 0.2);
	vq_nf_quantize(4, w, 64, codes, &absmax);
	vq_nf_dequantize(4, codes, &absmax, 0, 64, back);
	vq_nf_pack_nibbles(codes, 64, packed);
	hex_of(packed, 32, hex);
	assert_true(absmax == (float)json_number_value(vector("nf4_block", "absmax")));
	assert_string_equal(hex, json_string_value(vector("nf4_block", "packed_hex")));
	for (i = 0; i < 64; i++) {
		assert_int_equal(codes[i], json_integer_value(json_array_get(idx, i)));
		mse += ((double)back[i] - (double)w[i]) * ((double)back[i] - (double)w[i]) / 64;
	}
	print_message("# figure: NF4 block: absmax %.16g, packed %s, mse %.12g (want %.12g)\n",
		      (double)absmax, hex, mse, want);
	assert_true(fabs(mse - want) < 1e-6 * want); /* the reference dequantizes in double */
}

static void odd_numbers_of_codes_leave_the_last_low_nibble_empty(void **state)
{
	const uint8_t codes[3] = {1, 2, 15};
	uint8_t out[2];

	(void)state;
	vq_nf_pack_nibbles(codes, 3, out);
	assert_int_equal(out[0], 0x12);
	assert_int_equal(out[1], 0xf0);
}

static void blocks_of_zeros_and_of_the_smallest_numbers_stay_finite(void **state)
{
	float w[3 * 64] = {0}, back[3 * 64], absmax[3];
	uint8_t codes[3 * 64];
	uint32_t i;

	(void)state;
	for (i = 64; i < 128; i++)
		w[i] = 1e-45f;
	w[130] = 3e38f;
	vq_nf_quantize(4, w, 192, codes, absmax);
	vq_nf_dequantize(4, codes, absmax, 0, 192, back);
	for (i = 0; i < 64; i++)
		assert_true(codes[i] == 7 && back[i] == 0);
	for (; i < 128; i++)
		assert_true(codes[i] == 7); /* 1e-45 / 1e-38 is next to nothing */
	assert_true(back[130] == 3e38f && back[131] == 0);
}

enum { GAUSS = 20000 * 64 };

/* Relative squared error of a uniform grid of 4 bits on w [n / 64, 64]. */
static double uniform_error(const float *w, int sym, float *back)
{
	struct vq_wgrid g = {4, 64, sym};
	struct vq_codes c;
	double e = 0, r = 0;
	size_t i;

	assert_int_equal(vq_codes_alloc(&c, &g, GAUSS / 64, 64, NULL), VQ_OK);
	vq_grid_fit(&c, w, 1);
	vq_grid_dequant(&c, back);
	vq_codes_free(&c);
	for (i = 0; i < GAUSS; i++) {
		e += ((double)back[i] - (double)w[i]) * ((double)back[i] - (double)w[i]);
		r += (double)w[i] * (double)w[i];
	}
	return e / r;
}

static void gaussian_weights_have_the_known_error_in_nf4_and_int4(void **state)
{
	struct vq_rng rng = vq_rng_new(4, "nf4");
	float *w = vq_alloc_f32(GAUSS, NULL), *back = vq_alloc_f32(GAUSS, NULL);
	struct vq_nf_error e = {0};
	double nf, asym, sym;
	struct vq_nf f;
	size_t i;

	(void)state;
	for (i = 0; i < GAUSS; i++)
		w[i] = (float)vq_rng_normal(rng, i);
	assert_int_equal(vq_nf_alloc(&f, 4, GAUSS / 64, 64, NULL), VQ_OK);
	assert_int_equal(vq_nf_fit(&f, w, VQ_F32, &e, NULL), VQ_OK);
	nf = e.weight;
	asym = uniform_error(w, 0, back);
	sym = uniform_error(w, 1, back);
	print_message("# figure: Gaussian, blocks of 64, relative MSE: NF4 %.5f (want .0085), INT4 "
		      "asymmetric %.5f (want .0083), symmetric %.5f (want .0116)\n",
		      nf, asym, sym);
	assert_true(fabs(nf - .0085) < .02 * .0085);
	assert_true(fabs(asym - .0083) < .02 * .0083);
	assert_true(fabs(sym - .0116) < .02 * .0116);
	vq_nf_free(&f);
	vq_free(w);
	vq_free(back);
}

/* --- double quantization --- */

static void the_dynamic_map_is_bitsandbytes(void **state)
{
	const json_t *want = vector("dynamic_map_256", NULL);
	float map[256];
	double sum = 0;
	uint32_t i, zeros = 0;

	(void)state;
	vq_nf_dynamic_map(map);
	assert_int_equal(json_array_size(want), 256);
	for (i = 0; i < 256; i++) {
		assert_true(map[i] == at(want, i));
		assert_true(i == 0 || map[i] > map[i - 1]);
		zeros += map[i] == 0;
		sum += (double)map[i];
	}
	assert_int_equal(zeros, 1);
	assert_true(map[0] == -0.99296874f && map[255] == 1 && sum == 1);
}

static void check_floats(const json_t *want, const float *got, size_t n)
{
	size_t i;

	assert_int_equal(json_array_size(want), n);
	for (i = 0; i < n; i++)
		assert_true(got[i] == at(want, i));
}

static void check_bytes(const json_t *want, const uint8_t *got, size_t n)
{
	size_t i;

	assert_int_equal(json_array_size(want), n);
	for (i = 0; i < n; i++)
		assert_int_equal(got[i], json_integer_value(json_array_get(want, i)));
}

static void check_case(const json_t *c)
{
	uint32_t bits = (uint32_t)json_integer_value(json_object_get(c, "bits"));
	uint32_t rows = (uint32_t)json_integer_value(json_object_get(c, "rows"));
	uint32_t n_in = (uint32_t)json_integer_value(json_object_get(c, "n"));
	size_t n = (size_t)rows * n_in, i;
	float *w = vq_alloc_f32(n, NULL), *absmax = vq_alloc_f32(n, NULL);
	uint8_t *packed = vq_alloc(n, 1, NULL);
	char *hex = vq_alloc(n + 2, 1, NULL);
	struct vq_nf_error e;
	struct vq_nf f;

	for (i = 0; i < n; i++)
		w[i] = at(json_object_get(c, "W"), i);
	assert_int_equal(vq_nf_alloc(&f, bits, rows, n_in, NULL), VQ_OK);
	assert_int_equal(vq_nf_fit(&f, w, VQ_F32, &e, NULL), VQ_OK);
	check_bytes(json_object_get(c, "codes"), f.codes, n);
	vq_nf_pack_nibbles(f.codes, n, packed);
	hex_of(packed, (n + 1) / 2, hex);
	assert_string_equal(hex, json_string_value(json_object_get(c, "packed")));
	check_bytes(json_object_get(c, "q"), f.absmax.q, f.absmax.n);
	check_floats(json_object_get(c, "scale"), f.absmax.scale, vq_nf_n_scales(f.absmax.n));
	assert_true(f.absmax.offset == (float)json_number_value(json_object_get(c, "offset")));
	vq_nf_absmax_dequantize(&f.absmax, absmax);
	vq_nf_dequantize(bits, f.codes, absmax, 0, n, w);
	check_floats(json_object_get(c, "value"), w, n);
	vq_nf_free(&f);
	vq_free(w);
	vq_free(absmax);
	vq_free(packed);
	vq_free(hex);
}

static void fresh_cases_agree_with_the_independent_reference_to_the_bit(void **state)
{
	const size_t n = 24;
	size_t i;
	json_t *all = fresh_cases("nf4_ref.py", 2024, n);

	(void)state;
	for (i = 0; i < n; i++)
		check_case(json_array_get(all, i));
	print_message("# figure: NF4 and NF3: %zu of %zu fresh cases equal the reference\n", i, n);
	json_decref(all);
}

/* --- whole weights --- */

enum { OUT = 150, IN = 300 };

static void fit_random(struct vq_nf *f, struct vq_nf_error *e, float *w)
{
	struct vq_rng r = vq_rng_new(9, "nf4");
	size_t i;

	for (i = 0; i < OUT * IN; i++)
		w[i] = (float)vq_rng_normal(r, i);
	assert_int_equal(vq_nf_alloc(f, 4, OUT, IN, NULL), VQ_OK);
	assert_int_equal(vq_nf_fit(f, w, VQ_F32, e, NULL), VQ_OK);
}

static void the_errors_are_those_of_what_is_multiplied(void **state)
{
	static float w[OUT * IN], absmax[OUT * IN], back[OUT * IN];
	struct vq_nf_error e;
	struct vq_nf f;
	uint8_t bytes[16];
	double sum[4] = {0};
	size_t i;

	(void)state;
	fit_random(&f, &e, w);
	vq_nf_absmax_dequantize(&f.absmax, absmax);
	vq_nf_dequantize(4, f.codes, absmax, 0, OUT * IN, back);
	vq_nf_bytes(4, bytes);
	for (i = 0; i < OUT * IN; i++) {
		double q = (double)back[i], d = q - (double)w[i];
		double b = (bytes[f.codes[i]] - 128) / 127. * (double)absmax[i / 64] - q;

		sum[0] += d * d;
		sum[1] += (double)w[i] * (double)w[i];
		sum[2] += b * b;
		sum[3] += q * q;
	}
	print_message(
		"# figure: NF4, relative squared error: of the weight %.6f, of the bytes that "
		"are multiplied %.3g\n",
		e.weight, e.bytes);
	assert_true(fabs(e.weight - sum[0] / sum[1]) < 1e-9 * e.weight);
	assert_true(fabs(e.bytes - sum[2] / sum[3]) < 1e-5 * e.bytes);
	vq_nf_free(&f);
}

static void bytes_lie_within_half_a_step_of_the_codes(void **state)
{
	uint32_t bits, i;

	(void)state;
	for (bits = 3; bits <= 4; bits++) {
		uint8_t b[16];

		vq_nf_bytes(bits, b);
		assert_int_equal(b[0], 1);
		assert_int_equal(b[(1u << (bits - 1)) - 1], 128);
		assert_int_equal(b[(1u << bits) - 1], 255);
		for (i = 0; i < 1u << bits; i++)
			assert_true(fabs((b[i] - 128) / 127. - (double)vq_nf_codes(bits)[i]) <=
				    .5 / 127);
	}
}

static void the_number_of_threads_does_not_show(void **state)
{
	static float w[OUT * IN];
	struct vq_nf_error one, e;
	struct vq_nf a, b;
	int threads = omp_get_max_threads();

	(void)state;
	omp_set_num_threads(1);
	fit_random(&a, &one, w);
	omp_set_num_threads(3);
	fit_random(&b, &e, w);
	omp_set_num_threads(threads);
	assert_memory_equal(a.codes, b.codes, OUT * IN);
	assert_memory_equal(a.absmax.q, b.absmax.q, a.absmax.n);
	assert_memory_equal(&one, &e, sizeof(e));
	vq_nf_free(&a);
	vq_nf_free(&b);
}

static void what_is_no_number_is_refused(void **state)
{
	float w[128] = {0};
	struct vq_err err = {0};
	struct vq_nf_error e;
	struct vq_nf f;

	(void)state;
	w[77] = NAN;
	assert_int_equal(vq_nf_alloc(&f, 4, 2, 64, &err), VQ_OK);
	assert_int_equal(vq_nf_fit(&f, w, VQ_F32, &e, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "77"));
	assert_int_equal(vq_nf_fit(&f, w, VQ_I32, &e, &err), VQ_E_DATA);
	vq_nf_free(&f);
	assert_int_equal(vq_nf_alloc(&f, 5, 2, 64, &err), VQ_E_DATA);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			the_nf4_table_is_bitsandbytes_and_comes_out_of_its_rule_to_the_bit),
		cmocka_unit_test(the_nf3_table_comes_out_of_the_same_rule),
		cmocka_unit_test(nf4_thresholds_are_float_midpoints_and_a_tie_takes_the_lower_code),
		cmocka_unit_test(an_nf4_block_has_the_reference_absmax_codes_packing_and_error),
		cmocka_unit_test(odd_numbers_of_codes_leave_the_last_low_nibble_empty),
		cmocka_unit_test(blocks_of_zeros_and_of_the_smallest_numbers_stay_finite),
		cmocka_unit_test(gaussian_weights_have_the_known_error_in_nf4_and_int4),
		cmocka_unit_test(the_dynamic_map_is_bitsandbytes),
		cmocka_unit_test(fresh_cases_agree_with_the_independent_reference_to_the_bit),
		cmocka_unit_test(the_errors_are_those_of_what_is_multiplied),
		cmocka_unit_test(bytes_lie_within_half_a_step_of_the_codes),
		cmocka_unit_test(the_number_of_threads_does_not_show),
		cmocka_unit_test(what_is_no_number_is_refused),
	};

	return cmocka_run_group_tests(tests, load_vectors, free_vectors);
}
