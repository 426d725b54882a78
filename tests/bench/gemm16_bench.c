/* Speed of the float products beside the machine's limits: GFLOP/s (a multiplication and an addition are two) at
 * shapes of a 1.1B decoder, CLIP-L and the demo's model; GB/s of weights for one token.  Medians of several runs. */
#include <stdio.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "kernel/cpu.h"
#include "kernel/gemm16.h"
#include "limits.h"

#define RUNS 5

static int n_threads;

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
		double t0 = limits_now(n_threads);

		for (i = 0; i < times; i++)
			if (vq_gemm_run(g, x, n, y, NULL) < 0)
				exit(4);
		t[r] = (limits_now(n_threads) - t0) / times;
	}
	return limits_median(t, RUNS);
}

static void row(const struct vq_gemm *g, const float *x, uint32_t n, float *y, double top)
{
	double t = measure(g, x, n, y), rate = 2.0 * n * g->n_in * g->n_out / t / 1e9;

	printf("%s\t%d\t%s\t%s\t%ux%ux%u\t%.0f\t%.0f\t%.1f\n", vq_cpu_name(), n_threads,
	       vq_gemm_way_name(g->way), vq_dtype_name(g->type), n, g->n_in, g->n_out, rate,
	       100 * rate / top, (double)g->n_in * g->n_out * vq_dtype_size(g->type) / t / 1e9);
}

/* The first type of weights at every shape, the others at some. */
static void rows(enum vq_dtype type, enum vq_gemm_way way, const void *w, const float *x, float *y,
		 double top)
{
	size_t s;

	for (s = 0; s < N_SHAPES; s++) {
		struct vq_gemm g = {.n_out = shapes[s].n_out,
				    .n_in = shapes[s].n_in,
				    .type = type,
				    .w = w,
				    .way = way};

		if (type == VQ_F16 || shapes[s].all_types)
			row(&g, x, shapes[s].tokens, y, top);
	}
}

int main(void)
{
	static const enum vq_dtype types[] = {VQ_F16, VQ_BF16, VQ_F32};
	size_t most = (size_t)32768 * 2048, i;
	struct vq_rng r = vq_rng_new(1, "bench");
	uint16_t *w16 = room(2 * most);
	float *w32 = room(4 * most), *x = room(4 * 512 * 5632 * 2), *y = room(4 * most);
	uint32_t set, d;
	int way;

	for (i = 0; i < most; i++)
		w16[i] = vq_f32_to_f16((float)(vq_rng_u64(r, i) % 1000) * 1e-4f - 0.05f);
	vq_f16_to_f32_n(w32, w16, most);
	for (i = 0; i < (size_t)512 * 5632 * 2; i++)
		x[i] = (float)vq_rng_normal(r, i);
	printf("set\tthreads\tproducts\tweights\tshape\tGFLOP/s\t%% of peak\tGB/s of weights\n");
	for (n_threads = 1; n_threads <= 2; n_threads++) {
		double top[2] = {limits_peak(LIMITS_FMA, n_threads),
				 limits_peak(LIMITS_DPBF16, n_threads)};

		omp_set_num_threads(n_threads);
		printf("-\t%d\tFMA peak\t-\t-\t%.0f\t100\t-\n", n_threads, top[0]);
		printf("-\t%d\tvdpbf16ps peak\t-\t-\t%.0f\t100\t-\n", n_threads, top[1]);
		printf("-\t%d\tread bandwidth\t-\t-\t-\t-\t%.1f\n", n_threads,
		       limits_bandwidth(1, n_threads));
		for (set = 1; vq_kernels_row(set); set++) {
			if (!vq_kernels_row(set)->runs())
				continue;
			vq_kernels_use(vq_kernels_row(set));
			for (way = 0; way <= vq_gemm_has_bf16(); way++)
				for (d = 0; d < (way ? 2u : 3u); d++)
					rows(types[d], (enum vq_gemm_way)way,
					     types[d] == VQ_F32 ? (const void *)w32 : w16, x, y,
					     top[way]);
		}
	}
	return 0;
}
