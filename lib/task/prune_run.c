/* Samples through the decoder. */
#include "task/prune_run.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model/sampler.h"
#include "task/calib_run.h"
#include "task/calib_weights.h"

#define HEAD_ROWS 128u /* of logits at a time */

/* One sample's rows before the first block. */
static int enter(struct vq_prune_run *r, const struct vq_prompt *p, float *h, struct vq_err *err)
{
	const struct vq_config *c = &r->model.cfg;
	size_t n = (size_t)p->n_images * c->n_image_tokens;
	float *image = n ? vq_alloc(n, r->width * sizeof(float), err) : NULL;
	int rc = n && !image ? VQ_E_SYS : VQ_OK;

	if (rc == VQ_OK && n)
		rc = vq_vision_encode(&r->model, p->pixels, p->n_images, image, err);
	if (rc == VQ_OK)
		rc = vq_decoder_embed(&r->model, p->tokens, p->n_tokens, image, n, h, err);
	vq_free(image);
	return rc;
}

int vq_prune_run_open(struct vq_prune_run *r, const struct vq_config *c, const struct vq_ckpt *k,
		      const struct vq_prune_samples *s, struct vq_err *err)
{
	uint32_t i, units = vq_config_n_units(c);
	int rc = VQ_OK;

	memset(r, 0, sizeof(*r));
	r->samples = s;
	r->rows = s->start[s->n];
	r->width = c->decoder.layer.hidden;
	for (i = 0; rc >= 0 && i < units; i++)
		rc = vq_calib_weights_check(c, k, i, err);
	if (rc >= 0)
		rc = vq_model_from_ckpt(&r->model, c, k, err);
	if (rc < 0)
		return rc;
	r->h0 = vq_alloc(r->rows, r->width * sizeof(float), err);
	rc = r->h0 ? VQ_OK : VQ_E_SYS;
	for (i = 0; rc == VQ_OK && i < s->n; i++)
		rc = enter(r, &s->prompts[i], r->h0 + (size_t)s->start[i] * r->width, err);
	return rc;
}

void vq_prune_run_close(struct vq_prune_run *r)
{
	vq_free(r->h0);
	vq_model_free(&r->model);
	memset(r, 0, sizeof(*r));
}

/* Where sequence i of the copies begins, counted from the first. */
static uint64_t row_of(const struct vq_prune_samples *s, uint64_t i)
{
	return i / s->n * s->start[s->n] + s->start[i % s->n];
}

int vq_prune_run_block(const struct vq_prune_run *r, uint32_t b, float *h, uint32_t n,
		       struct vq_err *err)
{
	const struct vq_prune_samples *s = r->samples;
	uint64_t all = (uint64_t)n * s->n, i, j, k;
	uint32_t *start = vq_alloc(VQ_CALIB_CHUNK_ROWS + 1, sizeof(*start), err);
	int rc = start ? VQ_OK : VQ_E_SYS;

	/* As many whole sequences as fit the rows that calibration takes at once, one at least. */
	for (i = 0; rc == VQ_OK && i < all; i = j) {
		struct vq_batch batch = {0, start};

		for (j = i + 1; j < all && j - i < VQ_CALIB_CHUNK_ROWS &&
				row_of(s, j + 1) - row_of(s, i) <= VQ_CALIB_CHUNK_ROWS;)
			j++;
		for (k = i; k <= j; k++)
			start[k - i] = (uint32_t)(row_of(s, k) - row_of(s, i));
		batch.n_seqs = (uint32_t)(j - i);
		rc = vq_layer_forward(&r->model.decoder.layers[b], h + row_of(s, i) * r->width,
				      &batch, NULL, err);
	}
	vq_free(start);
	return rc;
}

/* Sum of -log p over the tokens that follow rows [at, at + n) of a sample. */
static int add_losses(const struct vq_prune_run *r, const struct vq_prompt *p, const float *h,
		      const uint32_t *rows, uint32_t n, float *logits, double *sum,
		      struct vq_err *err)
{
	uint32_t i, vocab = r->model.cfg.decoder.vocab;
	int rc = vq_decoder_logits(&r->model, h, rows, n, logits, err);

	for (i = 0; rc == VQ_OK && i < n; i++)
		*sum -= vq_log_prob(logits + (size_t)i * vocab, vocab, p->tokens[rows[i] + 1]);
	return rc;
}

int vq_prune_run_ppl(const struct vq_prune_run *r, const float *h, double *ppl, struct vq_err *err)
{
	const struct vq_prune_samples *s = r->samples;
	float *logits = vq_alloc(HEAD_ROWS, r->model.cfg.decoder.vocab * sizeof(float), err);
	uint32_t rows[HEAD_ROWS], n = 0, i, t;
	uint64_t targets = 0;
	double sum = 0;
	int rc = logits ? VQ_OK : VQ_E_SYS;

	for (i = 0; i < s->n; i++)
		for (t = 1; rc == VQ_OK && t <= s->prompts[i].n_tokens; t++) {
			if (vq_prune_target(s, &r->model.cfg, i, t))
				rows[n++] = t - 1;
			if (n == 0 || (n < HEAD_ROWS && t < s->prompts[i].n_tokens))
				continue;
			rc = add_losses(r, &s->prompts[i], h + (size_t)s->start[i] * r->width, rows,
					n, logits, &sum, err);
			targets += n;
			n = 0;
		}
	vq_free(logits);
	if (rc == VQ_OK)
		*ppl = exp(sum / (double)targets);
	return rc;
}
