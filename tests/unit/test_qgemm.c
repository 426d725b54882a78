/* kernel/qgemm: integer products, every kernel set against the definition. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "kernel/cpu.h"
#include "kernel/ranges.h"
#include "emulated.h"

/* A block whose end touches a page that may not be read. */
struct guarded {
	uint8_t *base, *p;
	size_t total;
};

static struct guarded guarded_alloc(size_t n)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (n + page - 1) / page * page;
	struct guarded g = {.total = body + page};

	g.base = mmap(NULL, g.total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(g.base != MAP_FAILED);
	assert_int_equal(mprotect(g.base + body, page, PROT_NONE), 0);
	g.p = g.base + body - n;
	return g;
}

/* A product with random codes.  pow2: scales are powers of two, so that float sums are exact. */
struct problem {
	uint32_t n_out, n_in, rows;
	struct vq_agrid ag;
	struct vq_packed w;
	struct vq_qact a;
	uint8_t *codes, *zero; /* [n_out, n_in], [n_out, n_groups] */
	uint16_t *scale;
	float *x, *bias;
	struct guarded planes, pscale, pzero, pabsmax;
	float value[16], *absmax; /* with a table */
};

static void make(struct problem *p, uint32_t wbits, uint32_t wgroup, int wsym, uint32_t abits,
		 uint32_t agroup, int asym, uint32_t n_out, uint32_t n_in, uint32_t rows, int pow2)
{
	struct vq_rng r = vq_rng_new(wbits * 1000003 + n_in * 101 + n_out, "test");
	uint32_t ng = wgroup == 0 || wgroup >= n_in ? 1 : vq_ceil_div(n_in, wgroup);
	size_t i, n_codes = (size_t)n_out * n_in, n_scales = (size_t)n_out * ng;

	memset(p, 0, sizeof(*p));
	p->n_out = n_out;
	p->n_in = n_in;
	p->rows = rows;
	p->ag = (struct vq_agrid){.bits = abits, .group = agroup, .sym = asym, .clip = 1};
	p->codes = vq_alloc(n_codes, 1, NULL);
	p->scale = vq_alloc(n_scales, 2, NULL);
	p->zero = vq_alloc(n_scales, 1, NULL);
	p->x = vq_alloc_f32((size_t)rows * n_in, NULL);
	p->bias = vq_alloc_f32(n_out, NULL);
	for (i = 0; i < n_codes; i++)
		p->codes[i] = vq_rng_u64(r, i) & ((1u << wbits) - 1);
	for (i = 0; i < n_scales; i++) {
		p->scale[i] = vq_f32_to_f16(pow2 ? 0x1p-4f : 0.01f + (float)vq_rng_uniform(r, i));
		p->zero[i] = vq_rng_u64(r, i * 3) & ((1u << wbits) - 1);
	}
	for (i = 0; i < (size_t)rows * n_in; i++)
		p->x[i] = (float)vq_rng_normal(r, i);
	for (i = 0; i < n_out; i++)
		p->bias[i] = (float)vq_rng_normal(r, i + 77);
	p->planes = guarded_alloc(vq_packed_plane_bytes(wbits, n_out, n_in));
	p->pscale = guarded_alloc(vq_packed_n_scales(n_out, ng) * 2);
	p->pzero = guarded_alloc(vq_packed_n_scales(n_out, ng));
	vq_pack_codes(wbits, p->codes, n_out, n_in, p->planes.p);
	vq_pack_scales(p->scale, n_out, ng, (uint16_t *)(void *)p->pscale.p);
	vq_pack_zeros(p->zero, n_out, ng, p->pzero.p);
	p->w = (struct vq_packed){.n_out = n_out,
				  .n_in = n_in,
				  .bits = wbits,
				  .group = wgroup,
				  .n_groups = ng,
				  .sym = wsym,
				  .planes = p->planes.p,
				  .scale = (const uint16_t *)(const void *)p->pscale.p,
				  .zero = wsym ? NULL : p->pzero.p};
	assert_int_equal(vq_qact_alloc(&p->a, rows, n_in, &p->ag, NULL), VQ_OK);
	vq_act_quantize(&p->ag, p->x, &p->a);
	for (i = 0; pow2 && i < (size_t)rows * p->a.n_groups; i++)
		p->a.scale[i] = 0x1p-3f;
}

static void drop(struct problem *p)
{
	munmap(p->planes.base, p->planes.total);
	munmap(p->pscale.base, p->pscale.total);
	munmap(p->pzero.base, p->pzero.total);
	if (p->absmax)
		munmap(p->pabsmax.base, p->pabsmax.total);
	vq_free(p->absmax);
	vq_qact_free(&p->a);
	vq_free(p->codes);
	vq_free(p->scale);
	vq_free(p->zero);
	vq_free(p->x);
	vq_free(p->bias);
}

/* The same codes, but standing for the values of a random table. */
static void make_table(struct problem *p, uint32_t wbits, uint32_t abits, uint32_t agroup, int asym,
		       uint32_t n_out, uint32_t n_in, uint32_t rows)
{
	struct vq_rng r = vq_rng_new(wbits, "table");
	size_t i, n;

	make(p, wbits, 64, 1, abits, agroup, asym, n_out, n_in, rows, 0);
	n = (size_t)n_out * p->w.n_groups;
	p->absmax = vq_alloc_f32(n, NULL);
	for (i = 0; i < n; i++)
		p->absmax[i] = (float)vq_rng_normal(r, i);
	p->pabsmax = guarded_alloc(vq_packed_n_scales(n_out, p->w.n_groups) * sizeof(float));
	vq_pack_absmax(p->absmax, n_out, p->w.n_groups, (float *)(void *)p->pabsmax.p);
	for (i = 0; i < 1u << wbits; i++) {
		p->value[i] = 2 * (float)vq_rng_uniform(r, 100000 + i) - 1;
		p->value[i] = i == 0 ? -1 : i + 1 == 1u << wbits ? 1 : p->value[i];
		p->w.byte[i] = (uint8_t)(128 + (int)vq_rne(127 * p->value[i]));
	}
	p->w.value = p->value;
	p->w.absmax = (const float *)(const void *)p->pabsmax.p;
	p->w.scale = NULL;
}

enum { BIAS = 1, ADD = 2 };

/* What y holds before a product is added to it. */
static float residual(size_t i)
{
	return (float)(i % 1009) / 7 - 70;
}

/* Runs into a block that ends at a guard page. */
static struct guarded run(const struct problem *p, const struct vq_kernels *k, int how)
{
	size_t n = (size_t)p->rows * p->n_out, i;
	struct guarded g = guarded_alloc(n * sizeof(float));
	float *y = (float *)(void *)g.p;

	for (i = 0; i < n; i++)
		y[i] = how & ADD ? residual(i) : NAN;
	vq_kernels_use(k);
	assert_int_equal(
		vq_qgemm(&p->w, &p->a, &p->ag, how & BIAS ? p->bias : NULL, how & ADD, y, NULL),
		VQ_OK);
	return g;
}

static size_t n_compared;

/* Every set that this CPU runs, against generic; with and without a bias and a residual in turn. */
static void compare(const struct problem *p)
{
	static int n_calls;
	size_t bytes = (size_t)p->rows * p->n_out * sizeof(float);
	int how = n_calls++ % 4;
	struct guarded want = run(p, &vq_kernels_generic, how);
	uint32_t i;

	for (i = 1; vq_kernels_row(i); i++)
		if (vq_kernels_row(i)->runs()) {
			struct guarded y = run(p, vq_kernels_row(i), how);

			assert_memory_equal(want.p, y.p, bytes);
			munmap(y.base, y.total);
			n_compared += bytes / sizeof(float);
		}
	munmap(want.base, want.total);
}

/* Powers of two: every term and every sum is exact in double and in float (24 bits hold them). */
static void integer_sums_equal_the_product_of_dequantized_values(void **state)
{
	const uint32_t groups[][2] = {{0, 0}, {64, 64}, {128, 32}, {32, 128}, {0, 32}, {32, 0}};
	uint32_t wb, ab, j, which;
	size_t n_equal = 0;

	(void)state;
	for (which = 0; vq_kernels_row(which); which++)
		for (wb = 2; vq_kernels_row(which)->runs() && wb <= 8; wb++)
			for (ab = 2; ab <= 8; ab++)
				for (j = 0; j < 12; j++) {
					struct problem p;
					struct guarded g;
					uint32_t t, o, k, wg, ag;

					make(&p, wb, groups[j / 2][0], j % 2, ab, groups[j / 2][1],
					     (int)(wb % 2), 35, 70, 3, 1);
					g = run(&p, vq_kernels_row(which), 0);
					wg = p.w.group ? p.w.group : p.n_in;
					ag = p.ag.group ? p.ag.group : p.n_in;
					for (t = 0; t < 3; t++)
						for (o = 0; o < 35; o++) {
							double sum = 0;
							float y;

							for (k = 0; k < 70; k++) {
								int z = p.w.zero
										? p.zero[o * p.w.n_groups +
											 k / wg]
										: 1 << (wb - 1);
								int za = p.a.zero[t * p.a.n_groups +
										  k / ag];

								sum += 0x1p-4 *
								       (p.codes[o * 70 + k] - z) *
								       0x1p-3 *
								       (p.a.q[t * p.a.stride + k] -
									za);
							}
							memcpy(&y, g.p + 4 * (t * 35 + o), 4);
							assert_true((double)y == sum);
							n_equal++;
						}
					munmap(g.base, g.total);
					drop(&p);
				}
	print_message("# figure: integer products equal the float product exactly: %zu values\n",
		      n_equal);
}

static void every_kernel_set_gives_generics_bits_at_every_width(void **state)
{
	const uint32_t groups[][2] = {{128, 128}, {32, 128}, {128, 0}, {0, 64},
				      {0, 0},     {12, 24},  {6, 18}};
	uint32_t wb, ab, j;

	(void)state;
	for (wb = 2; wb <= 8; wb++)
		for (ab = 2; ab <= 8; ab++)
			for (j = 0; j < 7 * 4; j++) {
				struct problem p;

				make(&p, wb, groups[j / 4][0], j & 1, ab, groups[j / 4][1],
				     (int)(j >> 1 & 1), 45, 300, 5, 0);
				compare(&p);
				drop(&p);
			}
	print_message("# figure: kernel sets equal to generic at every width: %zu values\n",
		      n_compared);
}

static void every_kernel_set_gives_generics_bits_at_every_length(void **state)
{
	uint32_t n;

	(void)state;
	for (n = 0; n <= 300; n++) {
		struct problem p;
		uint32_t wb = 2 + n % 7, ab = 2 + n % 5;

		make(&p, wb, n % 3 ? 64 : 0, n % 2, ab, n % 5 ? 128 : 0, (int)(n / 2 % 2),
		     1 + n % 67, n, 1 + n % 3, 0);
		compare(&p);
		drop(&p);
	}
}

static void every_kernel_set_gives_generics_bits_for_any_number_of_rows(void **state)
{
	uint32_t rows;

	(void)state;
	for (rows = 1; rows <= 40; rows++) {
		struct problem p;

		make(&p, rows % 2 ? 4 : 6, 32, 0, 8, 64, 0, 33, 129, rows, 0);
		compare(&p);
		drop(&p);
		make(&p, 4, 128, 1, 4, 128, 1, 64, 256, rows, 0);
		compare(&p);
		drop(&p);
	}
}

/* The definition written out: bytes in place of values, segment after segment. */
static float table_value(const struct problem *p, uint32_t t, uint32_t o)
{
	uint32_t ag = p->ag.group ? p->ag.group : p->n_in, seg = ag < 64 ? ag : 64, s, k;
	float y = 0;

	for (s = 0; s < p->n_in; s += seg) {
		int za = p->a.zero[t * p->a.n_groups + s / ag], sum = 0;
		float sw = p->absmax[(size_t)o * p->w.n_groups + s / 64] * (1.0f / 127);

		for (k = s; k < s + seg; k++)
			sum += (p->w.byte[p->codes[(size_t)o * p->n_in + k]] - 128) *
			       (p->a.q[t * p->a.stride + k] - za);
		y = fmaf(p->a.scale[t * p->a.n_groups + s / ag] * sw, (float)sum, y);
	}
	return y;
}

static void codes_of_a_table_multiply_as_defined_in_every_kernel_set(void **state)
{
	static const uint32_t rows[] = {1, 2, 3, 4, 5, 12, 13, 40}, groups[] = {0, 128, 64, 32};
	uint32_t wb, ab, j, t, o, i;
	size_t before = n_compared;

	(void)state;
	for (wb = 2; wb <= 4; wb++)
		for (ab = 2; ab <= 8; ab += 2)
			for (j = 0; j < 64; j++) {
				uint32_t n = rows[j / 8];
				struct problem p;
				struct guarded g;

				make_table(&p, wb, ab, groups[j % 4], (int)(j / 4 % 2), 45, 320, n);
				g = run(&p, &vq_kernels_generic, 0);
				for (t = 0; t < n; t++)
					for (o = 0; o < 45; o++) {
						float y;

						memcpy(&y, g.p + 4 * (t * 45 + o), 4);
						assert_true(y == table_value(&p, t, o));
					}
				munmap(g.base, g.total);
				compare(&p);
				drop(&p);
			}
	for (i = 0; vq_kernels_row(i); i++)
		;
	print_message("# figure: products of a table, %u kernel sets: %zu values equal to "
		      "generic's, which equal the definition\n",
		      i, n_compared - before);
}

static void groups_that_straddle_rows_have_no_integer_product(void **state)
{
	struct problem p;
	struct vq_err err = {0};
	float y[64];

	(void)state;
	make_table(&p, 4, 8, 64, 0, 8, 192, 1);
	p.w.straddles = 1;
	assert_int_equal(vq_qgemm(&p.w, &p.a, &p.ag, NULL, 0, y, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "straddle"));
	p.w.straddles = 0;
	p.w.bits = 5;
	assert_int_equal(vq_qgemm(&p.w, &p.a, &p.ag, NULL, 0, y, &err), VQ_E_DATA);
	drop(&p);
}

static void a_residual_and_a_bias_are_added_last(void **state)
{
	uint32_t n_in, i;

	(void)state;
	for (n_in = 0; n_in <= 260; n_in += 130) {
		struct problem p;
		struct guarded plain, both;

		make(&p, 4, 64, 0, 8, 128, 0, 45, n_in, 7, 0);
		plain = run(&p, &vq_kernels_generic, 0);
		both = run(&p, &vq_kernels_generic, BIAS | ADD);
		for (i = 0; i < 45 * 7; i++) {
			float sum = ((const float *)(void *)plain.p)[i] + p.bias[i % 45];

			assert_true(((const float *)(void *)both.p)[i] == residual(i) + sum);
		}
		munmap(plain.base, plain.total);
		munmap(both.base, both.total);
		compare(&p);
		drop(&p);
	}
}

/* Several blocks of segments and chunks of tokens; results so large that they go past the caches, or would if their rows
 * were whole lines.  In an emulator each shape and each grouping once, not all pairs. */
static void every_kernel_set_gives_generics_bits_for_large_products(void **state)
{
	static const uint32_t shapes[][3] = {/* out, in, rows */
					     {1056, 1100, 500},
					     {1057, 640, 500},
					     {64, 6000, 530}};
	static const uint32_t groups[][2] = {{128, 128}, {32, 32}, {0, 0}, {512, 128}};
	uint32_t i;

	(void)state;
	for (i = 0; i < 12; i++) {
		const uint32_t *m = shapes[i % 3], *g = groups[i / 3];
		struct problem p;

		if (emulated() && i % 3 != i / 3 % 3)
			continue;
		make(&p, i % 2 ? 4 : 6, g[0], 0, 8, g[1], 0, m[0], m[1], m[2], 0);
		compare(&p);
		drop(&p);
	}
}

/* f(gate + its bias) (y + bias) from two products and vq_activate, in generic; gate NULL: f(y + bias). */
static float *act_apart(const struct problem *p, const struct vq_qgemm_act *act)
{
	size_t n = (size_t)p->rows * p->n_out;
	float *y = vq_alloc_f32(n, NULL), *gate = vq_alloc_f32(n, NULL);

	vq_kernels_use(&vq_kernels_generic);
	assert_int_equal(vq_qgemm(&p->w, &p->a, &p->ag, p->bias, 0, y, NULL), VQ_OK);
	if (act->gate)
		assert_int_equal(vq_qgemm(act->gate, &p->a, &p->ag, act->gate_bias, 0, gate, NULL),
				 VQ_OK);
	vq_activate(act->f, act->gate ? gate : y, act->gate ? y : NULL, n, y);
	vq_free(gate);
	return y;
}

/* Chunks of tokens, blocks of segments, and results that go past the caches; in an emulator two of the four times. */
static void an_activation_function_follows_the_product_and_its_gate(void **state)
{
	static const uint32_t shapes[][5] = {/* out, in, rows, groups */
					     {45, 300, 3, 128, 128},
					     {45, 300, 30, 128, 128},
					     {1057, 96, 530, 32, 64},
					     {64, 72, 7, 6, 18},
					     {1056, 520, 520, 128, 0}};
	uint32_t i, k;

	(void)state;
	for (i = 0; i < 20; i++) {
		const uint32_t *m = shapes[i % 5];
		struct problem p;
		struct vq_packed gate;
		struct vq_qgemm_act act = {.f = i % VQ_N_ACT_FNS};
		float *want;

		if (emulated() && m[2] > 500 && i / 5 % 3 == 0)
			continue;
		make(&p, i < 10 ? 4 : 6, m[3], 0, 8, m[4], 0, m[0], m[1], m[2], 0);
		gate = p.w;
		gate.sym = 1; /* another weight: the same codes about their middle */
		gate.zero = NULL;
		act.gate = i / 5 % 2 ? &gate : NULL;
		act.gate_bias = i / 10 ? p.bias + 1 : NULL;
		if (act.gate_bias) /* one more than the row has */
			p.n_out = p.w.n_out = gate.n_out = m[0] - 1;
		want = act_apart(&p, &act);
		for (k = 0; vq_kernels_row(k); k++)
			if (vq_kernels_row(k)->runs()) {
				size_t bytes = (size_t)p.rows * p.n_out * sizeof(float);
				struct guarded y = guarded_alloc(bytes);

				vq_kernels_use(vq_kernels_row(k));
				assert_int_equal(vq_qgemm_act(&p.w, &p.a, &p.ag, p.bias, &act,
							      (float *)(void *)y.p, NULL),
						 VQ_OK);
				assert_memory_equal(y.p, want, bytes);
				munmap(y.base, y.total);
			}
		vq_free(want);
		drop(&p);
	}
}

static void every_job_is_taken_by_one_thread(void **state)
{
	static const uint32_t n_jobs[] = {0, 1, 3, 64, 100001};
	uint32_t n_threads, i, k;

	(void)state;
	for (i = 0; i < 5; i++)
		for (n_threads = 1; n_threads <= 4; n_threads++) {
			uint8_t *taken = vq_calloc(n_jobs[i], 1, NULL);
			struct vq_ranges r;

			vq_ranges_set(&r, n_threads, n_jobs[i]);
#pragma omp parallel num_threads(n_threads)
			{
				uint32_t job;

				while (vq_ranges_take(&r, (uint32_t)omp_get_thread_num(), &job)) {
#pragma omp atomic
					taken[job]++;
				}
			}
			for (k = 0; k < n_jobs[i]; k++)
				assert_int_equal(taken[k], 1);
			vq_free(taken);
		}
}

/* The largest sums that a segment may have, in a segment too long for 16-bit corrections. */
static void extreme_codes_do_not_overflow(void **state)
{
	const uint32_t lengths[] = {128, 132, 516, 33024};
	uint32_t i, c;

	(void)state;
	for (i = 0; i < 4; i++)
		for (c = 0; c < 4; c++) {
			struct problem p;
			size_t k;

			make(&p, 8, 0, 0, 8, 0, 0, 33, lengths[i], 2, 0);
			for (k = 0; k < (size_t)33 * lengths[i]; k++)
				p.codes[k] = c & 1 ? 255 : 0;
			for (k = 0; k < 33; k++)
				p.zero[k] = c & 1 ? 0 : 255;
			vq_pack_codes(8, p.codes, 33, lengths[i], p.planes.p);
			vq_pack_zeros(p.zero, 33, 1, p.pzero.p);
			for (k = 0; k < 2; k++) {
				memset(p.a.q + k * p.a.stride, c & 2 ? 127 : -128, lengths[i]);
				p.a.zero[k] = c & 2 ? -128 : 127;
			}
			compare(&p);
			drop(&p);
		}
}

static void the_number_of_threads_does_not_show(void **state)
{
	uint32_t which;
	int n;

	(void)state;
	for (which = 0; vq_kernels_row(which); which++) {
		const struct vq_kernels *k = vq_kernels_row(which);
		struct problem p;
		struct guarded one, y;

		if (!k->runs())
			continue;
		make(&p, 4, 64, 0, 8, 128, 0, 200, 384, 50, 0);
		omp_set_num_threads(1);
		one = run(&p, k, BIAS);
		for (n = 2; n <= 4; n++) {
			omp_set_num_threads(n);
			y = run(&p, k, BIAS);
			assert_memory_equal(one.p, y.p, 200 * 50 * sizeof(float));
			munmap(y.base, y.total);
		}
		munmap(one.base, one.total);
		drop(&p);
	}
}

static void takes(const struct problem *p, const struct vq_kernels *k, const struct guarded *want)
{
	struct guarded y = run(p, k, BIAS);

	assert_memory_equal(want->p, y.p, (size_t)p->rows * p->n_out * sizeof(float));
	munmap(y.base, y.total);
}

/* The second product has segments as the first, the third has shorter ones, and the last as the third. */
static void what_a_product_keeps_for_the_next_changes_nothing(void **state)
{
	const uint32_t sizes[] = {1, 5, 12, 65}, abits[] = {4, 8};
	uint32_t i, j, which;

	(void)state;
	for (i = 0; i < 4; i++)
		for (j = 0; j < 2; j++) {
			struct problem p, q;
			struct guarded long_segments, short_segments;

			make(&p, 4, 128, 0, abits[j], 0, 0, 70, 300, sizes[i], 0);
			make(&q, 6, 64, 0, abits[j], 0, 0, 40, 300, sizes[i], 0);
			vq_qact_free(&q.a);
			q.a = p.a;
			long_segments = run(&p, &vq_kernels_generic, BIAS);
			short_segments = run(&q, &vq_kernels_generic, BIAS);
			for (which = 0; vq_kernels_row(which); which++) {
				const struct vq_kernels *k = vq_kernels_row(which);
				struct vq_kept kept = {0};

				if (!k->runs())
					continue;
				p.a.kept = q.a.kept = &kept;
				takes(&p, k, &long_segments);
				takes(&p, k, &long_segments);
				takes(&q, k, &short_segments);
				takes(&q, k, &short_segments);
				assert_true((kept.data != NULL) == (which > 0));
				vq_free(kept.data);
			}
			munmap(long_segments.base, long_segments.total);
			munmap(short_segments.base, short_segments.total);
			memset(&q.a, 0, sizeof(q.a));
			drop(&q);
			drop(&p);
		}
}

static void what_cannot_be_multiplied_is_refused(void **state)
{
	struct problem p;
	struct vq_err err = {0};
	float y[64];

	(void)state;
	make(&p, 4, 48, 0, 8, 64, 0, 8, 192, 1, 0); /* 48 and 64 */
	assert_int_equal(vq_qgemm(&p.w, &p.a, &p.ag, NULL, 0, y, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "48"));
	drop(&p);
	make(&p, 8, 0, 0, 8, 0, 0, 1, 33100, 1, 0);
	err = (struct vq_err){0};
	assert_int_equal(vq_qgemm(&p.w, &p.a, &p.ag, NULL, 0, y, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "33100"));
	p.a.n = 5;
	err = (struct vq_err){0};
	assert_int_equal(vq_qgemm(&p.w, &p.a, &p.ag, NULL, 0, y, &err), VQ_E_DATA);
	drop(&p);
}

static void an_unknown_kernel_set_is_refused_with_those_that_run(void **state)
{
	struct vq_err err = {0};

	(void)state;
	assert_int_equal(setenv("VQLM_CPU", "pentium", 1), 0);
	assert_int_equal(vq_cpu_check(&err), VQ_E_USAGE);
	assert_non_null(strstr(err.text, "generic"));
	assert_non_null(strstr(err.text, "pentium"));
	assert_int_equal(setenv("VQLM_CPU", "generic", 1), 0);
	assert_int_equal(vq_cpu_check(&err), VQ_OK);
	vq_kernels_use(NULL);
	assert_string_equal(vq_cpu_name(), "generic");
	unsetenv("VQLM_CPU");
	vq_kernels_use(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(integer_sums_equal_the_product_of_dequantized_values),
		cmocka_unit_test(every_kernel_set_gives_generics_bits_at_every_width),
		cmocka_unit_test(every_kernel_set_gives_generics_bits_at_every_length),
		cmocka_unit_test(every_kernel_set_gives_generics_bits_for_any_number_of_rows),
		cmocka_unit_test(codes_of_a_table_multiply_as_defined_in_every_kernel_set),
		cmocka_unit_test(groups_that_straddle_rows_have_no_integer_product),
		cmocka_unit_test(every_kernel_set_gives_generics_bits_for_large_products),
		cmocka_unit_test(an_activation_function_follows_the_product_and_its_gate),
		cmocka_unit_test(every_job_is_taken_by_one_thread),
		cmocka_unit_test(a_residual_and_a_bias_are_added_last),
		cmocka_unit_test(extreme_codes_do_not_overflow),
		cmocka_unit_test(the_number_of_threads_does_not_show),
		cmocka_unit_test(what_a_product_keeps_for_the_next_changes_nothing),
		cmocka_unit_test(what_cannot_be_multiplied_is_refused),
		cmocka_unit_test(an_unknown_kernel_set_is_refused_with_those_that_run),
	};

	omp_set_num_threads(1); /* thousands of small products: threads would only wait */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
