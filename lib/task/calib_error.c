/* Rounding errors of layers. */
#include "task/calib_error.h"

#include <string.h>

#include "base/mem.h"
#include "quant/grid.h"

#define GROUP 128

/* l with its weight rounded and its input quantized; *own holds the weight.  A linear that is not there stays. */
static int round_linear(struct vq_linear *l, uint32_t bits, float **own, struct vq_err *err)
{
	const struct vq_wgrid grid = {bits, GROUP, 0};
	struct vq_tensor t = {l->dtype, 2, {l->n_out, l->n_in}, l->w};
	struct vq_codes codes;
	size_t n;
	int rc;

	if (!l->n_out)
		return VQ_OK;
	if (vq_mul_size(&n, l->n_out, l->n_in) < 0)
		return vq_fail(err, VQ_E_SYS, "memory: a weight of %u x %u", l->n_out, l->n_in);
	*own = vq_alloc_f32(n, err);
	if (!*own)
		return VQ_E_SYS;
	rc = vq_tensor_to_f32(&t, 0, n, *own, err);
	if (rc >= 0)
		rc = vq_codes_alloc(&codes, &grid, l->n_out, l->n_in, err);
	if (rc < 0)
		return rc;
	vq_grid_fit(&codes, *own, 1);
	vq_grid_dequant(&codes, *own);
	vq_codes_free(&codes);
	l->w = *own;
	l->dtype = VQ_F32;
	l->act = (struct vq_agrid){.bits = bits, .group = GROUP, .clip = 1};
	return VQ_OK;
}

static float relative(const float *got, const float *want, size_t n)
{
	double d = 0, s = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		double e = (double)got[i] - want[i];

		d += e * e;
		s += (double)want[i] * want[i];
	}
	return s > 0 ? (float)(d / s) : 0;
}

/* One stage with the linears of its place rounded; the experts of l are its own. */
static int stage(struct vq_layer *l, struct vq_layer_run *r, uint32_t bits, struct vq_err *err)
{
	float *own[VQ_N_LINEARS] = {NULL};
	struct vq_linear keep[VQ_N_LINEARS], *at[VQ_N_LINEARS];
	uint32_t i, n = 0;
	int rc = VQ_OK;

	for (i = 0; i < VQ_N_LINEARS && rc >= 0; i++) {
		if (vq_lin_slot((enum vq_lin)i) != r->slot)
			continue;
		at[n] = vq_layer_linear(l, (enum vq_lin)i, r->expert);
		keep[n] = *at[n];
		rc = round_linear(at[n], bits, &own[n], err);
		n++;
	}
	if (rc >= 0)
		rc = vq_layer_next(r, err);
	for (i = 0; i < n; i++) {
		*at[i] = keep[i];
		vq_free(own[i]);
	}
	return rc;
}

int vq_calib_layer_error(const struct vq_layer *layer, const float *in, const float *out,
			 const struct vq_batch *b, uint32_t bits, float *error, struct vq_err *err)
{
	struct vq_layer l = *layer;
	struct vq_layer_run r = {0};
	size_t n = (size_t)b->start[b->n_seqs] * l.cfg->hidden;
	size_t n_own = (size_t)l.n_experts * VQ_EXPERT_LINEARS;
	float *h = vq_alloc_f32(n, err);
	int rc = VQ_E_SYS;

	l.experts = h ? vq_alloc(n_own, sizeof(*l.experts), err) : NULL;
	if (!l.experts)
		goto out;
	l.counts = NULL;
	if (n_own)
		memcpy(l.experts, layer->experts, n_own * sizeof(*l.experts));
	memcpy(h, in, n * sizeof(float));
	rc = vq_layer_begin(&r, &l, h, b, NULL, err);
	while (rc >= 0 && r.slot < VQ_N_SLOTS)
		rc = stage(&l, &r, bits, err);
	if (rc >= 0)
		*error = relative(h, out, n);
	vq_layer_end(&r);
out:
	vq_free(l.experts);
	vq_free(h);
	return rc;
}

int vq_calib_projector_error(const struct vq_config *c, const struct vq_projector *projector,
			     const float *features, const float *out, size_t n, uint32_t bits,
			     float *error, struct vq_err *err)
{
	struct vq_projector p = *projector;
	float *own[2] = {NULL, NULL}, *y = NULL;
	size_t count;
	uint32_t i;
	int rc = VQ_OK;

	if (vq_mul_size(&count, n, c->projector.out) < 0)
		return vq_fail(err, VQ_E_SYS, "memory: %zu rows of %u", n, c->projector.out);
	for (i = 0; i < c->projector.n_linears && rc >= 0; i++)
		rc = round_linear(&p.fc[i], bits, &own[i], err);
	if (rc >= 0) {
		y = vq_alloc_f32(count, err);
		rc = y ? vq_projector_apply(c, &p, features, n, y, err) : VQ_E_SYS;
	}
	if (rc >= 0)
		*error = relative(y, out, count);
	vq_free(y);
	vq_free(own[0]);
	vq_free(own[1]);
	return rc;
}
