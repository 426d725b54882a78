/* From vision features to decoder rows: one linear, or two with an activation between. */
#include "base/mem.h"
#include "model/model.h"

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
	rc = vq_linear_act(&p->fc[0], NULL, c->projector.act, features, n, mid, err);
	if (rc >= 0)
		rc = vq_linear_one(&p->fc[1], mid, n, out, err);
	vq_free(mid);
	return rc;
}
