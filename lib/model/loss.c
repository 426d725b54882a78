/* Cross entropy over the head's rows. */
#include "model/loss.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/gemm_back.h"
#include "model/adjoint.h"

/* Rows of logits that are there at once. */
#define PIECE 256u

uint32_t vq_loss_targets(const struct vq_config *c, const int32_t *tokens, uint32_t n,
			 int32_t *targets)
{
	uint32_t i, asked = 0;

	for (i = 0; i < n; i++) {
		int is_text = i + 1 < n && !(c->has_vision && tokens[i + 1] == c->image_token);

		targets[i] = is_text ? tokens[i + 1] : VQ_NO_TARGET;
		asked += (uint32_t)is_text;
	}
	return asked;
}

/* -log softmax(x)[target] of one row of logits, which becomes scale (softmax(x) - onehot(target)). */
static double row_loss(float *x, uint32_t vocab, int32_t target, float scale)
{
	double sum = 0, of_target = x[target];
	float max = x[0];
	uint32_t i;

	for (i = 1; i < vocab; i++)
		max = x[i] > max ? x[i] : max;
	for (i = 0; i < vocab; i++)
		sum += exp((double)x[i] - max);
	for (i = 0; i < vocab; i++)
		x[i] = (float)(scale * (exp((double)x[i] - max) / sum));
	x[target] -= scale;
	return log(sum) + max - of_target;
}

/* Rows of h with targets: their losses, and gx [n, d], what goes back to the final norm's output. */
static int piece(const struct vq_model *m, const float *h, const uint32_t *at, uint32_t n,
		 const int32_t *targets, float *logits, double *losses, float scale, float *gx,
		 struct vq_err *err)
{
	const struct vq_linear *head = &m->decoder.head;
	uint32_t vocab = m->cfg.decoder.vocab;
	long long i;
	int rc = vq_decoder_logits(m, h, at, n, logits, err);

	if (rc < 0)
		return rc;
#pragma omp parallel for schedule(static)
	for (i = 0; i < n; i++)
		losses[i] = row_loss(logits + (size_t)i * vocab, vocab, targets[at[i]], scale);
	if (!gx)
		return VQ_OK;
	if (!head->w)
		return vq_fail(err, VQ_E_DATA, "loss: want a floating-point head");
	return vq_gemm_back(logits, n, head->w, head->dtype, head->n_out, head->n_in, gx, err);
}

/* Through the final norm, to the rows of g. */
static void norm_back(const struct vq_model *m, const float *h, const uint32_t *at, uint32_t n,
		      float *gx, float *g)
{
	const struct vq_layer_config *c = &m->cfg.decoder.layer;
	uint32_t i, d = c->hidden;

	for (i = 0; i < n; i++) {
		vq_norm_adjoint(VQ_NORM_RMS, c->eps, d, h + (size_t)at[i] * d, m->decoder.norm,
				gx + (size_t)i * d);
		memcpy(g + (size_t)at[i] * d, gx + (size_t)i * d,
		       d * sizeof(float)); /* g may be h */
	}
}

static int check_targets(const struct vq_model *m, const int32_t *targets, uint32_t n,
			 struct vq_err *err)
{
	uint32_t i, vocab = m->cfg.decoder.vocab;

	for (i = 0; i < n; i++)
		if (targets[i] != VQ_NO_TARGET && (targets[i] < 0 || (uint32_t)targets[i] >= vocab))
			return vq_fail(err, VQ_E_DATA, "token %d at %u: want 0..%u", targets[i],
				       i + 1, vocab - 1);
	return VQ_OK;
}

int vq_decoder_loss(const struct vq_model *m, const float *h, uint32_t n, const int32_t *targets,
		    double *nll, float scale, float *g, struct vq_err *err)
{
	uint32_t d = m->cfg.decoder.layer.hidden, at[PIECE], i = 0, k, j;
	double losses[PIECE], sum = 0;
	float *logits = vq_alloc(PIECE, (size_t)m->cfg.decoder.vocab * sizeof(float), err);
	float *gx = g ? vq_alloc(PIECE, (size_t)d * sizeof(float), err) : NULL;
	int rc = logits && (gx || !g) ? check_targets(m, targets, n, err) : VQ_E_SYS;

	while (i < n && rc >= 0) {
		for (k = 0; i < n && k < PIECE; i++)
			if (targets[i] != VQ_NO_TARGET)
				at[k++] = i;
		if (k == 0)
			break;
		rc = piece(m, h, at, k, targets, logits, losses, scale, gx, err);
		for (j = 0; j < k && rc >= 0; j++)
			sum += losses[j];
		if (rc >= 0 && g)
			norm_back(m, h, at, k, gx, g);
	}
	for (i = 0; i < n && rc >= 0 && g; i++)
		if (targets[i] == VQ_NO_TARGET)
			memset(g + (size_t)i * d, 0, d * sizeof(float));
	if (rc >= 0)
		*nll = sum;
	vq_free(logits);
	vq_free(gx);
	return rc;
}
