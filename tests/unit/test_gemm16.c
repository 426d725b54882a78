/* kernel/gemm16: float products, every kernel set against the definition. */
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
#include "kernel/gemm16.h"

static const enum vq_dtype types[] = {VQ_F32, VQ_F16, VQ_BF16};

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

static void guarded_free(struct guarded *g)
{
	munmap(g->base, g->total);
}

/* A product with random numbers: x, w, bias and y all end where memory ends; w stands at an odd address. */
struct problem {
	uint32_t n, n_in, n_out;
	enum vq_dtype type;
	struct guarded x, w, bias, y;
	float *wf;   /* w as float32 */
	float *old;  /* what y holds before */
	float *want; /* by definition */
};

static float number(struct vq_rng r, size_t i)
{
	return (float)vq_rng_normal(r, i);
}

static void make(struct problem *p, uint32_t n, uint32_t n_in, uint32_t n_out, enum vq_dtype type)
{
	struct vq_rng r = vq_rng_new(n * 7919 + n_in * 31 + n_out, "gemm16");
	size_t size = vq_dtype_size(type), i, n_w = (size_t)n_in * n_out;

	*p = (struct problem){.n = n, .n_in = n_in, .n_out = n_out, .type = type};
	p->x = guarded_alloc((size_t)n * n_in * 4);
	p->w = guarded_alloc(n_w * size + 1);
	p->bias = guarded_alloc((size_t)n_out * 4);
	p->y = guarded_alloc((size_t)n * n_out * 4);
	p->wf = vq_alloc_f32(n_w, NULL);
	p->old = vq_alloc_f32((size_t)n * n_out, NULL);
	p->want = vq_alloc_f32((size_t)n * n_out, NULL);
	assert_true(p->wf && p->old && p->want);
	for (i = 0; i < (size_t)n * n_in; i++)
		((float *)(void *)p->x.p)[i] = number(r, i);
	for (i = 0; i < n_w; i++) {
		float f = number(r, i + 100000000);
		uint16_t h = type == VQ_F16 ? vq_f32_to_f16(f) : vq_f32_to_bf16(f);

		memcpy(p->w.p + i * size, size == 4 ? (void *)&f : (void *)&h, size);
		p->wf[i] = type == VQ_F32   ? f
			   : type == VQ_F16 ? vq_f16_to_f32(h)
					    : vq_bf16_to_f32(h);
	}
	for (i = 0; i < n_out; i++)
		((float *)(void *)p->bias.p)[i] = number(r, i + 200000000);
	for (i = 0; i < (size_t)n * n_out; i++)
		p->old[i] = number(r, i + 300000000);
}

static void drop(struct problem *p)
{
	guarded_free(&p->x);
	guarded_free(&p->w);
	guarded_free(&p->bias);
	guarded_free(&p->y);
	vq_free(p->wf);
	vq_free(p->old);
	vq_free(p->want);
}

static const float *floats(const struct guarded *g)
{
	return (const float *)(const void *)g->p;
}

/* gemm16.h: what is said of float32. */
static float defined(const struct problem *p, uint32_t t, uint32_t o)
{
	const float *x = floats(&p->x) + (size_t)t * p->n_in, *w = p->wf + (size_t)o * p->n_in;
	uint32_t lanes = p->n <= VQ_GEMM_FEW ? 32 : 1, k;
	float sum[32] = {0};

	for (k = 0; k < p->n_in; k++)
		sum[k % lanes] = fmaf(x[k], w[k], sum[k % lanes]);
	for (; lanes > 1; lanes /= 2)
		for (k = 0; k < lanes / 2; k++)
			sum[k] += sum[k + lanes / 2];
	return sum[0];
}

static void define(struct problem *p, int bias, int add)
{
	uint32_t t, o;

	for (t = 0; t < p->n; t++)
		for (o = 0; o < p->n_out; o++) {
			size_t i = (size_t)t * p->n_out + o;
			float v = defined(p, t, o);

			if (bias)
				v += floats(&p->bias)[o];
			p->want[i] = add ? p->old[i] + v : v;
		}
}

/* y of the problem as the set in use has it. */
static const float *run(struct problem *p, enum vq_gemm_way way, int bias, int add)
{
	struct vq_err err = {0};
	struct vq_gemm g = {.n_out = p->n_out,
			    .n_in = p->n_in,
			    .type = p->type,
			    .w = p->w.p,
			    .bias = bias ? floats(&p->bias) : NULL,
			    .add = add,
			    .way = way};

	memcpy(p->y.p, p->old, (size_t)p->n * p->n_out * 4);
	assert_int_equal(vq_gemm_run(&g, floats(&p->x), p->n, (float *)(void *)p->y.p, &err),
			 VQ_OK);
	return floats(&p->y);
}

static void same(const float *a, const float *b, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (vq_f32_bits(a[i]) != vq_f32_bits(b[i]))
			fail_msg("%zu: %.9g, not %.9g", i, a[i], b[i]);
}

/* Calls f for every set that runs here. */
static void each_set(void (*f)(void))
{
	uint32_t i;

	for (i = 0; vq_kernels_row(i); i++)
		if (vq_kernels_row(i)->runs()) {
			vq_kernels_use(vq_kernels_row(i));
			f();
		}
	vq_kernels_use(NULL);
}

static void check_exact(uint32_t n, uint32_t n_in, uint32_t n_out, enum vq_dtype type)
{
	struct problem p;
	int bias = n_in % 2 == 0, add = n_in % 3 == 0;

	make(&p, n, n_in, n_out, type);
	define(&p, bias, add);
	same(run(&p, VQ_GEMM_FLOAT32, bias, add), p.want, (size_t)n * n_out);
	drop(&p);
}

static void exact_lengths(void)
{
	static const uint32_t tokens[] = {1, 4, 5, 3, 13, 2}, outs[] = {1, 33, 17, 32, 45, 8};
	uint32_t n_in, t;

	for (t = 0; t < 3; t++)
		for (n_in = 0; n_in <= 300; n_in++)
			check_exact(tokens[(n_in + t) % 6], n_in, outs[(n_in / 2 + t) % 6],
				    types[t]);
}

static void test_float32_lengths(void **state)
{
	(void)state;
	each_set(exact_lengths);
}

/* Tiles, chunks, slabs and blocks end inside. */
static void exact_shapes(void)
{
	uint32_t t;

	for (t = 1; t <= 30; t++)
		check_exact(t, 40, 37, types[t % 3]);
	check_exact(1000, 30, 65, VQ_F16);
	check_exact(1930, 9, 33, VQ_BF16);
	check_exact(20, 1111, 33, VQ_F16);
	check_exact(500, 521, 5, VQ_F32);
	check_exact(0, 9, 33, VQ_F16);
}

static void test_float32_shapes(void **state)
{
	(void)state;
	each_set(exact_shapes);
}

/* The double of what bf16 stands for, and sum |x w|. */
static double rounded(const struct problem *p, uint32_t t, uint32_t o, double *size)
{
	const float *x = floats(&p->x) + (size_t)t * p->n_in, *w = p->wf + (size_t)o * p->n_in;
	double sum = 0;
	uint32_t k;

	for (*size = 0, k = 0; k < p->n_in; k++) {
		double v = (double)vq_bf16_to_f32(vq_f32_to_bf16(x[k])) *
			   vq_bf16_to_f32(vq_f32_to_bf16(w[k]));

		sum += v;
		*size += fabs(v);
	}
	return sum;
}

static void check_bf16(uint32_t n, uint32_t n_in, uint32_t n_out, enum vq_dtype type)
{
	struct problem p;
	const float *y;
	uint32_t t, o;

	make(&p, n, n_in, n_out, type);
	define(&p, 0, 0);
	y = run(&p, VQ_GEMM_BF16, 0, 0);
	for (t = 0; t < n; t++)
		for (o = 0; o < n_out; o++, y++) {
			double size, sum = rounded(&p, t, o, &size);
			double exact = (double)p.want[t * n_out + o];

			if (fabs(*y - sum) > n_in * 0x1p-23 * size)
				fail_msg("%u inputs, token %u, output %u: %g, not %g", n_in, t, o,
					 *y, sum);
			assert_true(fabs(*y - exact) <= pow(2, -7.9) * size * 1.01);
		}
	drop(&p);
}

static void test_bf16(void **state)
{
	uint32_t n_in, t;

	(void)state;
	if (!vq_gemm_has_bf16()) {
		skip();
		return;
	}
	for (t = 1; t < 3; t++)
		for (n_in = 0; n_in <= 300; n_in++)
			check_bf16(1 + n_in % 14, n_in, 1 + n_in % 40, types[t]);
	check_bf16(25, 1500, 33, VQ_F16);
	check_bf16(1000, 30, 65, VQ_BF16);
	check_bf16(600, 1030, 5, VQ_F16);
}

/* Sets without such products, and float32 weights, give what float32 gives. */
static void falls_back(void)
{
	uint32_t i;

	for (i = 0; i < 3; i++) {
		struct problem p;

		make(&p, 7, 100, 20, types[i]);
		define(&p, 1, 0);
		if (i == 0 || !vq_gemm_has_bf16())
			same(run(&p, VQ_GEMM_BF16, 1, 0), p.want, 140);
		drop(&p);
	}
}

static void test_falls_back(void **state)
{
	(void)state;
	each_set(falls_back);
}

/* Bias and the old y are added to what a product without them gives. */
static void bias_and_add(void)
{
	static const uint32_t tokens[] = {3, 20};
	struct problem p;
	int way, bias, add, i;
	uint32_t j;
	float *plain;

	for (i = 0; i < 2; i++) {
		make(&p, tokens[i], 70, 41, VQ_F16);
		plain = vq_alloc_f32((size_t)p.n * p.n_out, NULL);
		assert_non_null(plain);
		for (way = 0; way < 2; way++) {
			memcpy(plain, run(&p, (enum vq_gemm_way)way, 0, 0),
			       (size_t)p.n * p.n_out * 4);
			for (bias = 0; bias < 2; bias++)
				for (add = 0; add < 2; add++) {
					for (j = 0; j < p.n * p.n_out; j++) {
						float v = plain[j];

						if (bias)
							v += floats(&p.bias)[j % p.n_out];
						p.want[j] = add ? p.old[j] + v : v;
					}
					same(run(&p, (enum vq_gemm_way)way, bias, add), p.want,
					     (size_t)p.n * p.n_out);
				}
		}
		vq_free(plain);
		drop(&p);
	}
}

static void test_bias_and_add(void **state)
{
	(void)state;
	each_set(bias_and_add);
}

static void threads_and_rows(void)
{
	static const uint32_t tokens[] = {3, 500}; /* of one job, of two */
	int way, threads, i;

	for (i = 0; i < 2; i++)
		for (way = 0; way < 2; way++) {
			struct problem p;
			float *one;

			make(&p, tokens[i], 530, 260, VQ_F16);
			one = vq_alloc_f32((size_t)p.n * p.n_out, NULL);
			assert_non_null(one);
			omp_set_num_threads(1);
			memcpy(one, run(&p, (enum vq_gemm_way)way, 1, 0),
			       (size_t)p.n * p.n_out * 4);
			for (threads = 2; threads <= 4; threads++) {
				omp_set_num_threads(threads);
				same(run(&p, (enum vq_gemm_way)way, 1, 0), one,
				     (size_t)p.n * p.n_out);
			}
			p.n = i ? 11 : 1; /* the first rows alone */
			same(run(&p, (enum vq_gemm_way)way, 1, 0), one, (size_t)p.n * p.n_out);
			vq_free(one);
			drop(&p);
		}
}

static void test_threads_and_rows(void **state)
{
	int before = omp_get_max_threads();

	(void)state;
	each_set(threads_and_rows);
	omp_set_num_threads(before);
}

static void half_of(const void *w, size_t first, uint32_t n, uint32_t n_in, float *out)
{
	size_t i;

	for (i = 0; i < (size_t)n * n_in; i++)
		out[i] = ((const float *)w)[first * n_in + i] * 0.5f;
}

/* A weight that a function reads is a float32 weight. */
static void own_rows(void)
{
	static const uint32_t tokens[] = {2, 15};
	struct vq_err err = {0};
	int i;

	for (i = 0; i < 2; i++) {
		struct problem p;
		struct vq_gemm g;
		uint32_t j;

		make(&p, tokens[i], 300, 75, VQ_F32);
		define(&p, 0, 0);
		g = (struct vq_gemm){.n_out = p.n_out, .n_in = p.n_in, .rows = half_of, .w = p.wf};
		assert_int_equal(vq_gemm_run(&g, floats(&p.x), p.n, (float *)(void *)p.y.p, &err),
				 VQ_OK);
		for (j = 0; j < p.n * p.n_out; j++)
			p.want[j] *= 0.5f;
		same(floats(&p.y), p.want, (size_t)p.n * p.n_out);
		drop(&p);
	}
}

static void test_own_rows(void **state)
{
	(void)state;
	each_set(own_rows);
}

static void test_refused(void **state)
{
	struct vq_err err = {0};
	float x = 1, y = 7;

	(void)state;
	assert_int_equal(vq_gemm(&x, 1, &x, VQ_U8, 1, 1, NULL, &y, &err), VQ_E_DATA);
	assert_string_equal(err.text, "product: want f32, f16 or bf16 weights, got u8");
	assert_true(y == 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_float32_lengths),
		cmocka_unit_test(test_float32_shapes),
		cmocka_unit_test(test_bf16),
		cmocka_unit_test(test_falls_back),
		cmocka_unit_test(test_bias_and_add),
		cmocka_unit_test(test_own_rows),
		cmocka_unit_test(test_threads_and_rows),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests_name("gemm16", tests, NULL, NULL);
}
