/* GPTQ at one place. */
#include "task/search_gptq.h"

#include <math.h>

#include "base/mem.h"
#include "quant/gptq.h"

#define DAMP     .01 /* the authors' */
#define DAMP_FEW .1  /* for fewer than FEW tokens per input, which the codes would fit too well */
#define FEW      8
#define CHUNK    512u /* rows quantized at a time, about */
#define BLOCK    128u

/* Rows times sqrt(r): their second moments are then weighted by r. */
static void weigh(float *x, const float *r, size_t n_rows, size_t n)
{
	size_t i, j;

	for (i = 0; r && i < n_rows; i++)
		for (j = 0; j < n; j++)
			x[i * n + j] *= sqrtf(r[i]);
}

/* The second moments of the input, as means over tokens. */
static int measure(struct vq_hessian *h, const struct vq_place *p, const uint8_t *choice,
		   const float *x, const float *x_full, const float *r, size_t n_rows,
		   struct vq_err *err)
{
	size_t n = h->n, step = vq_agrid_chunk(&p->a, CHUNK), at, i;
	float *q = vq_alloc_f32(step * n, err), *f = vq_alloc_f32(step * n, err);
	int rc = q && f ? VQ_OK : VQ_E_SYS;

	for (at = 0; rc == VQ_OK && at < n_rows; at += step) {
		size_t rows = n_rows - at < step ? n_rows - at : step;

		vq_place_see(p, choice[0], choice[1], x + at * n, rows, q);
		vq_place_see(p, VQ_QVLM_VALUES, choice[1], x_full + at * n, rows, f);
		weigh(q, r ? r + at : NULL, rows, n);
		weigh(f, r ? r + at : NULL, rows, n);
		rc = vq_hessian_add(h, q, f, rows, err);
	}
	vq_free(q);
	vq_free(f);
	for (i = 0; i < n * n; i++) {
		h->h[i] /= (double)n_rows;
		if (h->d)
			h->d[i] /= (double)n_rows;
	}
	return rc;
}

static int fit(struct vq_place *p, uint32_t i, uint32_t v, const struct vq_gptq *g,
	       const struct vq_gptq_opts *o, struct vq_gptq_cost *cost, struct vq_err *err)
{
	const struct vq_linear *l = p->lin[i].full;
	struct vq_codes c = {0};
	struct vq_tensor w;
	float *buf = NULL;
	double loss = 0, error = 0;
	int rc = vq_codes_alloc(&c, &p->w, l->n_out, l->n_in, err);

	if (rc == VQ_OK)
		rc = vq_place_weight(p, i, v, &w, &buf, err);
	if (rc == VQ_OK)
		rc = vq_gptq_fit(&c, w.data, w.dtype, g, o, &loss, &error, err);
	vq_free(buf);
	if (rc == VQ_OK)
		rc = vq_place_take(p, i, v, &c, error, err);
	cost->loss += loss;
	vq_codes_free(&c);
	return rc;
}

int vq_place_gptq(struct vq_place *p, const struct vq_search_opts *o, const uint8_t *choice,
		  const float *x, const float *x_full, const float *r, size_t n_rows,
		  struct vq_gptq_cost *cost, struct vq_err *err)
{
	uint32_t n_in = p->lin[0].full->n_in, i;
	int few = n_rows < (size_t)FEW * n_in;
	struct vq_gptq_opts go = {.grid = p->w,
				  .rule = VQ_GPTQ_STREAM,
				  .damp = few ? DAMP_FEW : DAMP,
				  .block = BLOCK,
				  .act_order = o->act_order,
				  .clip = o->w_clip,
				  .alpha = o->gptaq,
				  .polish = o->polish};
	struct vq_hessian h = {0};
	struct vq_gptq g = {0};
	int rc;

	if (p->w.bits == 16)
		return VQ_OK;
	rc = vq_hessian_new(&h, n_in, go.alpha > 0, err);
	if (rc == VQ_OK)
		rc = measure(&h, p, choice, x, x_full, r, n_rows, err);
	if (rc == VQ_OK)
		cost->cross += vq_hessian_cross(&h);
	if (rc == VQ_OK)
		rc = vq_gptq_prepare(&g, &h, &go, err);
	vq_hessian_free(&h);
	if (rc == VQ_OK) {
		cost->n_few += (uint32_t)few;
		cost->n_raised += g.damp > go.damp;
		cost->damp = g.damp > cost->damp ? g.damp : cost->damp;
	}
	for (i = 0; rc == VQ_OK && i < p->n; i++)
		rc = fit(p, i, choice[1], &g, &go, cost, err);
	if (rc < 0)
		vq_err_prefix(err, "'%s'", p->lin[0].rec->rec.name);
	vq_gptq_free(&g);
	return rc;
}
