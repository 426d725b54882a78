/* Linear layers: every form of weight and activation against the definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "kernel/cpu.h"
#include "model/linear.h"
#include "quant/grid.h"
#include "quant/nf_packed.h"

enum { ROWS = 300, OUT = 600, IN = 72 };

static float x[ROWS * IN], w[OUT * IN], bias[OUT], y[ROWS * OUT], fake[ROWS * IN];

static void fill(void)
{
	struct vq_rng r = vq_rng_new(11, "linear");
	size_t i;

	for (i = 0; i < ROWS * IN; i++)
		x[i] = (float)vq_rng_normal(r, i);
	for (i = 0; i < OUT * IN; i++)
		w[i] = (float)vq_rng_normal(r, 1000000 + i);
	for (i = 0; i < OUT; i++)
		bias[i] = (float)vq_rng_normal(r, 9000000 + i);
}

/* Largest difference between y and in W^T + bias in double precision. */
static double error_of(const float *in, const float *weight, uint32_t n_rows)
{
	double worst = 0;
	uint32_t t, o, i;

	for (t = 0; t < n_rows; t++)
		for (o = 0; o < OUT; o++) {
			double want = bias[o];

			for (i = 0; i < IN; i++)
				want += (double)in[t * IN + i] * weight[o * IN + i];
			worst = fmax(worst, fabs(want - y[t * OUT + o]));
		}
	return worst;
}

static void float_weights_of_every_type(void **state)
{
	static uint8_t raw[2][OUT * IN * sizeof(float) + 1]; /* at an even and an odd address */
	static float rounded[OUT * IN];
	static const enum vq_dtype types[] = {VQ_F32, VQ_F16, VQ_BF16};
	static const uint32_t n_rows[] = {1, 17, ROWS}; /* narrow tiles, wide ones, several */
	struct vq_err err = {0};
	size_t t, i, odd, k;

	(void)state;
	fill();
	for (t = 0; t < 3; t++)
		for (odd = 0; odd < 2; odd++) {
			struct vq_linear l = {.n_out = OUT,
					      .n_in = IN,
					      .dtype = types[t],
					      .w = raw[odd] + odd,
					      .bias = bias,
					      .act = {.bits = 16}};

			for (i = 0; i < OUT * IN; i++) {
				uint16_t h = t == 1 ? vq_f32_to_f16(w[i]) : vq_f32_to_bf16(w[i]);

				rounded[i] = t == 0   ? w[i]
					     : t == 1 ? vq_f16_to_f32(h)
						      : vq_bf16_to_f32(h);
				memcpy(raw[odd] + odd + i * vq_dtype_size(types[t]),
				       t == 0 ? (void *)&w[i] : (void *)&h,
				       vq_dtype_size(types[t]));
			}
			for (k = 0; k < 3; k++) {
				assert_int_equal(vq_linear_one(&l, x, n_rows[k], y, &err), VQ_OK);
				assert_true(error_of(x, rounded, n_rows[k]) < 1e-4);
			}
		}
}

/* w quantized on a grid, packed; the dequantized weight is left in deq. */
static void pack(const struct vq_wgrid *g, struct vq_packed *p, float *deq)
{
	struct vq_codes c;
	struct vq_err err = {0};
	uint32_t n_groups = vq_grid_n_groups(g, IN);
	uint8_t *planes = vq_alloc(vq_packed_plane_bytes(g->bits, OUT, IN), 1, NULL);
	uint16_t *scale = vq_alloc(vq_packed_n_scales(OUT, n_groups), 2, NULL);
	uint8_t *zero = g->sym ? NULL : vq_alloc(vq_packed_n_scales(OUT, n_groups), 1, NULL);

	assert_int_equal(vq_codes_alloc(&c, g, OUT, IN, &err), VQ_OK);
	vq_grid_fit(&c, w, 1.0f);
	vq_grid_dequant(&c, deq);
	vq_pack_codes(g->bits, c.codes, OUT, IN, planes);
	vq_pack_scales(c.scale, OUT, n_groups, scale);
	if (zero)
		vq_pack_zeros(c.zero, OUT, n_groups, zero);
	*p = (struct vq_packed){.n_out = OUT,
				.n_in = IN,
				.bits = g->bits,
				.group = g->group,
				.n_groups = n_groups,
				.sym = g->sym,
				.planes = planes,
				.scale = scale,
				.zero = zero};
	vq_codes_free(&c);
}

static void unpack(struct vq_packed *p)
{
	vq_free((void *)p->planes);
	vq_free((void *)p->scale);
	vq_free((void *)p->zero);
}

static void packed_weights_with_float_and_integer_activations(void **state)
{
	static const struct vq_wgrid grids[] = {{4, 32, 0}, {3, 0, 1}, {6, 24, 0}, {8, 0, 0}};
	static float deq[OUT * IN];
	struct vq_err err = {0};
	size_t i;

	(void)state;
	fill();
	for (i = 0; i < sizeof(grids) / sizeof(grids[0]); i++) {
		struct vq_linear l = {.n_out = OUT, .n_in = IN, .bias = bias, .act = {.bits = 16}};
		struct vq_packed p;

		pack(&grids[i], &p, deq);
		l.packed = &p;
		assert_int_equal(vq_linear_one(&l, x, ROWS, y, &err), VQ_OK);
		assert_true(error_of(x, deq, ROWS) < 1e-4);
		l.act = (struct vq_agrid){.bits = 8, .clip = 1};
		vq_act_fake(&l.act, x, ROWS, IN, fake);
		assert_int_equal(vq_linear_one(&l, x, ROWS, y, &err), VQ_OK);
		assert_true(error_of(fake, deq, ROWS) < 1e-4);
		unpack(&p);
	}
}

/* A product of integers adds as it stores, one of floats adds a sum: either is y + linear(x). */
static void a_residual_is_what_y_held_plus_the_linear(void **state)
{
	static float deq[OUT * IN], sum[ROWS * OUT];
	struct vq_linear l = {
		.n_out = OUT, .n_in = IN, .bias = bias, .act = {.bits = 8, .clip = 1}};
	struct vq_packed p;
	struct vq_err err = {0};
	size_t i;
	int is_float;

	(void)state;
	fill();
	pack(&(struct vq_wgrid){4, 32, 0}, &p, deq);
	l.packed = &p;
	for (is_float = 0; is_float < 2; is_float++) {
		l.act.bits = is_float ? 16 : 8;
		assert_int_equal(vq_linear_is_integer(&l), !is_float);
		assert_int_equal(vq_linear_one(&l, x, ROWS, sum, &err), VQ_OK);
		for (i = 0; i < ROWS * OUT; i++)
			y[i] = (float)(i % 11);
		assert_int_equal(vq_linear_add(&l, x, ROWS, y, &err), VQ_OK);
		for (i = 0; i < ROWS * OUT; i++)
			assert_true(y[i] == (float)(i % 11) + sum[i]);
	}
	unpack(&p);
}

static void the_simulated_path_quantizes_the_input(void **state)
{
	struct vq_linear l = {.n_out = OUT,
			      .n_in = IN,
			      .dtype = VQ_F32,
			      .w = w,
			      .bias = bias,
			      .act = {.bits = 4, .group = 36, .sym = 1, .clip = 0.9f}};
	struct vq_err err = {0};

	(void)state;
	fill();
	vq_act_fake(&l.act, x, ROWS, IN, fake);
	assert_true(memcmp(x, fake, sizeof(x)) != 0);
	assert_int_equal(vq_linear_one(&l, x, ROWS, y, &err), VQ_OK);
	assert_true(error_of(fake, w, ROWS) < 1e-4);
}

static void linears_that_share_an_input_may_differ_in_grid(void **state)
{
	static float z[3][ROWS * OUT];
	struct vq_linear a = {.n_out = OUT,
			      .n_in = IN,
			      .dtype = VQ_F32,
			      .w = w,
			      .bias = bias,
			      .act = {.bits = 4, .sym = 1, .clip = 1}},
			 b = a, c = a;
	struct vq_err err = {0};
	int i;

	(void)state;
	fill();
	b.act.bits = 16;
	assert_int_equal(vq_linear_apply((const struct vq_linear *[]){&a, &b, &c}, 3, x, ROWS,
					 (float *[]){z[0], z[1], z[2]}, &err),
			 VQ_OK);
	for (i = 0; i < 2; i++) {
		assert_int_equal(vq_linear_one(i ? &b : &a, x, ROWS, y, &err), VQ_OK);
		assert_memory_equal(y, z[i], sizeof(y));
	}
	assert_memory_equal(z[0], z[2], sizeof(y));
}

/* Per group and per position the product is one of integers, per channel one of floats: all give what the simulated
 * input and the dequantized weight give, and linears whose ranges are equal, not the same, share the input. */
static void stored_ranges_give_the_product_of_what_they_stand_for(void **state)
{
	static const enum vq_act_range kinds[] = {VQ_RANGE_STATIC, VQ_RANGE_CHANNEL,
						  VQ_RANGE_POSITION};
	static const uint32_t groups[] = {32, 1, 0};
	static float deq[OUT * IN], lo[2][IN], hi[IN], z[3][ROWS * OUT];
	const struct vq_wgrid grid = {4, 32, 0};
	struct vq_err err = {0};
	struct vq_packed p;
	size_t i, k;

	(void)state;
	fill();
	pack(&grid, &p, deq);
	for (i = 0; i < IN; i++) {
		lo[0][i] = lo[1][i] = -0.5f - (float)(i % 5) * 0.3f;
		hi[i] = 0.4f + (float)(i % 7) * 0.2f;
	}
	for (k = 0; k < 3; k++) {
		struct vq_linear a = {.n_out = OUT, .n_in = IN, .bias = bias, .packed = &p}, b;

		err = (struct vq_err){0};
		a.act = (struct vq_agrid){.bits = 4,
					  .group = groups[k],
					  .clip = 1,
					  .range = kinds[k],
					  .lo = lo[0],
					  .hi = hi};
		a.act.n_ranges = vq_agrid_n_ranges(&a.act, IN, 2);
		b = a;
		b.act.lo = lo[1];
		vq_act_fake(&a.act, x, ROWS, IN, fake);
		assert_int_equal(vq_linear_apply((const struct vq_linear *[]){&a, &b}, 2, x, ROWS,
						 (float *[]){z[0], z[1]}, &err),
				 VQ_OK);
		memcpy(y, z[0], sizeof(y));
		assert_true(error_of(fake, deq, ROWS) < 1e-4);
		assert_memory_equal(z[0], z[1], sizeof(y));
		a.packed = NULL; /* search simulates with float weights */
		a.w = deq;
		a.dtype = VQ_F32;
		assert_int_equal(vq_linear_one(&a, x, ROWS, z[2], &err), VQ_OK);
		for (i = 0; i < ROWS * OUT; i++)
			assert_float_equal(z[2][i], z[0][i], 1e-4);
		if (kinds[k] == VQ_RANGE_POSITION) {
			assert_int_equal(vq_linear_one(&a, x, 3, y, &err), VQ_E_DATA);
			assert_non_null(strstr(err.text, "whole sequences"));
			err = (struct vq_err){0};
		}
		a.act.lo = NULL;
		assert_int_equal(vq_linear_one(&a, x, 2, y, &err), VQ_E_DATA);
		assert_non_null(strstr(err.text, "no ranges"));
	}
	unpack(&p);
}

/* --- NF4 --- */

/* w as an NF4 weight of n_in inputs; deq its values. */
struct nf_case {
	uint32_t n_in;
	struct vq_nf f;
	struct vq_nf_error e;
	struct vq_packed p;
	uint8_t *planes;
	float *deq;
};

static void nf_make(struct nf_case *c, uint32_t n_in)
{
	struct vq_err err = {0};
	float *absmax;

	fill();
	c->n_in = n_in;
	assert_int_equal(vq_nf_alloc(&c->f, 4, OUT, n_in, &err), VQ_OK);
	assert_int_equal(vq_nf_fit(&c->f, w, VQ_F32, &c->e, &err), VQ_OK);
	absmax = vq_alloc_f32(c->f.absmax.n, NULL);
	c->deq = vq_alloc_f32((size_t)OUT * n_in, NULL);
	vq_nf_absmax_dequantize(&c->f.absmax, absmax);
	vq_nf_dequantize(4, c->f.codes, absmax, 0, (size_t)OUT * n_in, c->deq);
	vq_free(absmax);
	c->planes = vq_alloc(vq_packed_plane_bytes(4, OUT, n_in), 1, NULL);
	vq_pack_codes(4, c->f.codes, OUT, n_in, c->planes);
	assert_int_equal(vq_nf_packed(&c->p, 4, OUT, n_in, c->planes, &c->f.absmax, &err), VQ_OK);
}

static void nf_drop(struct nf_case *c)
{
	vq_nf_free(&c->f);
	vq_free(c->planes);
	vq_free(c->deq);
	vq_free((void *)c->p.absmax);
}

static double nf_error(const struct nf_case *c, const float *in, const float *got)
{
	double worst = 0;
	uint32_t t, o, i;

	for (t = 0; t < ROWS; t++)
		for (o = 0; o < OUT; o++) {
			double want = bias[o];

			for (i = 0; i < c->n_in; i++)
				want += (double)in[t * c->n_in + i] * c->deq[o * c->n_in + i];
			worst = fmax(worst, fabs(want - got[t * OUT + o]));
		}
	return worst;
}

/* 64: a block a row; 72: blocks run on from row to row. */
static void nf4_rows_are_dequantized_to_the_bit(void **state)
{
	static const uint32_t widths[] = {64, 72};
	static float rows[OUT * IN];
	uint32_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct nf_case c;

		nf_make(&c, widths[i]);
		assert_int_equal(c.p.straddles, i);
		vq_packed_rows(&c.p, 0, OUT, c.n_in, rows);
		assert_memory_equal(rows, c.deq, (size_t)OUT * c.n_in * sizeof(float));
		vq_packed_rows(&c.p, 64, 40, c.n_in, rows);
		assert_memory_equal(rows, c.deq + 64 * c.n_in, (size_t)40 * c.n_in * sizeof(float));
		vq_packed_row(&c.p, 71, rows);
		assert_memory_equal(rows, c.deq + 71 * c.n_in, c.n_in * sizeof(float));
		nf_drop(&c);
	}
}

/* Every width; groups of whole steps of four inputs, not so, and none. */
static void integer_rows_are_dequantized_to_the_bit(void **state)
{
	static const uint32_t groups[] = {0, 32, 64, 6, 50, 128}, n_in[] = {150, 64, 201};
	static uint8_t codes[70 * 201], zero[70 * 40], planes[8 * 96 * 204], pzero[96 * 40];
	static uint16_t scale[70 * 40], pscale[96 * 40];
	static float got[70 * 201];
	struct vq_rng rng = vq_rng_new(5, "rows");
	uint32_t bits, i, o, k;

	(void)state;
	for (bits = 2; bits <= 8; bits++)
		for (i = 0; i < 18; i++) {
			uint32_t group = groups[i % 6], n = n_in[i / 6];
			uint32_t ng = group && group < n ? vq_ceil_div(n, group) : 1;
			int sym = (int)(i + bits) % 2;
			struct vq_packed p = {.n_out = 70, .n_in = n, .bits = bits, .group = group};

			for (k = 0; k < 70 * n; k++)
				codes[k] = (uint8_t)(vq_rng_u64(rng, k) & ((1u << bits) - 1));
			for (k = 0; k < 70 * ng; k++) {
				scale[k] = vq_f32_to_f16((float)vq_rng_uniform(rng, k));
				zero[k] = (uint8_t)(vq_rng_u64(rng, k) >> 8 & ((1u << bits) - 1));
			}
			assert_true(vq_packed_plane_bytes(bits, 70, n) <= sizeof(planes));
			vq_pack_codes(bits, codes, 70, n, planes);
			vq_pack_scales(scale, 70, ng, pscale);
			vq_pack_zeros(zero, 70, ng, pzero);
			p.n_groups = ng;
			p.sym = sym;
			p.planes = planes;
			p.scale = pscale;
			p.zero = sym ? NULL : pzero;
			vq_packed_rows(&p, 0, 70, n, got);
			for (o = 0; o < 70; o++)
				for (k = 0; k < n; k++) {
					uint32_t at = o * ng + (ng > 1 ? k / group : 0);
					int z = sym ? 1 << (bits - 1) : zero[at];
					float want = vq_f16_to_f32(scale[at]) *
						     (float)(codes[o * n + k] - z);

					assert_true(vq_f32_bits(got[o * n + k]) ==
						    vq_f32_bits(want));
				}
		}
}

static void nf4_weights_with_float_exact_and_straddling_products(void **state)
{
	static const uint32_t widths[] = {64, 72, 72}, exact[] = {1, 1, 0};
	struct vq_err err = {0};
	uint32_t i;

	(void)state;
	for (i = 0; i < 3; i++) {
		struct nf_case c;
		struct vq_linear l = {.n_out = OUT, .bias = bias, .act = {.bits = 16}};

		nf_make(&c, widths[i]);
		l.n_in = c.n_in;
		l.packed = &c.p;
		l.exact = (int)exact[i];
		assert_int_equal(vq_linear_one(&l, x, ROWS, y, &err), VQ_OK);
		assert_true(nf_error(&c, x, y) < 1e-4);
		l.act = (struct vq_agrid){.bits = 8, .clip = 1};
		vq_act_fake(&l.act, x, ROWS, c.n_in, fake);
		assert_int_equal(vq_linear_one(&l, x, ROWS, y, &err), VQ_OK);
		assert_true(nf_error(&c, fake, y) < 1e-4);
		nf_drop(&c);
	}
}

/* |dy|^2 <= |dW|^2 |x|^2 for every token (Cauchy-Schwarz). */
static void the_integer_product_of_nf4_is_off_by_no_more_than_its_error(void **state)
{
	static float exact[ROWS * OUT];
	struct vq_linear l = {.n_out = OUT, .n_in = 64, .act = {.bits = 8, .clip = 1}};
	struct vq_err err = {0};
	struct nf_case c;
	double norm = 0, worst = 0;
	uint32_t t, i;

	(void)state;
	nf_make(&c, 64);
	l.packed = &c.p;
	assert_int_equal(vq_linear_one(&l, x, ROWS, y, &err), VQ_OK);
	l.exact = 1;
	assert_int_equal(vq_linear_one(&l, x, ROWS, exact, &err), VQ_OK);
	vq_act_fake(&l.act, x, ROWS, 64, fake);
	for (i = 0; i < OUT * 64; i++)
		norm += (double)c.deq[i] * c.deq[i];
	for (t = 0; t < ROWS; t++) {
		double off = 0, in = 0;

		for (i = 0; i < OUT; i++)
			off += pow((double)y[t * OUT + i] - exact[t * OUT + i], 2);
		for (i = 0; i < 64; i++)
			in += (double)fake[t * 64 + i] * fake[t * 64 + i];
		assert_true(off > 0 && off <= c.e.bytes * norm * in);
		worst = fmax(worst, off / (c.e.bytes * norm * in));
	}
	print_message("# figure: NF4, integer against exact product: squared difference at most "
		      "%.3f of the bound by the error of the bytes, %.3g\n",
		      worst, c.e.bytes);
	nf_drop(&c);
}

static void a_linear_without_weight_is_refused(void **state)
{
	struct vq_linear l = {.n_out = OUT, .n_in = IN, .act = {.bits = 16}};
	struct vq_err err = {0};

	(void)state;
	assert_int_equal(vq_linear_one(&l, x, 1, y, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "no weight"));
}

/* (x T)(W T)^T = x W^T for an orthogonal T, and the two linears that name the same transform share its work. */
static void a_transformed_linear_gives_the_product(void **state)
{
	static float out[2][ROWS * OUT], wt[OUT * IN], scale[IN], back[IN];
	struct vq_transform t = {IN, 8, scale, NULL}, u = t;
	struct vq_linear plain = {.n_out = OUT,
				  .n_in = IN,
				  .dtype = VQ_F32,
				  .w = w,
				  .bias = bias,
				  .act = {.bits = 16}},
			 l = plain;
	struct vq_err err = {0};
	int i;

	(void)state;
	fill();
	for (i = 0; i < IN; i++) {
		scale[i] = i % 3 ? 0.5f : -2.0f;
		back[i] = 1 / scale[i];
	}
	u.scale = back;
	vq_transform_rows(&u, w, OUT, wt);
	l.w = wt;
	l.transform = &t;
	assert_int_equal(vq_linear_apply((const struct vq_linear *[]){&plain, &l}, 2, x, ROWS,
					 (float *[]){out[0], out[1]}, &err),
			 VQ_OK);
	for (i = 0; i < ROWS * OUT; i++)
		assert_float_equal(out[0][i], out[1][i], 1e-4);
}

/* Packed, with 8-bit inputs: the product with the floats that the codes stand for, and the float product within what
 * eight bits lose.  One matrix a block of 24, and Hadamard. */
static void a_packed_linear_with_a_transform_computes_on_transformed_integers(void **state)
{
	static const struct vq_wgrid grid = {4, 24, 0};
	static float scale[IN], m[IN * 24], xt[ROWS * IN], deq[OUT * IN];
	const struct vq_transform kinds[] = {
		{IN, 8, scale, NULL}, {IN, 24, scale, m}, {IN, 0, scale, NULL}};
	struct vq_rng r = vq_rng_new(12, "linear");
	struct vq_err err = {0};
	size_t i, k;

	(void)state;
	fill();
	for (i = 0; i < IN; i++)
		scale[i] = i % 5 ? 0.5f : -1.5f;
	for (i = 0; i < IN * 24; i++)
		m[i] = (float)vq_rng_normal(r, i) / 5;
	for (k = 0; k < 3; k++) {
		struct vq_linear l = {
			.n_out = OUT, .n_in = IN, .bias = bias, .transform = &kinds[k]};
		struct vq_packed p;

		pack(&grid, &p, deq);
		l.packed = &p;
		l.act = (struct vq_agrid){.bits = 8, .clip = 1};
		vq_transform_rows(&kinds[k], x, ROWS, xt);
		vq_act_fake(&l.act, xt, ROWS, IN, fake);
		assert_int_equal(vq_linear_one(&l, x, ROWS, y, &err), VQ_OK);
		assert_true(error_of(fake, deq, ROWS) < 1e-4);
		l.act.bits = 16;
		assert_int_equal(vq_linear_one(&l, x, ROWS, y, &err), VQ_OK);
		assert_true(error_of(xt, deq, ROWS) < 1e-4);
		unpack(&p);
	}
}

static int n_transforms;

static void counted(const struct vq_transform *t, const float *in, size_t n_rows, float *out)
{
#pragma omp atomic
	n_transforms += (int)n_rows;
	vq_kernels_generic.transform(t, in, n_rows, out);
}

/* The same numbers at another address are another transform, of which the result is the same. */
static void linears_that_name_the_same_transform_share_it(void **state)
{
	static float scale[IN], z[4][ROWS * OUT], deq[OUT * IN];
	static const struct vq_wgrid grid = {4, 24, 0};
	struct vq_transform t = {IN, 8, scale, NULL}, u = t;
	struct vq_linear a = {.n_out = OUT,
			      .n_in = IN,
			      .bias = bias,
			      .act = {.bits = 4, .group = 24, .clip = 1}},
			 b, c;
	struct vq_kernels kernels = *vq_kernels_get();
	struct vq_err err = {0};
	struct vq_packed p;
	int i;

	(void)state;
	fill();
	for (i = 0; i < IN; i++)
		scale[i] = i % 5 ? 0.5f : -1.5f;
	pack(&grid, &p, deq);
	a.packed = &p;
	kernels.transform = counted;
	vq_kernels_use(&kernels);
	b = a;
	a.transform = &t;
	c = a;
	c.transform = &u;
	assert_int_equal(vq_linear_apply((const struct vq_linear *[]){&a, &a, &b, &c}, 4, x, ROWS,
					 (float *[]){z[0], z[1], z[2], z[3]}, &err),
			 VQ_OK);
	vq_kernels_use(NULL);
	assert_int_equal(n_transforms, 2 * ROWS);
	assert_memory_equal(z[0], z[1], sizeof(y));
	assert_memory_equal(z[0], z[3], sizeof(y));
	assert_int_equal(vq_linear_one(&b, x, ROWS, y, &err), VQ_OK);
	assert_memory_equal(z[2], y, sizeof(y));
	assert_true(memcmp(z[2], z[0], sizeof(y)) != 0);
	unpack(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(float_weights_of_every_type),
		cmocka_unit_test(packed_weights_with_float_and_integer_activations),
		cmocka_unit_test(a_residual_is_what_y_held_plus_the_linear),
		cmocka_unit_test(the_simulated_path_quantizes_the_input),
		cmocka_unit_test(linears_that_share_an_input_may_differ_in_grid),
		cmocka_unit_test(stored_ranges_give_the_product_of_what_they_stand_for),
		cmocka_unit_test(a_transformed_linear_gives_the_product),
		cmocka_unit_test(a_packed_linear_with_a_transform_computes_on_transformed_integers),
		cmocka_unit_test(linears_that_name_the_same_transform_share_it),
		cmocka_unit_test(nf4_rows_are_dequantized_to_the_bit),
		cmocka_unit_test(integer_rows_are_dequantized_to_the_bit),
		cmocka_unit_test(nf4_weights_with_float_exact_and_straddling_products),
		cmocka_unit_test(the_integer_product_of_nf4_is_off_by_no_more_than_its_error),
		cmocka_unit_test(a_linear_without_weight_is_refused),
	};

	return cmocka_run_group_tests_name("linear", tests, NULL, NULL);
}
