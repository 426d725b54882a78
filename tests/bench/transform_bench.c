/* Time of a linear's input transform beside the product that it stands before: microseconds a row of 512 tokens, W4A8 in
 * groups of 128, on one thread (its processor clock).  The products that share an input (q, k, v; up, gate) share the
 * transform too; one product is the worst case.  Medians of several runs. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <omp.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "kernel/cpu.h"

#define RUNS 9
#define ROWS 512u

static const struct {
	const char *name;
	uint32_t block;
	int scale, matrix;
} kinds[] = {{"scale", 0, 1, 0},          {"hadamard 16", 16, 1, 0},   {"hadamard 64", 64, 1, 0},
	     {"hadamard 128", 128, 1, 0}, {"hadamard 256", 256, 1, 0}, {"matrix 128", 128, 1, 1}};

struct place {
	uint32_t n;
	float *x, *scale, *matrix, *out;
	struct vq_agrid g;
	struct vq_qact a;
	struct vq_packed w;
	void *planes, *zero;
	uint16_t *wscale;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void fill(float *x, size_t n, const char *what)
{
	struct vq_rng r = vq_rng_new(1, what);
	size_t i;

	for (i = 0; i < n; i++)
		x[i] = (float)vq_rng_normal(r, i);
}

static void make(struct place *p, uint32_t n)
{
	size_t n_scales = vq_packed_n_scales(4096, n / 128), i;

	*p = (struct place){.n = n, .g = {.bits = 8, .group = 128, .clip = 1}};
	p->x = vq_alloc_f32((size_t)ROWS * n, NULL);
	p->out = vq_alloc_f32((size_t)ROWS * 4096 > (size_t)ROWS * n ? (size_t)ROWS * 4096
								     : (size_t)ROWS * n,
			      NULL);
	p->scale = vq_alloc_f32(n, NULL);
	p->matrix = vq_alloc_f32((size_t)n * 128, NULL);
	p->planes = vq_calloc(vq_packed_plane_bytes(4, 4096, n), 1, NULL);
	p->wscale = vq_alloc(n_scales, 2, NULL);
	p->zero = vq_calloc(n_scales, 1, NULL);
	if (!p->x || !p->out || !p->scale || !p->matrix || !p->planes || !p->wscale || !p->zero ||
	    vq_qact_alloc(&p->a, ROWS, n, &p->g, NULL) < 0)
		exit(4);
	fill(p->x, (size_t)ROWS * n, "x");
	fill(p->scale, n, "scale");
	fill(p->matrix, (size_t)n * 128, "matrix");
	for (i = 0; i < n_scales; i++)
		p->wscale[i] = vq_f32_to_f16(0.01f);
	p->w = (struct vq_packed){.n_out = 4096,
				  .n_in = n,
				  .bits = 4,
				  .group = 128,
				  .n_groups = n / 128,
				  .planes = p->planes,
				  .scale = p->wscale,
				  .zero = p->zero};
}

static void drop(struct place *p)
{
	vq_free(p->x);
	vq_free(p->out);
	vq_free(p->scale);
	vq_free(p->matrix);
	vq_free(p->planes);
	vq_free(p->wscale);
	vq_free(p->zero);
	vq_qact_free(&p->a);
}

/* Microseconds a row of: a transform alone, quantizing alone, both at once, the product. */
enum what { TRANSFORM, QUANTIZE, BOTH, PRODUCT };

static double measure(struct place *p, const struct vq_transform *t, enum what what)
{
	double s[RUNS];
	int r, rc = VQ_OK;

	for (r = 0; r < RUNS; r++) {
		double t0 = now();

		if (what == TRANSFORM)
			vq_transform_rows(t, p->x, ROWS, p->out);
		else if (what == QUANTIZE)
			vq_act_quantize(&p->g, p->x, &p->a);
		else if (what == BOTH)
			rc = vq_transform_quantize(t, &p->g, p->x, &p->a, NULL);
		else
			rc = vq_qgemm(&p->w, &p->a, &p->g, NULL, 0, p->out, NULL);
		if (rc < 0)
			exit(4);
		s[r] = now() - t0;
	}
	qsort(s, RUNS, sizeof(s[0]), by_value);
	return 1e6 * s[RUNS / 2] / ROWS;
}

int main(void)
{
	static const uint32_t widths[] = {4096, 11008};
	struct place p;
	uint32_t w, i;
	size_t k;

	omp_set_num_threads(1);
	printf("set\twidth\ttransform\talone us\tquantize us\tboth us\tproduct with 4096 outputs "
	       "us\t%% of "
	       "it added\n");
	for (w = 0; w < 2; w++) {
		make(&p, widths[w]);
		for (i = 1; vq_kernels_row(i); i++) { /* generic is the meaning, not the speed */
			double quantize, product;

			if (!vq_kernels_row(i)->runs())
				continue;
			vq_kernels_use(vq_kernels_row(i));
			quantize = measure(&p, NULL, QUANTIZE);
			product = measure(&p, NULL, PRODUCT);
			for (k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
				struct vq_transform t = {widths[w], kinds[k].block, p.scale,
							 kinds[k].matrix ? p.matrix : NULL};
				double alone = measure(&p, &t, TRANSFORM);
				double both = measure(&p, &t, BOTH);

				printf("%s\t%u\t%s\t%.2f\t%.2f\t%.2f\t%.1f\t%.1f\n", vq_cpu_name(),
				       widths[w], kinds[k].name, alone, quantize, both, product,
				       100 * (both - quantize) / product);
			}
		}
		drop(&p);
	}
	return 0;
}
