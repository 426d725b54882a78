/* Layer-wise: the clips of one place by its own output error. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "quant/layerwise.h"
#include "task/search_sblock.h"

/* Rows that trials multiply at once, about: bounds the memory of all candidates' outputs. */
#define TRIAL_ROWS 512u

/* The buffers of one trial: outputs in full precision, and with every clip of the weights. */
struct trial {
	float *ref[3], *y[3 * VQ_QVLM_VALUES];
	struct vq_linear lin[3 * VQ_QVLM_VALUES];
	uint8_t value[3 * VQ_QVLM_VALUES], of[3 * VQ_QVLM_VALUES];
	uint32_t n;
	size_t rows; /* at once */
};

static void trial_free(struct trial *t)
{
	uint32_t i;

	for (i = 0; i < 3; i++)
		vq_free(t->ref[i]);
	for (i = 0; i < t->n; i++)
		vq_free(t->y[i]);
}

static int trial_new(struct trial *t, const struct vq_place *p, struct vq_err *err)
{
	uint32_t i, w;

	memset(t, 0, sizeof(*t));
	t->rows = vq_agrid_chunk(&p->a, TRIAL_ROWS);
	for (i = 0; i < p->n; i++) {
		t->ref[i] = vq_alloc_f32(t->rows * p->lin[i].full->n_out, err);
		if (!t->ref[i])
			return VQ_E_SYS;
	}
	/* Linear by linear within a value: they share a transform, if there is one. */
	for (w = 0; w < VQ_QVLM_VALUES; w++)
		for (i = 0; p->w_usable[w] && i < p->n; i++) {
			t->of[t->n] = (uint8_t)i;
			t->value[t->n] = (uint8_t)w;
			t->y[t->n] = vq_alloc_f32(t->rows * p->lin[i].full->n_out, err);
			if (!t->y[t->n++])
				return VQ_E_SYS;
		}
	return VQ_OK;
}

/* Adds the errors of some rows, input clip a; r: their weights or NULL. */
static int try_rows(struct trial *t, const struct vq_place *p, const float *xq, const float *r,
		    size_t n, uint32_t a, double *errors, struct vq_err *err)
{
	const struct vq_linear *lin[3 * VQ_QVLM_VALUES];
	uint32_t i;
	int rc;

	for (i = 0; i < t->n; i++) {
		t->lin[i] = vq_place_linear_of(p, t->of[i], a, t->value[i]);
		lin[i] = &t->lin[i];
	}
	rc = vq_linear_apply(lin, t->n, xq, n, t->y, err);
	for (i = 0; rc == VQ_OK && i < t->n; i++)
		errors[a * VQ_QVLM_VALUES + t->value[i]] +=
			vq_sum_weighted2(t->y[i], t->ref[t->of[i]], r, n, t->lin[i].n_out);
	return rc;
}

/* errors [values of the input's clip, of the weights' clip]: of the place's own outputs.  From samples also where only
 * weights change: second moments give the same choice, and are cheaper at narrow inputs alone (tests/bench/README.md). */
static int pair_errors(struct vq_sblock *b, const struct vq_place *p, const float *xq,
		       const float *xf, size_t n_rows, double *errors, struct vq_err *err)
{
	uint32_t n_in = p->lin[0].full->n_in, a, w, i;
	struct trial t;
	int rc = trial_new(&t, p, err);
	const float *r = b->r;
	size_t at;

	for (a = 0; a < VQ_QVLM_VALUES; a++)
		for (w = 0; w < VQ_QVLM_VALUES; w++) {
			int use = p->a_usable[a] && p->w_usable[w];

			errors[a * VQ_QVLM_VALUES + w] = use ? 0 : INFINITY;
			b->cost.n_places += (uint64_t)use;
		}
	for (at = 0; rc == VQ_OK && at < n_rows; at += t.rows) {
		size_t n = n_rows - at < t.rows ? n_rows - at : t.rows;

		for (i = 0; rc == VQ_OK && i < p->n; i++)
			rc = vq_linear_one(p->lin[i].full, xf + at * n_in, n, t.ref[i], err);
		for (a = 0; rc == VQ_OK && a < VQ_QVLM_VALUES; a++)
			if (p->a_usable[a])
				rc = try_rows(&t, p, xq + at * n_in, r ? r + at : NULL, n, a,
					      errors, err);
	}
	trial_free(&t);
	return rc;
}

int vq_sblock_layerwise(struct vq_sblock *b, uint32_t i, const float *xq, const float *xf,
			size_t n_rows, struct vq_err *err)
{
	double errors[VQ_QVLM_VALUES * VQ_QVLM_VALUES];
	struct vq_place *p = &b->places[i];
	uint32_t v, a = 0, w = 0;
	int rc;

	rc = vq_search_clips_inputs(b->o) ? vq_place_measure_input(p, xq, n_rows, err) : VQ_OK;
	if (rc == VQ_OK && vq_search_clips_weights(b->o))
		rc = vq_place_measure_weights(p, err);
	else
		vq_place_values_transform(p);
	for (v = 0; rc == VQ_OK && v < VQ_QVLM_VALUES; v++)
		if (p->w_usable[v])
			rc = vq_place_build(p, v, err);
	if (rc == VQ_OK && (p->w.bits != 16 || p->a.bits != VQ_ACT_FLOAT)) {
		rc = pair_errors(b, p, xq, xf, n_rows, errors, err);
		if (rc == VQ_OK)
			vq_layerwise_pick(errors, VQ_QVLM_VALUES, VQ_QVLM_VALUES, &a, &w);
	}
	if (rc < 0)
		return rc;
	b->choice[2 * i] = (uint8_t)a;
	b->choice[2 * i + 1] = (uint8_t)w;
	memcpy(b->usable + (size_t)2 * i * VQ_QVLM_VALUES, p->a_usable, VQ_QVLM_VALUES);
	memcpy(b->usable + (size_t)(2 * i + 1) * VQ_QVLM_VALUES, p->w_usable, VQ_QVLM_VALUES);
	vq_place_set(p, a, w);
	vq_place_keep(p, w);
	return VQ_OK;
}
