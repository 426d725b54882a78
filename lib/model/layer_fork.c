/* A layer's run between two places, twice. */
#include <string.h>

#include "base/mem.h"
#include "model/layer_stage.h"

static int copy(float **to, const float *x, size_t n_rows, uint32_t width, struct vq_err *err)
{
	if (!x)
		return VQ_OK;
	*to = vq_layer_rows(n_rows, width, err);
	if (!*to)
		return VQ_E_SYS;
	memcpy(*to, x, n_rows * width * sizeof(float));
	return VQ_OK;
}

int vq_layer_fork(struct vq_layer_run *to, const struct vq_layer_run *r, float *h,
		  struct vq_err *err)
{
	int sparse = r->route.start != NULL, rc;

	*to = *r;
	to->h = h;
	to->x = to->wide = to->mid = to->kept = NULL;
	to->choice = NULL;
	to->route = (struct vq_route){0};
	rc = copy(&to->x, r->x, sparse ? r->route.n_rows : r->n_rows, r->x_width, err);
	if (rc >= 0)
		rc = copy(&to->kept, r->kept, r->n_rows, r->layer->cfg->hidden, err);
	if (rc < 0 || !sparse)
		return rc;
	rc = vq_route_copy(&to->route, &r->route, err);
	if (rc >= 0)
		rc = copy(&to->wide, r->wide, r->n_rows, r->layer->cfg->hidden, err);
	if (rc >= 0)
		rc = copy(&to->mid, r->mid, r->route.n_rows, r->layer->cfg->inter, err);
	if (rc < 0)
		return rc;
	to->choice = vq_alloc(r->n_rows, sizeof(*to->choice), err);
	if (!to->choice)
		return VQ_E_SYS;
	memcpy(to->choice, r->choice, r->n_rows * sizeof(*to->choice));
	return VQ_OK;
}
