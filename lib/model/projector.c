/* From vision features to decoder rows: one linear, or two with an activation between. */
#include "base/mem.h"
#include "kernel/ops.h"
#include "model/model.h"

void vq_projector_activate(const struct vq_config *c, float *x, size_t n)
{
	switch (c->projector.act) {
	case VQ_ACT_SILU: vq_silu(x, NULL, n, x); break;
	case VQ_ACT_QUICK_GELU: vq_quick_gelu(x, NULL, n, x); break;
	case VQ_ACT_GELU_ERF: vq_gelu_erf(x, NULL, n, x); break;
	case VQ_ACT_GELU_TANH: vq_gelu_tanh(x, NULL, n, x); break;
	}
}

int vq_projector_apply(const struct vq_config *c, const struct vq_projector *p,
		       const float *features, size_t n, float *out, struct vq_err *err)
{
	size_t count;
	float *mid;
	int rc;

	if (c->projector.n_linears == 1)
		return vq_linear_one(&p->fc[0], features, n, out, err);
	if (vq_mul_size(&count, n, c->projector.out) < 0)
		return vq_fail(err, VQ_E_SYS, "memory: %zu rows of %u", n, c->projector.out);
	mid = vq_alloc_f32(count, err);
	if (!mid)
		return VQ_E_SYS;
	rc = vq_linear_one(&p->fc[0], features, n, mid, err);
	if (rc >= 0) {
		vq_projector_activate(c, mid, count);
		rc = vq_linear_one(&p->fc[1], mid, n, out, err);
	}
	vq_free(mid);
	return rc;
}
