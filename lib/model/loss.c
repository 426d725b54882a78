/* Cross entropy over the head's rows. */
#include "model/loss.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/gemm_back.h"
#include "model/adjoint.h"

/* Rows of logits that are there at once. */
#define PIECE 256u

static void softmax_log(const float *x, uint32_t vocab, float *max, double *log_sum)
{
	double sum = 0;
	uint32_t i;

	*max = x[0];
	for (i = 1; i < vocab; i++)
		*max = x[i] > *max ? x[i] : *max;
	for (i = 0; i < vocab; i++)
		sum += exp((double)x[i] - *max);
	*log_sum = log(sum);
}

/* -log softmax(x)[target] of one row of logits, which becomes scale (softmax(x) - onehot(target)). */
static double row_loss(float *x, uint32_t vocab, int32_t target, float scale)
{
	double log_sum, of_target = x[target];
	float max;
	uint32_t i;

	softmax_log(x, vocab, &max, &log_sum);
	for (i = 0; i < vocab; i++)
		x[i] = (float)(scale * exp((double)x[i] - max - log_sum));
	x[target] -= scale;
	return log_sum + max - of_target;
}

/* sum p log(p / q), q = softmax(x), p = softmax(t); x becomes scale (q - p). */
static double row_distance(float *x, const float *t, uint32_t vocab, float scale)
{
	double sum = 0, lx, lt;
	float mx, mt;
	uint32_t i;

	softmax_log(x, vocab, &mx, &lx);
	softmax_log(t, vocab, &mt, &lt);
	for (i = 0; i < vocab; i++) {
		double log_q = (double)x[i] - mx - lx, log_p = (double)t[i] - mt - lt,
		       p = exp(log_p);

		sum += p * (log_p - log_q);
		x[i] = (float)(scale * (exp(log_q) - p));
	}
	return sum;
}

/* Room for a piece: logits, those of the teacher (or NULL), losses, and what goes back to the final norm's output. */
struct room {
	float *logits, *teacher, *gx;
	double losses[PIECE];
};

/* Rows of h with targets: their losses, and gx [n, d]. */
static int piece(const struct vq_model *m, const float *h, const uint32_t *at, uint32_t n,
		 const struct vq_loss *loss, struct room *r, float scale, struct vq_err *err)
{
	const struct vq_linear *head = &m->decoder.head;
	uint32_t vocab = m->cfg.decoder.vocab;
	long long i;
	int rc = vq_decoder_logits(m, h, at, n, r->logits, err);

	if (rc >= 0 && r->teacher)
		rc = vq_decoder_logits(m, loss->teacher, at, n, r->teacher, err);
	if (rc < 0)
		return rc;
#pragma omp parallel for schedule(static)
	for (i = 0; i < n; i++) {
		float *x = r->logits + (size_t)i * vocab;

		r->losses[i] =
			r->teacher ? row_distance(x, r->teacher + (size_t)i * vocab, vocab, scale)
				   : row_loss(x, vocab, loss->targets[at[i]], scale);
	}
	if (!r->gx)
		return VQ_OK;
	if (!head->w)
		return vq_fail(err, VQ_E_DATA, "loss: want a floating-point head");
	return vq_gemm_back(r->logits, n, head->w, head->dtype, head->n_out, head->n_in, r->gx,
			    err);
}

/* Through the final norm, to the rows of g. */
static void norm_back(const struct vq_model *m, const float *h, const uint32_t *at, uint32_t n,
		      float *gx, float *g)
{
	const struct vq_layer_config *c = &m->cfg.decoder.layer;
	uint32_t i, d = c->hidden;

	for (i = 0; i < n; i++) {
		vq_norm_adjoint(c->norm, c->eps, d, h + (size_t)at[i] * d, m->decoder.norm,
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

static int room_new(struct room *r, const struct vq_model *m, int teacher, int back,
		    struct vq_err *err)
{
	size_t logits = m->cfg.decoder.vocab * sizeof(float);

	*r = (struct room){.logits = vq_alloc(PIECE, logits, err)};
	if (teacher)
		r->teacher = vq_alloc(PIECE, logits, err);
	if (back)
		r->gx = vq_alloc(PIECE, m->cfg.decoder.layer.hidden * sizeof(float), err);
	return r->logits && (r->teacher || !teacher) && (r->gx || !back) ? VQ_OK : VQ_E_SYS;
}

static void room_free(struct room *r)
{
	vq_free(r->logits);
	vq_free(r->teacher);
	vq_free(r->gx);
}

int vq_decoder_loss(const struct vq_model *m, const float *h, uint32_t n,
		    const struct vq_loss *loss, double *nll, float scale, float *g,
		    struct vq_err *err)
{
	uint32_t d = m->cfg.decoder.layer.hidden, at[PIECE], i = 0, k, j;
	struct room r;
	double sum = 0;
	int rc = room_new(&r, m, loss->teacher != NULL, g != NULL, err);

	if (rc >= 0)
		rc = check_targets(m, loss->targets, n, err);
	while (i < n && rc >= 0) {
		for (k = 0; i < n && k < PIECE; i++)
			if (loss->targets[i] != VQ_NO_TARGET)
				at[k++] = i;
		if (k == 0)
			break;
		rc = piece(m, h, at, k, loss, &r, scale, err);
		for (j = 0; j < k && rc >= 0; j++)
			sum += r.losses[j];
		if (rc >= 0 && g)
			norm_back(m, h, at, k, r.gx, g);
	}
	for (i = 0; i < n && rc >= 0 && g; i++)
		if (loss->targets[i] == VQ_NO_TARGET)
			memset(g + (size_t)i * d, 0, d * sizeof(float));
	if (rc >= 0)
		*nll = sum;
	room_free(&r);
	return rc;
}
