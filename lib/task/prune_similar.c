/* The criteria "cosine" and "angular": how little a block turns the hidden states that go through it. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "task/prune_run.h"
#include "task/prune_score.h"

/* cos of the angle between a and b [n]; 1 where one of them is zero: a block that leaves zeroes turns nothing. */
static double cosine(const float *a, const float *b, uint32_t n)
{
	double ab = 0, aa = 0, bb = 0, c;
	uint32_t i;

	for (i = 0; i < n; i++) {
		ab += (double)a[i] * b[i];
		aa += (double)a[i] * a[i];
		bb += (double)b[i] * b[i];
	}
	if (aa == 0 || bb == 0)
		return 1;
	c = ab / sqrt(aa * bb);
	return c > 1 ? 1 : c < -1 ? -1 : c;
}

/* 1 - mean of cos over every row: "block influence", Men et al. (ShortGPT, arXiv 2403.03853), equation 1. */
static double of_rows(const struct vq_prune_run *r, const float *in, const float *out)
{
	double sum = 0;
	uint32_t i;

	for (i = 0; i < r->rows; i++)
		sum += cosine(in + (size_t)i * r->width, out + (size_t)i * r->width, r->width);
	return 1 - sum / r->rows;
}

/* Mean of arccos(cos) / pi over the last row of each sample: Gromov et al. (arXiv 2403.17887), equation 5, one block. */
static double of_last(const struct vq_prune_run *r, const float *in, const float *out)
{
	const struct vq_prune_samples *s = r->samples;
	double sum = 0;
	uint32_t i;

	for (i = 0; i < s->n; i++) {
		size_t at = (size_t)(s->start[i + 1] - 1) * r->width;

		sum += acos(cosine(in + at, out + at, r->width)) / M_PI;
	}
	return sum / s->n;
}

static int score_all(const struct vq_prune_job *j, const struct vq_blocks *alive,
		     double (*turn)(const struct vq_prune_run *, const float *, const float *),
		     double *score, struct vq_err *err)
{
	const struct vq_prune_run *r = j->run;
	size_t n = (size_t)r->rows * r->width;
	float *in = vq_alloc_f32(n, err), *out = vq_alloc_f32(n, err);
	uint32_t i;
	int rc = in && out ? VQ_OK : VQ_E_SYS;

	if (rc == VQ_OK)
		memcpy(out, r->h0, n * sizeof(float));
	for (i = 0; rc == VQ_OK && i < alive->n; i++) {
		memcpy(in, out, n * sizeof(float));
		rc = vq_prune_run_block(r, alive->v[i], out, 1, err);
		if (rc == VQ_OK)
			score[i] = turn(r, in, out);
	}
	vq_free(in);
	vq_free(out);
	return rc;
}

int vq_score_cosine(const struct vq_prune_job *j, const struct vq_blocks *alive, double *score,
		    struct vq_err *err)
{
	return score_all(j, alive, of_rows, score, err);
}

int vq_score_angular(const struct vq_prune_job *j, const struct vq_blocks *alive, double *score,
		     struct vq_err *err)
{
	return score_all(j, alive, of_last, score, err);
}
