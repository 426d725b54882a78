/* The criterion "magnitude". */
#include <math.h>

#include "base/mem.h"
#include "model/names.h"
#include "task/prune_score.h"

#define PIECE ((size_t)1 << 20) /* elements turned into floats at a time */

/* Sum of |w|, in pieces that do not depend on the number of threads. */
static int sum_abs(const struct vq_tensor *t, float *piece, double *sum, struct vq_err *err)
{
	size_t n, at, i;
	int rc = VQ_OK;

	if (vq_tensor_count(t, &n) < 0)
		return vq_fail(err, VQ_E_DATA, "a tensor is too large");
	for (at = 0; rc == VQ_OK && at < n; at += PIECE) {
		size_t m = n - at < PIECE ? n - at : PIECE;
		double part = 0;

		rc = vq_tensor_to_f32(t, at, m, piece, err);
		for (i = 0; rc == VQ_OK && i < m; i++)
			part += fabs((double)piece[i]);
		*sum += part;
	}
	return rc;
}

static int score_block(const struct vq_prune_job *j, const struct vq_name *names, size_t n,
		       uint32_t unit, float *piece, double *sum, struct vq_err *err)
{
	struct vq_tensor t;
	size_t i;
	int rc = VQ_OK;

	*sum = 0;
	for (i = 0; rc >= 0 && i < n; i++) {
		if (names[i].unit != unit || !vq_names_in_layer(names[i].name))
			continue;
		rc = vq_names_find(j->cfg, j->ckpt, &names[i], &t, err);
		if (rc >= 0)
			rc = vq_names_check_finite(&t, names[i].name, vq_ckpt_path(j->ckpt), err);
		if (rc >= 0)
			rc = sum_abs(&t, piece, sum, err);
	}
	return rc;
}

int vq_score_magnitude(const struct vq_prune_job *j, const struct vq_blocks *alive, double *score,
		       struct vq_err *err)
{
	struct vq_name *names = NULL;
	float *piece = vq_alloc_f32(PIECE, err);
	uint32_t i, first = vq_config_decoder_unit(j->cfg);
	size_t n;
	int rc = piece ? vq_names_list(j->cfg, &names, &n, err) : VQ_E_SYS;

	for (i = 0; rc >= 0 && i < alive->n; i++)
		rc = score_block(j, names, n, first + alive->v[i], piece, &score[i], err);
	vq_free(names);
	vq_free(piece);
	return rc;
}
