/* Weights of pictures' tokens, by gradients. */
#include "task/calib_vision_weight.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

int vq_calib_vision_weight_new(struct vq_calib_vision_weight *v, const struct vq_config *c,
			       struct vq_err *err)
{
	*v = (struct vq_calib_vision_weight){.cfg = c};
	v->sum = vq_calloc(c->decoder.n_layers, 2 * sizeof(double), err);
	return v->sum ? VQ_OK : VQ_E_SYS;
}

void vq_calib_vision_weight_free(struct vq_calib_vision_weight *v)
{
	vq_free(v->sum);
	memset(v, 0, sizeof(*v));
}

void vq_calib_vision_weight_add(struct vq_calib_vision_weight *v, uint32_t layer,
				const struct vq_prompt *p, const float *g, uint32_t k)
{
	uint32_t d = v->cfg->decoder.layer.hidden, t, j, c;

	for (t = 0; t < p->n_tokens; t++) {
		int image = v->cfg->has_vision && p->tokens[t] == v->cfg->image_token;
		double sum = 0;

		for (j = 0; j < k; j++)
			for (c = 0; c < d; c++)
				sum += fabs((double)g[((size_t)j * p->n_tokens + t) * d + c]);
		v->sum[2 * (size_t)layer + (size_t)image] += sum / k;
		v->n[image] += layer == 0;
	}
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* ratio [n], order [n] work space. */
static double median(const double *ratio, double *order, uint32_t n)
{
	memcpy(order, ratio, n * sizeof(*order));
	qsort(order, n, sizeof(*order), by_size);
	return (order[(n - 1) / 2] + order[n / 2]) / 2;
}

int vq_calib_vision_weight_write(const struct vq_calib_vision_weight *v, struct vq_writer *w,
				 struct vq_err *err)
{
	uint32_t n = v->cfg->decoder.n_layers, units = vq_config_n_units(v->cfg), i;
	double *ratio = vq_alloc(2 * (size_t)n, sizeof(*ratio), err), middle;
	float *out = vq_alloc_f32(units, err);
	struct vq_tensor t = {VQ_F32, 1, {units}, out};
	int rc = ratio && out ? VQ_OK : VQ_E_SYS;

	if (rc < 0 || !v->n[0] || !v->n[1])
		goto out;
	for (i = 0; i < n; i++) {
		const double *s = v->sum + 2 * (size_t)i;

		if (!(s[0] > 0))
			goto out;
		ratio[i] = s[1] / (double)v->n[1] / (s[0] / (double)v->n[0]);
	}
	middle = median(ratio, ratio + n, n);
	for (i = 0; i < units; i++)
		out[i] = 1;
	for (i = 0; i < n; i++)
		out[vq_config_decoder_unit(v->cfg) + i] =
			(float)(ratio[i] > middle ? ratio[i] : middle);
	rc = vq_writer_put_tensor(w, VQ_KIND_STAT, "stat/vision_weight", &t, NULL, err);
out:
	vq_free(ratio);
	vq_free(out);
	return rc;
}
