/* Speed of the float products beside the machine's limits: GFLOP/s (a multiplication and an addition are two) at
 * shapes of a 1.1B decoder, CLIP-L and the demo's model; GB/s of weights for one token.  Medians of several runs. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/log.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "kernel/cpu.h"
#include "kernel/gemm16.h"

#define RUNS 5

/* One thread is timed on its processor clock, which other work on the machine does not advance; several on
 * the wall's. */
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

static double median(double *t, int n)
{
	qsort(t, (size_t)n, sizeof(*t), by_value);
	return t[n / 2];
}

#if defined(__x86_64__)
/* 24 independent chains of one instruction. */
#define CHAIN(op, r) op " %%zmm0, %%zmm1, %%zmm" #r "\n\t"
#define CHAINS(op)                                                                               \
	__asm__ volatile(CHAIN(op, 8) CHAIN(op, 9) CHAIN(op, 10) CHAIN(op, 11) CHAIN(            \
				 op, 12) CHAIN(op, 13) CHAIN(op, 14) CHAIN(op, 15) CHAIN(op, 16) \
				 CHAIN(op, 17) CHAIN(op, 18) CHAIN(op, 19) CHAIN(op, 20) CHAIN(  \
					 op, 21) CHAIN(op, 22) CHAIN(op, 23) CHAIN(op, 24)       \
					 CHAIN(op, 25) CHAIN(op, 26) CHAIN(op, 27) CHAIN(op, 28) \
						 CHAIN(op, 29) CHAIN(op, 30) CHAIN(op, 31)::     \
							 : "xmm8", "xmm9", "xmm10", "xmm11",     \
							   "xmm12", "xmm13", "xmm14", "xmm15",   \
							   "xmm16", "xmm17", "xmm18", "xmm19",   \
							   "xmm20", "xmm21", "xmm22", "xmm23",   \
							   "xmm24", "xmm25", "xmm26", "xmm27",   \
							   "xmm28", "xmm29", "xmm30", "xmm31")

__attribute__((target("avx512f,avx512bf16"))) static double peak_loop(int bf16, long n)
{
	double t = now();
	long i;

	for (i = 0; bf16 && i < n; i++)
		CHAINS("vdpbf16ps");
	for (i = 0; !bf16 && i < n; i++)
		CHAINS("vfmadd231ps");
	return (double)n * 24 * (bf16 ? 64 : 32) / (now() - t) / 1e9;
}

static int can(int bf16)
{
	return bf16 ? __builtin_cpu_supports("avx512bf16") : __builtin_cpu_supports("avx512f");
}
#else
static double peak_loop(int bf16, long n)
{
	(void)bf16, (void)n;
	return NAN;
}

static int can(int bf16)
{
	(void)bf16;
	return 0;
}
#endif

static double peak(int bf16, int threads)
{
	double all[RUNS];
	int r;

	if (!can(bf16))
		return NAN;
	for (r = 0; r < RUNS; r++) {
		double sum = 0;

#pragma omp parallel num_threads(threads) reduction(+ : sum)
		sum += peak_loop(bf16, 500000);
		all[r] = sum;
	}
	return median(all, RUNS);
}

/* GB/s of one sequential stream a thread over `bytes` of memory. */
static double bandwidth(const uint64_t *at, size_t bytes, int threads)
{
	double all[RUNS];
	int r;

	for (r = 0; r < RUNS; r++) {
		double t = now();
		uint64_t sum = 0;

#pragma omp parallel num_threads(threads) reduction(+ : sum)
		{
			size_t n = bytes / 8 / (size_t)threads, i;
			const uint64_t *p = at + n * (size_t)omp_get_thread_num();
			uint64_t a = 0;

			for (i = 0; i < n; i += 8)
				a += p[i];
			sum += a;
		}
		__asm__ volatile("" ::"r"(sum));
		all[r] = (double)bytes / (now() - t) / 1e9;
	}
	return median(all, RUNS);
}

static const struct {
	uint32_t tokens, n_in, n_out;
	int all_types;
} shapes[] = {
	{512, 2048, 5632, 1}, {577, 1024, 4096, 0}, {60, 256, 640, 0},
	{60, 640, 256, 0},    {500, 256, 640, 0},   {2000, 256, 640, 0},
	{32, 2048, 5632, 0},  {8, 2048, 32768, 0},  {1, 2048, 32768, 1},
};
#define N_SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static void *room(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		exit(4);
	madvise(p, bytes, MADV_HUGEPAGE);
	return p;
}

/* Seconds of one product. */
static double measure(const struct vq_gemm *g, const float *x, uint32_t n, float *y)
{
	double t[RUNS];
	int r, i, times = 1 + (int)(2e7 / ((double)n * g->n_in * g->n_out));

	for (r = 0; r < RUNS; r++) {
		double t0 = now();

		for (i = 0; i < times; i++)
			if (vq_gemm_run(g, x, n, y, NULL) < 0)
				exit(4);
		t[r] = (now() - t0) / times;
	}
	return median(t, RUNS);
}

static void row(const struct vq_gemm *g, const float *x, uint32_t n, float *y, double top)
{
	double t = measure(g, x, n, y), rate = 2.0 * n * g->n_in * g->n_out / t / 1e9;

	printf("%s\t%d\t%s\t%s\t%ux%ux%u\t%.0f\t%.0f\t%.1f\n", vq_cpu_name(), n_threads,
	       vq_gemm_way_name(g->way), vq_dtype_name(g->type), n, g->n_in, g->n_out, rate,
	       100 * rate / top, (double)g->n_in * g->n_out * vq_dtype_size(g->type) / t / 1e9);
}

int main(void)
{
	static const enum vq_dtype types[] = {VQ_F16, VQ_BF16, VQ_F32};
	size_t most = (size_t)32768 * 2048, i;
	struct vq_rng r = vq_rng_new(1, "bench");
	uint16_t *w16 = room(2 * most);
	float *w32 = room(4 * most), *x = room(4 * 512 * 5632 * 2), *y = room(4 * most);
	uint32_t set, s, d;
	int way;

	for (i = 0; i < most; i++)
		w16[i] = vq_f32_to_f16((float)(vq_rng_u64(r, i) % 1000) * 1e-4f - 0.05f);
	vq_f16_to_f32_n(w32, w16, most);
	for (i = 0; i < (size_t)512 * 5632 * 2; i++)
		x[i] = (float)vq_rng_normal(r, i);
	printf("set\tthreads\tproducts\tweights\tshape\tGFLOP/s\t%% of peak\tGB/s of weights\n");
	for (n_threads = 1; n_threads <= 2; n_threads++) {
		double top[2] = {peak(0, n_threads), peak(1, n_threads)};

		omp_set_num_threads(n_threads);
		printf("-\t%d\tFMA peak\t-\t-\t%.0f\t100\t-\n", n_threads, top[0]);
		printf("-\t%d\tvdpbf16ps peak\t-\t-\t%.0f\t100\t-\n", n_threads, top[1]);
		printf("-\t%d\tread bandwidth\t-\t-\t-\t-\t%.1f\n", n_threads,
		       bandwidth((const uint64_t *)(const void *)w32, 4 * most, n_threads));
		for (set = 1; vq_kernels_row(set); set++) {
			if (!vq_kernels_row(set)->runs())
				continue;
			vq_kernels_use(vq_kernels_row(set));
			for (way = 0; way <= vq_gemm_has_bf16(); way++)
				for (d = 0; d < (way ? 2u : 3u); d++)
					for (s = 0; s < N_SHAPES; s++)
						if (d == 0 || shapes[s].all_types)
							row(
								&(struct vq_gemm){
									.n_out = shapes[s].n_out,
									.n_in = shapes[s].n_in,
									.type = types[d],
									.w = types[d] == VQ_F32
										     ? (const void
												*)
											       w32
										     : w16,
									.way = (enum vq_gemm_way)
										way},
								x, shapes[s].tokens, y, top[way]);
		}
	}
	return 0;
}
