/* Speed of the integer products beside the machine's limit: GOP/s (a multiplication and an addition are two)
 * at the shape of a 7B model's prefill and decode.  Medians of several runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "kernel/cpu.h"
#include "quant/nf4.h"
#include "limits.h"

#define RUNS 9

static int n_threads;

static const struct {
	const char *name;
	uint32_t wbits, wgroup;
	int wsym;
	uint32_t abits, agroup;
	int asym, nf;
} cases[] = {
	{"W4A8 g128, a token", 4, 128, 0, 8, 0, 0, 0}, {"W4A8 g128/128", 4, 128, 0, 8, 128, 0, 0},
	{"W4A4 g128/128", 4, 128, 0, 4, 128, 0, 0},    {"W4A8 row, sym", 4, 0, 1, 8, 0, 1, 0},
	{"W4A8 g32/32", 4, 32, 0, 8, 32, 0, 0},        {"W6A6 g128/128", 6, 128, 0, 6, 128, 0, 0},
	{"W8A8 g128/128", 8, 128, 0, 8, 128, 0, 0},    {"W3A8 g128/128", 3, 128, 0, 8, 128, 0, 0},
	{"W4A8 g64/128", 4, 64, 0, 8, 128, 0, 0},      {"NF4A8 b64/128", 4, 64, 1, 8, 128, 0, 1},
	{"NF4A4 b64/128", 4, 64, 1, 4, 128, 0, 1},     {"NF3A8 b64/128", 3, 64, 1, 8, 128, 0, 1},
};

struct setup {
	struct vq_packed w;
	struct vq_qact a;
	struct vq_agrid g;
	uint8_t *planes, *zero;
	uint16_t *scale;
	float *x, *y, *absmax;
};

static void make(struct setup *s, int c, uint32_t m, uint32_t n, uint32_t k)
{
	struct vq_rng r = vq_rng_new(1, "bench");
	size_t bytes = vq_packed_plane_bytes(cases[c].wbits, n, k), i, n_scales;
	uint32_t ng = cases[c].wgroup ? k / cases[c].wgroup : 1;

	n_scales = vq_packed_n_scales(n, ng);
	s->g = (struct vq_agrid){
		.bits = cases[c].abits, .group = cases[c].agroup, .sym = cases[c].asym, .clip = 1};
	s->planes = vq_alloc(bytes, 1, NULL);
	s->scale = vq_alloc(n_scales, 2, NULL);
	s->zero = vq_alloc(n_scales, 1, NULL);
	s->absmax = vq_alloc_f32(n_scales, NULL);
	s->x = vq_alloc_f32((size_t)m * k, NULL);
	s->y = vq_alloc_f32((size_t)m * n, NULL);
	if (!s->planes || !s->scale || !s->zero || !s->absmax || !s->x || !s->y ||
	    vq_qact_alloc(&s->a, m, k, &s->g, NULL) < 0)
		exit(4);
	for (i = 0; i < bytes / 8; i++)
		((uint64_t *)(void *)s->planes)[i] = vq_rng_u64(r, i);
	for (i = 0; i < n_scales; i++) {
		s->scale[i] = vq_f32_to_f16(0.01f);
		s->absmax[i] = 1;
		s->zero[i] = (uint8_t)(1u << (cases[c].wbits - 1));
	}
	for (i = 0; i < (size_t)m * k; i++)
		s->x[i] = (float)vq_rng_normal(r, i);
	s->w = (struct vq_packed){.n_out = n,
				  .n_in = k,
				  .bits = cases[c].wbits,
				  .group = cases[c].wgroup,
				  .n_groups = ng,
				  .sym = cases[c].wsym,
				  .planes = s->planes,
				  .scale = s->scale,
				  .zero = cases[c].wsym ? NULL : s->zero};
	if (cases[c].nf) {
		s->w.value = vq_nf_codes(cases[c].wbits);
		s->w.absmax = s->absmax;
		vq_nf_bytes(cases[c].wbits, s->w.byte);
	}
}

static void drop(struct setup *s)
{
	vq_free(s->planes);
	vq_free(s->scale);
	vq_free(s->zero);
	vq_free(s->absmax);
	vq_free(s->x);
	vq_free(s->y);
	vq_qact_free(&s->a);
}

/* What a product reads of its weight: planes, scales and zero points. */
static double weight_bytes(int c, uint32_t n, uint32_t k)
{
	uint32_t ng = cases[c].wgroup ? k / cases[c].wgroup : 1;
	double a_scale = cases[c].nf ? sizeof(float) : 2 + !cases[c].wsym;

	return (double)vq_packed_plane_bytes(cases[c].wbits, n, k) +
	       a_scale * (double)vq_packed_n_scales(n, ng);
}

/* Seconds of one quantization and one product. */
static void measure(int c, uint32_t m, uint32_t n, uint32_t k, int threads, double *quant,
		    double *gemm)
{
	struct setup s;
	double t[RUNS], u[RUNS];
	int r;

	omp_set_num_threads(threads);
	make(&s, c, m, n, k);
	for (r = 0; r < RUNS; r++) {
		double t0 = limits_now(n_threads);

		vq_act_quantize(&s.g, s.x, &s.a);
		u[r] = limits_now(n_threads) - t0;
		t0 = limits_now(n_threads);
		if (vq_qgemm(&s.w, &s.a, &s.g, NULL, 0, s.y, NULL) < 0)
			exit(4);
		t[r] = limits_now(n_threads) - t0;
	}
	*quant = limits_median(u, RUNS);
	*gemm = limits_median(t, RUNS);
	drop(&s);
}

int main(void)
{
	uint32_t i;
	int c, threads, n_cases = (int)(sizeof(cases) / sizeof(cases[0]));

	printf("set\tthreads\tcase\tshape\tGOP/s\t%% of vpdpbusd peak\tGB/s of weights\tquantize "
	       "GB/s\n");
	for (threads = 1; threads <= 2; threads++) {
		double top;

		n_threads = threads;
		top = limits_peak(LIMITS_DPBUSD, threads);

		printf("-\t%d\tread, 2 MB pages\t-\t-\t-\t%.1f\t-\n", threads,
		       limits_bandwidth(1, threads));
		printf("-\t%d\tread, 4 KB pages\t-\t-\t-\t%.1f\t-\n", threads,
		       limits_bandwidth(0, threads));
		printf("-\t%d\tvpdpbusd peak\t-\t%.0f\t100\t-\t-\n", threads, top);
		for (i = 0; vq_kernels_row(i); i++) {
			if (!vq_kernels_row(i)->runs())
				continue;
			vq_kernels_use(vq_kernels_row(i));
			for (c = 0; c < n_cases; c++) {
				uint32_t m = i ? 512 : 4, n = 4096, k = 4096;
				double q, t, gops;

				measure(c, m, n, k, threads, &q, &t);
				gops = 2.0 * m * n * k / t / 1e9;
				printf("%s\t%d\t%s\t%ux%ux%u\t%.1f\t%.0f\t-\t%.1f\n", vq_cpu_name(),
				       threads, cases[c].name, n, m, k, gops, 100 * gops / top,
				       4.0 * m * k / q / 1e9);
				if (i == 0)
					continue;
				/* Decode: one token; 64 MiB of weights do not stay in the caches. */
				measure(c, 1, 32768, 4096, threads, &q, &t);
				printf("%s\t%d\t%s\t%ux%ux%u\t%.1f\t-\t%.1f\t-\n", vq_cpu_name(),
				       threads, cases[c].name, 32768, 1, 4096,
				       2.0 * 32768 * 4096 / t / 1e9,
				       weight_bytes(c, 32768, 4096) / t / 1e9);
			}
		}
	}
	return 0;
}
