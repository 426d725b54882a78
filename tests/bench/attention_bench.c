/* Speed of attention beside the machine's limits: prefill and vision in GFLOP/s of what a row must read (4 T (T + 1) / 2 d
 * operations a head when causal, 4 T T d when not) beside the peak of float32 products, decode in GB/s of keys and
 * values beside what the same threads read from memory.  Medians of several runs; one thread on its processor
 * clock, several on the wall's. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kernel/cpu.h"
#include "kernel/ops.h"
#include "model/attention.h"

#define RUNS   7
#define DECODE 2048u
#define CACHE  ((size_t)192 << 20) /* bytes that decode goes through, more than any cache holds */

static int n_threads;

static double now(void)
{
	struct timespec t;

	if (n_threads > 1)
		return vq_now();
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *t)
{
	qsort(t, RUNS, sizeof(*t), by_value);
	return t[RUNS / 2];
}

static void *must(void *p)
{
	if (!p)
		exit(4);
	return p;
}

/* --- limits --- */

#if defined(__x86_64__)
/* Independent chains of products and sums, as many as keep both units busy; operations. */
#define SIX(op, a, b, c, d, e, f) \
	op #a "\n\t" op #b "\n\t" op #c "\n\t" op #d "\n\t" op #e "\n\t" op #f "\n\t"
#define CLOBBERS                                                                                   \
	"xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
		"xmm13"
#define MORE                                                                                      \
	"xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", \
		"xmm24", "xmm25"

__attribute__((target("avx512f"))) static double chains_512(long n)
{
	long i;

	__asm__ volatile("vpxorq %%zmm0, %%zmm0, %%zmm0\n\tvpxorq %%zmm1, %%zmm1, %%zmm1" ::
				 : "xmm0", "xmm1");
	for (i = 0; i < n; i++)
		__asm__ volatile(
			SIX("vfmadd231ps %%zmm0, %%zmm1, %%zmm", 2, 3, 4, 5, 6, 7) SIX(
				"vfmadd231ps %%zmm0, %%zmm1, %%zmm", 8, 9, 10, 11, 12,
				13) SIX("vfmadd231ps %%zmm0, %%zmm1, %%zmm", 14, 15, 16, 17, 18, 19)
				SIX("vfmadd231ps %%zmm0, %%zmm1, %%zmm", 20, 21, 22, 23, 24, 25)::
					: CLOBBERS, MORE);
	return (double)n * 24 * 32;
}

__attribute__((target("avx2,fma"))) static double chains_256(long n)
{
	long i;

	__asm__ volatile("vpxor %%ymm0, %%ymm0, %%ymm0\n\tvpxor %%ymm1, %%ymm1, %%ymm1" ::
				 : "xmm0", "xmm1");
	for (i = 0; i < n; i++)
		__asm__ volatile(
			SIX("vfmadd231ps %%ymm0, %%ymm1, %%ymm", 2, 3, 4, 5, 6, 7)
				SIX("vfmadd231ps %%ymm0, %%ymm1, %%ymm", 8, 9, 10, 11, 12, 13)::
					: CLOBBERS);
	return (double)n * 12 * 16;
}
#endif

/* GFLOP/s of float32 products with the registers of the chosen kernels; 0 when there is no measure. */
static double peak(void)
{
	double best = 0;
#if defined(__x86_64__)
	const long n = 4000000;
	const char *name = vq_cpu_name();
	int i;

	for (i = 0; i < 3 && name[0] == 'a'; i++) {
		double t = now(), done = 0;

#pragma omp parallel reduction(+ : done)
		done += name[3] == '5' ? chains_512(n) : chains_256(n);
		t = done / (now() - t) / 1e9;
		best = t > best ? t : best;
	}
#endif
	return best;
}

/* GB/s of reading memory, a stream a thread. */
static double bandwidth(void)
{
	size_t n = CACHE / sizeof(float), each = n / (size_t)n_threads;
	float *x = must(vq_calloc(n, sizeof(*x), NULL)), sink = 0;
	double best = 0;
	int run;

	for (run = 0; run < 3; run++) {
		double t = now();

#pragma omp parallel reduction(+ : sink)
		{
			const float *p = x + each * (size_t)omp_get_thread_num();
			size_t at;

			for (at = 0; at < each; at += 4096)
				sink += vq_dot(p + at, p + at, 4096);
		}
		t = (double)CACHE / (now() - t) / 1e9;
		best = t > best ? t : best;
	}
	vq_free(x);
	return sink == 0 ? best : 0;
}

/* --- attention --- */

static float *rows(size_t n, const char *what)
{
	struct vq_rng r = vq_rng_new(1, what);
	float *x = must(vq_alloc_f32(n, NULL));
	size_t i;

	for (i = 0; i < n; i++)
		x[i] = (float)vq_rng_normal(r, i % 65536);
	return x;
}

static const char *const type_names[] = {"float32", "float16", "int8"};

static void prefill(const char *what, uint32_t t, uint32_t heads, uint32_t kv_heads, uint32_t dim,
		    int causal, enum vq_kv_type type, double limit)
{
	const struct vq_layer_config c = {
		.n_heads = heads, .n_kv_heads = kv_heads, .head_dim = dim, .causal = causal};
	const uint32_t start[] = {0, t}, past = 0;
	const struct vq_batch b = {1, start};
	float *q = rows((size_t)t * heads * dim, "q"), *k = rows((size_t)t * kv_heads * dim, "k"),
	      *v = rows((size_t)t * kv_heads * dim, "v"),
	      *out = must(vq_alloc_f32((size_t)t * heads * dim, NULL));
	double seen = causal ? (t + 1.0) / 2 : t, flop = 4.0 * t * seen * dim * heads, s[RUNS],
	       rate;
	struct vq_kv kv;
	int i;

	if (vq_kv_new(&kv, 1, 1, t, kv_heads, dim, type, NULL) < 0)
		exit(4);
	for (i = 0; i < RUNS; i++) {
		s[i] = now();
		if (vq_attention_run(&(struct vq_attention){&c, &b, &past, q, &b, k, v,
							    causal ? kv.layers : NULL, out},
				     NULL) < 0)
			exit(4);
		s[i] = now() - s[i];
	}
	rate = flop / median(s) / 1e9;
	printf("%-10s %4u x %2u heads x %3u  %-8s %d threads %7.2f ms %7.1f GFLOP/s %5.1f %% of "
	       "%.0f\n",
	       what, t, heads, dim, type_names[type], n_threads, flop / rate / 1e6, rate,
	       100 * rate / limit, limit);
	vq_kv_free(&kv);
	vq_free(q);
	vq_free(k);
	vq_free(v);
	vq_free(out);
}

/* One more token after DECODE - 1, in as many layers as fill CACHE. */
static void decode(uint32_t heads, uint32_t kv_heads, uint32_t dim, enum vq_kv_type type,
		   double limit)
{
	const struct vq_layer_config c = {
		.n_heads = heads, .n_kv_heads = kv_heads, .head_dim = dim, .causal = 1};
	const uint32_t start[] = {0, 1}, past = DECODE - 1, fill[] = {0, DECODE - 1}, none = 0;
	const struct vq_batch b = {1, start}, filled = {1, fill};
	float *q = rows((size_t)heads * dim, "q"), *k = rows((size_t)DECODE * kv_heads * dim, "k"),
	      *v = rows((size_t)DECODE * kv_heads * dim, "v"),
	      *out = must(vq_alloc_f32((size_t)heads * dim, NULL));
	double s[RUNS], rate;
	struct vq_kv kv;
	uint32_t n_layers, l;
	size_t bytes;
	int i;

	if (vq_kv_bytes(1, 1, DECODE, kv_heads, dim, type, &bytes) < 0)
		exit(4);
	n_layers = (uint32_t)(CACHE / bytes);
	if (vq_kv_new(&kv, n_layers, 1, DECODE, kv_heads, dim, type, NULL) < 0)
		exit(4);
	for (l = 0; l < n_layers; l++)
		if (vq_attention_run(&(struct vq_attention){&c, &b, &none, q, &filled, k, v,
							    &kv.layers[l], out},
				     NULL) < 0)
			exit(4);
	kv.n[0] = DECODE - 1;
	for (i = 0; i < RUNS; i++) {
		s[i] = now();
		for (l = 0; l < n_layers; l++)
			if (vq_attention_run(&(struct vq_attention){&c, &b, &past, q, &b, k, v,
								    &kv.layers[l], out},
					     NULL) < 0)
				exit(4);
		s[i] = now() - s[i];
	}
	rate = (double)bytes * n_layers / median(s) / 1e9;
	printf("decode     %4u x %2u heads of %2u x %3u  %-8s %d threads %6.3f ms a layer %6.1f "
	       "GB/s %5.1f %% of %.0f\n",
	       DECODE, heads, kv_heads, dim, type_names[type], n_threads,
	       (double)bytes / rate / 1e6, rate, 100 * rate / limit, limit);
	vq_kv_free(&kv);
	vq_free(q);
	vq_free(k);
	vq_free(v);
	vq_free(out);
}

static void with_threads(int n)
{
	static const uint32_t tokens[] = {512, 2048};
	double fma, ram;
	int i, t;

	n_threads = n;
	omp_set_num_threads(n);
	fma = peak();
	ram = bandwidth();
	for (i = 0; i < 2; i++) {
		prefill("prefill", tokens[i], 32, 4, 64, 1, VQ_KV_F16, fma);
		prefill("prefill", tokens[i], 32, 32, 128, 1, VQ_KV_F16, fma);
	}
	prefill("prefill", 512, 32, 32, 128, 1, VQ_KV_F32, fma);
	prefill("prefill", 512, 32, 32, 128, 1, VQ_KV_I8, fma);
	prefill("vision", 577, 16, 16, 64, 0, VQ_KV_F32, fma);
	for (t = 0; t < 3; t++) {
		decode(32, 4, 64, (enum vq_kv_type)t, ram);
		decode(32, 32, 128, (enum vq_kv_type)t, ram);
	}
}

int main(void)
{
	int n = omp_get_max_threads();

	printf("kernels: %s\n", vq_cpu_name());
	with_threads(1);
	if (n > 1)
		with_threads(n);
	return 0;
}
