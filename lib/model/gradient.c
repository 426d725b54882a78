/* Forward with the blocks' inputs kept, and back. */
#include "model/gradient.h"

#include <string.h>

#include "base/mem.h"

/* Rows that go through a block at once, but for a sequence that is longer. */
#define CHUNK_ROWS 2048u

static int enter(const struct vq_gradient *q, uint32_t layer, struct vq_layer *l,
		 struct vq_err *err)
{
	*l = q->m->decoder.layers[layer];
	return q->enter ? q->enter(q->ctx, layer, l, err) : VQ_OK;
}

/* Sequences i..j-1 of h through l, in place. */
static int chunk(const struct vq_layer *l, const struct vq_batch *b, uint32_t i, uint32_t j,
		 float *h, struct vq_err *err)
{
	uint32_t *start = vq_alloc((size_t)(j - i) + 1, sizeof(*start), err), k;
	struct vq_batch part = {j - i, start};
	int rc;

	if (!start)
		return VQ_E_SYS;
	for (k = i; k <= j; k++)
		start[k - i] = b->start[k] - b->start[i];
	rc = vq_layer_forward(l, h + (size_t)b->start[i] * l->cfg->hidden, &part, NULL, err);
	vq_free(start);
	return rc;
}

static int forward(const struct vq_gradient *q, uint32_t layer, float *h, struct vq_err *err)
{
	const struct vq_batch *b = q->b;
	struct vq_layer l;
	uint32_t i, j;
	int rc = enter(q, layer, &l, err);

	for (i = 0; i < b->n_seqs && rc >= 0; i = j) {
		for (j = i + 1; j < b->n_seqs && b->start[j + 1] - b->start[i] <= CHUNK_ROWS; j++)
			;
		rc = chunk(&l, b, i, j, h, err);
	}
	return rc;
}

/* Losses of the states after the last layer; g [rows, d] or NULL. */
static int losses(const struct vq_gradient *q, const float *h, double *nll, float *g,
		  struct vq_err *err)
{
	uint32_t d = q->m->cfg.decoder.layer.hidden, s;
	int rc = VQ_OK;

	for (s = 0; s < q->b->n_seqs && rc >= 0; s++) {
		size_t at = q->b->start[s];
		struct vq_loss part = {q->loss.targets + at,
				       q->loss.teacher ? q->loss.teacher + at * d : NULL};

		rc = vq_decoder_loss(q->m, h + at * d, q->b->start[s + 1] - (uint32_t)at, &part,
				     &nll[s], q->weight ? q->weight[s] : 1, g ? g + at * d : NULL,
				     err);
	}
	return rc;
}

static int backward(const struct vq_gradient *q, uint32_t layer, const float *in, float *g,
		    struct vq_err *err)
{
	struct vq_layer l;
	uint32_t d = q->m->cfg.decoder.layer.hidden, s;
	int rc = enter(q, layer, &l, err);

	for (s = 0; s < q->b->n_seqs && rc >= 0; s++) {
		size_t at = q->b->start[s];

		rc = vq_layer_adjoint(&l, in + at * d, q->b->start[s + 1] - (uint32_t)at,
				      g + at * d, 1, &q->sink, err);
	}
	if (rc >= 0 && q->leave)
		rc = q->leave(q->ctx, layer, err);
	return rc;
}

int vq_decoder_losses(const struct vq_gradient *q, float *h, double *nll, struct vq_err *err)
{
	uint32_t l;
	int rc = VQ_OK;

	for (l = 0; l < q->m->cfg.decoder.n_layers && rc >= 0; l++)
		rc = forward(q, l, h, err);
	return rc < 0 ? rc : losses(q, h, nll, NULL, err);
}

int vq_decoder_gradient(const struct vq_gradient *q, float *h, double *nll, struct vq_err *err)
{
	uint32_t d = q->m->cfg.decoder.layer.hidden, n_layers = q->m->cfg.decoder.n_layers, l;
	size_t rows = q->b->start[q->b->n_seqs];
	float **in = vq_calloc(n_layers, sizeof(*in), err);
	int rc = in ? VQ_OK : VQ_E_SYS;

	for (l = 0; l < n_layers && rc >= 0; l++) {
		in[l] = vq_alloc(rows, (size_t)d * sizeof(float), err);
		if (!in[l]) {
			rc = VQ_E_SYS;
			break;
		}
		memcpy(in[l], h, rows * d * sizeof(float));
		rc = forward(q, l, h, err);
	}
	if (rc >= 0)
		rc = losses(q, h, nll, h, err);
	for (l = n_layers; l > 0 && rc >= 0; l--) {
		rc = backward(q, l - 1, in[l - 1], h, err);
		vq_free(in[l - 1]);
		in[l - 1] = NULL;
	}
	for (l = 0; in && l < n_layers; l++)
		vq_free(in[l]);
	vq_free(in);
	return rc;
}
