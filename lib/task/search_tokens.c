/* Weights of calibration tokens. */
#include "task/search_tokens.h"

#include <string.h>

#include "base/mem.h"
#include "model/attention_mass.h"

#define LEAST .01 /* of attention weights, before they are made 1 in the mean */

static int measured(const struct vq_search_opts *o)
{
	return o->token_weights == VQ_TOKENS_VISION && o->vision_weight < 0;
}

int vq_tokens_begin(struct vq_tokens *t, const struct vq_search_opts *o, const struct vq_acts *acts,
		    const uint32_t *seqs, const struct vq_batch *b, uint32_t first,
		    struct vq_err *err)
{
	size_t n = b->start[b->n_seqs];
	uint32_t i, k;

	*t = (struct vq_tokens){.o = o, .acts = acts, .batch = b};
	if (o->token_weights == VQ_TOKENS_NONE || first < vq_config_decoder_unit(acts->cfg))
		return VQ_OK;
	if (measured(o) && !acts->vision_weight)
		return vq_fail(err, VQ_E_DATA,
			       "no record 'stat/vision_weight' in the stream: run vqlm-calib with "
			       "pictures and --influence-samples above 0, or give "
			       "--vision-weight a number");
	t->image = vq_calloc(n, 1, err);
	t->r = vq_alloc_f32(n, err);
	t->block = vq_alloc_f32(n, err);
	if (!t->image || !t->r || !t->block) {
		vq_tokens_free(t);
		return VQ_E_SYS;
	}
	memset(t->block, 0, n * sizeof(float));
	for (i = 0; i < b->n_seqs; i++)
		for (k = b->start[i]; acts->cfg->has_vision && k < b->start[i + 1]; k++)
			t->image[k] = acts->samples[seqs[i]].tokens[k - b->start[i]] ==
				      acts->cfg->image_token;
	return VQ_OK;
}

/* Least..most become LEAST..1; all equal: 1. */
static void scale_range(float *r, size_t n)
{
	float low = r[0], high = r[0];
	size_t i;

	for (i = 0; i < n; i++) {
		low = r[i] < low ? r[i] : low;
		high = r[i] > high ? r[i] : high;
	}
	for (i = 0; i < n; i++)
		r[i] = high > low ? (float)(LEAST + (1 - LEAST) * ((double)r[i] - low) /
							    ((double)high - low))
				  : 1;
}

/* Where all are 0 (pictures only, and lambda 0) they become 1. */
static void scale_mean(float *r, size_t n)
{
	double sum = 0;
	size_t i;

	for (i = 0; i < n; i++)
		sum += r[i];
	for (i = 0; i < n; i++)
		r[i] = sum > 0 ? (float)(r[i] * ((double)n / sum)) : 1;
}

int vq_tokens_layer(struct vq_tokens *t, uint32_t unit, const struct vq_layer *l, const float *x,
		    struct vq_err *err)
{
	size_t n, i;
	double lambda;
	int rc;

	if (!t->r)
		return VQ_OK;
	n = t->batch->start[t->batch->n_seqs];
	if (t->o->token_weights == VQ_TOKENS_ATTENTION) {
		rc = vq_attention_mass(l, x, t->batch, t->r, err);
		if (rc < 0)
			return rc;
		scale_range(t->r, n);
	} else {
		lambda =
			measured(t->o) ? (double)t->acts->vision_weight[unit] : t->o->vision_weight;
		for (i = 0; i < n; i++)
			t->r[i] = t->image[i] ? (float)lambda : 1;
	}
	scale_mean(t->r, n);
	t->n_layers++;
	for (i = 0; i < n; i++)
		t->block[i] += (t->r[i] - t->block[i]) / (float)t->n_layers;
	return VQ_OK;
}

void vq_tokens_free(struct vq_tokens *t)
{
	vq_free(t->image);
	vq_free(t->r);
	vq_free(t->block);
	memset(t, 0, sizeof(*t));
}
