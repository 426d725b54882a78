/* quant/grid, quant/agrid: weight grids and the JSON of activation grids. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "quant/agrid.h"
#include "quant/grid.h"

static void fill(float *w, size_t n, uint64_t seed)
{
	struct vq_rng r = vq_rng_new(seed, "test");
	size_t i;

	for (i = 0; i < n; i++)
		w[i] = (float)vq_rng_normal(r, i);
}

static void round_trip(uint32_t bits, uint32_t group, int sym, uint32_t n_out, uint32_t n_in)
{
	struct vq_wgrid g = {bits, group, sym};
	struct vq_codes c;
	float *w = vq_alloc_f32((size_t)n_out * n_in, NULL), *v;
	uint32_t r, k, ng = vq_grid_n_groups(&g, n_in), step = group ? group : n_in;

	v = vq_alloc_f32((size_t)n_out * n_in, NULL);
	fill(w, (size_t)n_out * n_in, bits * 7 + group + n_in);
	assert_int_equal(vq_codes_alloc(&c, &g, n_out, n_in, NULL), VQ_OK);
	vq_grid_fit(&c, w, 1.0f);
	vq_grid_dequant(&c, v);
	for (r = 0; r < n_out; r++)
		for (k = 0; k < n_in; k++) {
			size_t i = (size_t)r * n_in + k;
			float s = vq_f16_to_f32(c.scale[(size_t)r * ng + k / step]);

			assert_true(c.codes[i] < 1u << bits);
			/* Half a step; float16 may have rounded the scale so that an end of the
			 * range lies outside, by at most 2^-11 of it, and the zero point's own
			 * rounding shifts the whole range by up to half a step. */
			assert_true(fabsf(v[i] - w[i]) <=
				    s * ((sym ? 0.501f : 1.001f) + (float)(1u << bits) * 0x1p-11f));
		}
	vq_codes_free(&c);
	vq_free(w);
	vq_free(v);
}

static void weights_come_back_within_half_a_step(void **state)
{
	uint32_t bits;
	int sym;

	(void)state;
	for (bits = 2; bits <= 8; bits++)
		for (sym = 0; sym < 2; sym++) {
			round_trip(bits, 0, sym, 5, 300);
			round_trip(bits, 128, sym, 3, 640);
			round_trip(bits, 32, sym, 7, 172); /* the last group has 12 */
			round_trip(bits, 64, sym, 1, 1);
		}
}

/* fakequant's formula in float, with the scale rounded to float16 first. */
static void codes_follow_the_written_formula_to_the_bit(void **state)
{
	struct vq_wgrid g = {4, 0, 1};
	struct vq_codes c;
	float w[513], absmax = 0;
	uint32_t i;

	(void)state;
	fill(w, 513, 3);
	for (i = 0; i < 513; i++)
		absmax = fabsf(w[i]) > absmax ? fabsf(w[i]) : absmax;
	assert_int_equal(vq_codes_alloc(&c, &g, 1, 513, NULL), VQ_OK);
	vq_grid_fit(&c, w, 1.0f);
	assert_int_equal(c.scale[0], vq_f32_to_f16(absmax / 7.0f));
	assert_null(c.zero);
	for (i = 0; i < 513; i++) {
		float q = rintf(w[i] / vq_f16_to_f32(c.scale[0]));

		q = q < -8 ? -8 : q > 7 ? 7 : q;
		assert_int_equal(c.codes[i], (int)q + 8);
	}
	vq_codes_free(&c);
}

static void clipping_shrinks_the_range_and_never_the_codes(void **state)
{
	struct vq_wgrid g = {3, 0, 0};
	struct vq_codes c;
	float w[4] = {-1.0f, 0.0f, 1.0f, 4.0f}, v[4];

	(void)state;
	assert_int_equal(vq_codes_alloc(&c, &g, 1, 4, NULL), VQ_OK);
	vq_grid_fit(&c, w, 0.5f); /* range -0.5 .. 2, step 2.5 / 7 */
	assert_int_equal(c.scale[0], vq_f32_to_f16(2.5f / 7.0f));
	vq_grid_dequant(&c, v);
	assert_int_equal(c.codes[3], 7);
	assert_int_equal(c.codes[0], 0);
	assert_true(v[1] == 0);
	assert_true(v[3] < 2.2f);
	vq_codes_free(&c);
}

static void degenerate_groups_give_numbers_and_never_nan(void **state)
{
	const float cases[][4] = {
		{0, 0, 0, 0},          {-0.0f, 0, 0, 0},
		{1e-45f, 0, 0, 0},     {1e-9f, -1e-9f, 0, 0}, /* its scale is below float16 */
		{3e-8f, -3e-8f, 0, 0},                        /* around float16's least number */
		{1e-6f, 2e-6f, 0, 0},                         /* a subnormal scale */
		{3e38f, -3e38f, 1, 0},                        /* the range overflows float */
		{1e6f, -2e6f, 5, 9},                          /* the scale would overflow float16 */
		{5, 5, 5, 5},                                 /* constant */
		{-7, -7, -7, -7},
	};
	uint32_t bits, n, i;
	int sym;

	(void)state;
	for (bits = 2; bits <= 8; bits++)
		for (sym = 0; sym < 2; sym++)
			for (n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
				struct vq_wgrid g = {bits, 0, sym};
				struct vq_codes c;
				float v[4];

				assert_int_equal(vq_codes_alloc(&c, &g, 1, 4, NULL), VQ_OK);
				vq_grid_fit(&c, cases[n], 1.0f);
				vq_grid_dequant(&c, v);
				for (i = 0; i < 4; i++) {
					assert_true(isfinite(v[i]));
					assert_true(c.codes[i] < 1u << bits);
					if (cases[n][i] == 0)
						assert_true(v[i] == 0);
				}
				vq_codes_free(&c);
			}
}

static void zero_is_always_representable(void **state)
{
	struct vq_wgrid g = {2, 0, 0};
	struct vq_codes c;
	float w[3] = {2.0f, 2.5f, 3.0f}, v[3];

	(void)state;
	assert_int_equal(vq_codes_alloc(&c, &g, 1, 3, NULL), VQ_OK);
	vq_grid_fit(&c, w, 1.0f);
	assert_int_equal(c.zero[0], 0);
	vq_grid_dequant(&c, v);
	assert_true(v[2] == 3.0f);
	vq_codes_free(&c);
}

static void a_grid_of_nine_bits_is_refused(void **state)
{
	struct vq_wgrid g = {9, 0, 0};
	struct vq_codes c;
	struct vq_err err = {0};

	(void)state;
	assert_int_equal(vq_codes_alloc(&c, &g, 1, 3, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "9"));
}

static void an_activation_grid_survives_its_json(void **state)
{
	struct vq_agrid g = {.bits = 6, .group = 128, .sym = 1, .clip = 0.93f}, h;
	struct vq_err err = {0};
	char *text;
	json_t *j = vq_agrid_json(&g), *back;

	(void)state;
	text = vq_json_text(j, &err);
	back = vq_json_parse(text, strlen(text), "t", &err);
	assert_int_equal(vq_agrid_parse(&h, back, "t", &err), VQ_OK);
	assert_true(h.bits == 6 && h.group == 128 && h.sym == 1 && h.clip == 0.93f);
	json_decref(back);
	json_decref(j);
	vq_free(text);
}

static void stored_ranges_are_named_and_checked(void **state)
{
	const char *good[] = {"{\"bits\":4,\"group\":64,\"range\":\"static\"}",
			      "{\"bits\":4,\"group\":1,\"range\":\"channel\"}",
			      "{\"bits\":4,\"group\":0,\"range\":\"position\"}"};
	const uint32_t n_ranges[] = {3, 140, 17};
	const char *bad[] = {"{\"bits\":4,\"group\":64,\"range\":\"channel\"}",
			     "{\"bits\":4,\"group\":1,\"range\":\"position\"}",
			     "{\"bits\":4,\"clip\":0.5,\"range\":\"static\"}",
			     "{\"bits\":4,\"range\":\"layer\"}", "{\"bits\":4,\"range\":4}"};
	const char *word[] = {"group 1", "group 0", "clip 1", "'layer'", "range"};
	float ranges[2 * 140];
	struct vq_err err = {0};
	size_t i, k;

	(void)state;
	for (i = 0; i < 3; i++) {
		json_t *j = vq_json_parse(good[i], strlen(good[i]), "t", &err), *back;
		struct vq_agrid g, h;

		for (k = 0; k < 2 * n_ranges[i]; k++)
			ranges[k] = k < n_ranges[i] ? -1 : 1;
		assert_int_equal(vq_agrid_parse(&g, j, "t", &err), VQ_OK);
		back = vq_agrid_json(&g);
		assert_int_equal(vq_agrid_parse(&h, back, "t", &err), VQ_OK);
		assert_true(vq_agrid_same(&g, &h) && h.range != VQ_RANGE_TOKEN);
		assert_int_equal(vq_agrid_set_ranges(&g, ranges, n_ranges[i], 140, 17, "t", &err),
				 VQ_OK);
		assert_int_equal(
			vq_agrid_set_ranges(&g, ranges, n_ranges[i] - 1, 140, 17, "t", &err),
			VQ_E_DATA);
		ranges[2 * n_ranges[i] - 1] = -1;
		assert_int_equal(vq_agrid_set_ranges(&g, ranges, n_ranges[i], 140, 17, "t", &err),
				 VQ_E_DATA);
		json_decref(back);
		json_decref(j);
	}
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		json_t *j = vq_json_parse(bad[i], strlen(bad[i]), "t", &err);
		struct vq_agrid g;

		err = (struct vq_err){0};
		assert_int_equal(vq_agrid_parse(&g, j, "t", &err), VQ_E_DATA);
		assert_non_null(strstr(err.text, word[i]));
		json_decref(j);
	}
}

static void a_bad_activation_grid_is_refused_with_its_key(void **state)
{
	const char *bad[] = {"{\"bits\":9}",
			     "{\"bits\":4,\"clip\":0}",
			     "{\"bits\":4,\"clip\":1.5}",
			     "{\"bits\":\"4\"}",
			     "[4]",
			     "{\"bits\":4,\"clip\":-1}"};
	const char *word[] = {"bits", "clip", "clip", "bits", "object", "clip"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct vq_err err = {0};
		struct vq_agrid g;
		json_t *j = vq_json_parse(bad[i], strlen(bad[i]), "t", &err);

		assert_non_null(j);
		assert_int_equal(vq_agrid_parse(&g, j, "layer.q_proj", &err), VQ_E_DATA);
		assert_non_null(strstr(err.text, word[i]));
		assert_non_null(strstr(err.text, "layer.q_proj"));
		json_decref(j);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(weights_come_back_within_half_a_step),
		cmocka_unit_test(codes_follow_the_written_formula_to_the_bit),
		cmocka_unit_test(clipping_shrinks_the_range_and_never_the_codes),
		cmocka_unit_test(degenerate_groups_give_numbers_and_never_nan),
		cmocka_unit_test(zero_is_always_representable),
		cmocka_unit_test(a_grid_of_nine_bits_is_refused),
		cmocka_unit_test(an_activation_grid_survives_its_json),
		cmocka_unit_test(stored_ranges_are_named_and_checked),
		cmocka_unit_test(a_bad_activation_grid_is_refused_with_its_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
