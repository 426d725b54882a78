/* Adjoint of an MLP. */
#include "model/adjoint_mlp.h"

#include "base/mem.h"
#include "kernel/gemm_back.h"
#include "kernel/ops.h"
#include "model/layer_stage.h"

int vq_linear_back(const struct vq_linear *l, const float *g, size_t n, float *out,
		   struct vq_err *err)
{
	if (!l->w || l->act.bits < 16)
		return vq_fail(err, VQ_E_DATA, "adjoint: want floating-point weights and inputs");
	return vq_gemm_back(g, n, l->w, l->dtype, l->n_out, l->n_in, out, err);
}

int vq_linear_add_back(const struct vq_linear *l, const float *g, size_t n, float *tmp, float *out,
		       struct vq_err *err)
{
	int rc = vq_linear_back(l, g, n, tmp, err);

	if (rc >= 0)
		vq_add(out, tmp, n * l->n_in);
	return rc;
}

int vq_mlp_trace(const struct vq_mlp *m, const float *x, struct vq_err *err)
{
	const struct vq_layer_config *c = m->cfg;
	size_t count = (size_t)m->n * c->inter, i;
	float *up = vq_layer_rows(m->n, c->inter, err);
	int rc = VQ_E_SYS;

	if (!up)
		return rc;
	rc = vq_linear_apply((const struct vq_linear *[]){m->up, m->gate}, c->gated ? 2 : 1, x,
			     m->n, (float *[]){up, m->value}, err);
	if (rc < 0)
		goto out;
	vq_act_slope(c->act, c->gated ? m->value : up, count, m->slope);
	if (c->gated) {
		vq_activate(c->act, m->value, NULL, count, m->value);
		for (i = 0; i < count; i++)
			m->slope[i] *= up[i];
	}
	if (m->act && c->gated)
		for (i = 0; i < count; i++)
			m->act[i] = m->value[i] * up[i];
	else if (m->act)
		vq_activate(c->act, up, NULL, count, m->act);
out:
	vq_free(up);
	return rc;
}

/* Of the middle: ga [r, inter] becomes of up, gate of the gate. */
static void back_middle(const struct vq_mlp *m, long long count, float *ga, float *gate)
{
	size_t one = (size_t)m->n * m->cfg->inter;
	int gated = m->cfg->gated;
	long long i;

#pragma omp parallel for schedule(static)
	for (i = 0; i < count; i++) {
		float a = ga[i];

		if (gated) {
			gate[i] = a * m->slope[(size_t)i % one];
			ga[i] = a * m->value[(size_t)i % one];
		} else {
			ga[i] = a * m->slope[(size_t)i % one];
		}
	}
}

int vq_mlp_back(const struct vq_mlp *m, const float *g, uint32_t k, float *gx,
		const struct vq_layer_sink *sink, const float *x, struct vq_err *err)
{
	const struct vq_layer_config *c = m->cfg;
	size_t r = (size_t)m->n * k;
	float *ga = vq_layer_rows(r, c->inter, err);
	float *gate = vq_layer_rows(c->gated ? r : 0, c->inter, err);
	float *tmp = vq_layer_rows(c->gated ? r : 0, c->hidden, err);
	int rc = VQ_E_SYS;

	if (!ga || !gate || !tmp)
		goto out;
	rc = vq_linear_back(m->down, g, r, ga, err);
	if (rc >= 0 && sink)
		rc = sink->linear(sink->ctx, VQ_LIN_DOWN, m->expert, m->act, g, m->n, err);
	if (rc < 0)
		goto out;
	back_middle(m, (long long)(r * c->inter), ga, gate);
	rc = vq_linear_back(m->up, ga, r, gx, err);
	if (rc >= 0 && c->gated)
		rc = vq_linear_add_back(m->gate, gate, r, tmp, gx, err);
	if (rc >= 0 && sink)
		rc = sink->linear(sink->ctx, VQ_LIN_UP, m->expert, x, ga, m->n, err);
	if (rc >= 0 && sink && c->gated)
		rc = sink->linear(sink->ctx, VQ_LIN_GATE, m->expert, x, gate, m->n, err);
out:
	vq_free(ga);
	vq_free(gate);
	vq_free(tmp);
	return rc;
}
