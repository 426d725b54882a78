/* The criterion "taylor": how the loss changes to first order when a block's weights become 0, after Kim et al. (arXiv
 * 2402.02834), section 3.2 and the authors' scripts.
 *
 *   S = sum over batches of w dL/dw, with sign;   score = sum over a tensor's elements of |S|
 *
 * L is the mean loss of a batch's tokens.  Weights stay as they are from batch to batch, so S = w G with G the sum of the
 * batches' gradients: one gradient a tensor is held, of one block at a time. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/gemm_back.h"
#include "model/gradient.h"
#include "task/prune_cut.h"
#include "task/prune_run.h"
#include "task/prune_score.h"

/* Columns in the order of the published tables. */
static const enum vq_lin columns[VQ_N_LINEARS] = {VQ_LIN_Q,    VQ_LIN_K,  VQ_LIN_V,   VQ_LIN_O,
						  VQ_LIN_GATE, VQ_LIN_UP, VQ_LIN_DOWN};

struct taylor {
	struct vq_layer *layer;
	/* [n_out, n_in] of q, k, v, o, and of up, gate and down of each expert; NULL where there is none */
	float *grad[VQ_LIN_UP + VQ_LIMIT_EXPERTS * VQ_EXPERT_LINEARS];
	double *norm[2]; /* [hidden] */
	double *score;   /* [n, VQ_PRUNE_TENSORS] */
};

static int on_enter(void *ctx, uint32_t layer, struct vq_layer *l, struct vq_err *err)
{
	struct taylor *t = ctx;

	(void)layer;
	(void)err;
	t->layer = l;
	return VQ_OK;
}

/* Where the gradient of a linear is summed. */
static float **grad_of(struct taylor *t, enum vq_lin lin, uint32_t expert)
{
	return &t->grad[lin < VQ_LIN_UP ? (uint32_t)lin : lin + expert * VQ_EXPERT_LINEARS];
}

static int on_linear(void *ctx, enum vq_lin lin, uint32_t expert, const float *x, const float *g,
		     uint32_t n, struct vq_err *err)
{
	struct taylor *t = ctx;
	const struct vq_linear *l = vq_layer_linear(t->layer, lin, expert);

	(void)err;
	vq_gemm_weight_grad(g, x, n, l->n_out, l->n_in, *grad_of(t, lin, expert));
	return VQ_OK;
}

static int on_norm(void *ctx, int second, const float *in, const float *g, uint32_t n,
		   struct vq_err *err)
{
	struct taylor *t = ctx;
	const struct vq_layer_config *c = t->layer->cfg;
	uint32_t i, d = c->hidden;

	(void)err;
	for (i = 0; i < n; i++)
		vq_norm_weight_adjoint(c->norm, c->eps, d, in + (size_t)i * d, g + (size_t)i * d,
				       t->norm[second]);
	return VQ_OK;
}

/* Sum of |w grad|; grad becomes 0. */
static int linear_score(const struct vq_linear *l, float *grad, double *score, struct vq_err *err)
{
	struct vq_tensor w = {l->dtype, 2, {l->n_out, l->n_in}, l->w};
	float *row = vq_alloc_f32(l->n_in, err);
	size_t o, i;
	int rc = row ? VQ_OK : VQ_E_SYS;

	*score = 0;
	for (o = 0; rc == VQ_OK && o < l->n_out; o++) {
		rc = vq_tensor_to_f32(&w, o * l->n_in, l->n_in, row, err);
		for (i = 0; rc == VQ_OK && i < l->n_in; i++)
			*score += fabs((double)row[i] * grad[o * l->n_in + i]);
	}
	memset(grad, 0, (size_t)l->n_out * l->n_in * sizeof(float));
	vq_free(row);
	return rc;
}

/* Nothing where a parallel layer has no such norm. */
static double norm_score(const float *w, double *grad, uint32_t n)
{
	double sum = 0;
	uint32_t i;

	for (i = 0; w && i < n; i++)
		sum += fabs((double)w[i] * grad[i]);
	memset(grad, 0, n * sizeof(double));
	return sum;
}

/* How many of a linear a layer has; the score of gate, up and down is the sum over the experts. */
static uint32_t n_of(const struct vq_layer *l, enum vq_lin lin)
{
	return l->n_experts && lin >= VQ_LIN_UP ? l->n_experts : 1;
}

static int on_leave(void *ctx, uint32_t layer, struct vq_err *err)
{
	struct taylor *t = ctx;
	double *score = t->score + (size_t)layer * VQ_PRUNE_TENSORS;
	uint32_t i, e, d = t->layer->cfg->hidden;
	double one;
	int rc = VQ_OK;

	for (i = 0; i < VQ_N_LINEARS; i++)
		for (e = 0, score[i] = 0; rc == VQ_OK && e < n_of(t->layer, columns[i]); e++) {
			rc = linear_score(vq_layer_linear(t->layer, columns[i], e),
					  *grad_of(t, columns[i], e), &one, err);
			score[i] += one;
		}
	score[VQ_N_LINEARS] = norm_score(t->layer->norm1_w, t->norm[0], d);
	score[VQ_N_LINEARS + 1] = norm_score(t->layer->norm2_w, t->norm[1], d);
	return rc;
}

/* Room for the gradients of layer l, beside that of other layers. */
static int room_new(struct taylor *t, struct vq_layer *l, struct vq_err *err)
{
	uint32_t i, e;

	for (i = 0; i < VQ_N_LINEARS; i++)
		for (e = 0; e < n_of(l, (enum vq_lin)i); e++) {
			const struct vq_linear *m = vq_layer_linear(l, (enum vq_lin)i, e);
			float **g = grad_of(t, (enum vq_lin)i, e);

			if (!*g)
				*g = vq_calloc(m->n_out, m->n_in * sizeof(float), err);
			if (!*g)
				return VQ_E_SYS;
		}
	for (i = 0; i < 2 && !t->norm[i]; i++) {
		t->norm[i] = vq_calloc(l->cfg->hidden, sizeof(double), err);
		if (!t->norm[i])
			return VQ_E_SYS;
	}
	return VQ_OK;
}

static void room_free(struct taylor *t)
{
	uint32_t i;

	for (i = 0; i < sizeof(t->grad) / sizeof(t->grad[0]); i++)
		vq_free(t->grad[i]);
	vq_free(t->norm[0]);
	vq_free(t->norm[1]);
}

/* What the samples are asked for, and what a sample's summed loss counts: 1 / the tokens of its batch. */
static void lay_targets(const struct vq_prune_run *r, uint32_t batch, int32_t *targets,
			float *weight)
{
	const struct vq_prune_samples *s = r->samples;
	uint32_t i, j, k, asked;

	for (i = 0; i < s->n; i = j) {
		for (j = i, asked = 0; j < s->n && j - i < batch; j++)
			asked += vq_prune_targets(s, &r->model.cfg, j, targets + s->start[j]);
		for (k = i; k < j; k++)
			weight[k] = asked ? 1.0f / (float)asked : 0;
	}
}

static int run(struct taylor *t, const struct vq_prune_job *j, const struct vq_model *m,
	       struct vq_err *err)
{
	const struct vq_prune_samples *s = j->run->samples;
	size_t rows = j->run->rows, bytes = rows * j->run->width * sizeof(float);
	struct vq_batch b = {s->n, s->start};
	int32_t *targets = vq_alloc(rows, sizeof(*targets), err);
	float *weight = vq_alloc_f32(s->n, err), *h = vq_alloc(bytes, 1, err);
	double *nll = vq_alloc(s->n, sizeof(*nll), err);
	struct vq_gradient q = {m, &b,       {targets, NULL},         weight,
				t, on_enter, {on_linear, on_norm, t}, on_leave};
	int rc = VQ_E_SYS;

	if (targets && weight && h && nll) {
		lay_targets(j->run, j->o->taylor_batch, targets, weight);
		memcpy(h, j->run->h0, bytes);
		rc = vq_decoder_gradient(&q, h, nll, err);
	}
	vq_free(nll);
	vq_free(h);
	vq_free(weight);
	vq_free(targets);
	return rc;
}

int vq_score_taylor(const struct vq_prune_job *j, const struct vq_blocks *alive, double *score,
		    struct vq_err *err)
{
	struct taylor t = {.score = j->detail};
	struct vq_model m;
	uint32_t i, k;
	int rc = vq_prune_cut(&m, &j->run->model, alive, err);

	if (rc < 0)
		return rc;
	for (i = 0; rc == VQ_OK && i < alive->n; i++)
		rc = room_new(&t, &m.decoder.layers[i], err);
	if (rc == VQ_OK)
		rc = run(&t, j, &m, err);
	for (i = 0; rc == VQ_OK && i < alive->n; i++)
		for (k = 0, score[i] = 0; k < VQ_PRUNE_TENSORS; k++)
			score[i] += j->detail[(size_t)i * VQ_PRUNE_TENSORS + k];
	room_free(&t);
	vq_prune_cut_free(&m);
	return rc;
}
