/* Weights of calibration tokens: how much a token of the decoder counts in second moments and in errors.
 *
 *   none       all 1
 *   vision     lambda for the rows of pictures, 1 for text (MBQ, CVPR 2025): a number, or what calib measured for the
 *              layer (STAT stat/vision_weight)
 *   attention  the attention that the token gets in the layer in full precision (model/attention_mass.h), scaled to
 *              0.01 for the least and 1 for the most of the rows at hand (RSQ, arXiv 2503.01820)
 *
 * and then all times one factor, so that their mean is 1.  Vision tower and projector have no weights.
 *
 * The default is none: on mini-llava-outlier (64 samples, seeds 0 and 1, 300 questions of val) the mean KL divergence
 * from full precision is, in the order none, vision 0.1, vision measured, attention,
 *   gptq W4A4   0.288 0.301 0.282 0.291;  0.260 0.289 0.281 0.251
 *   gptq W3A16  0.0066 0.0095 0.0071 0.0061;  0.0050 0.0049 0.0056 0.0049
 *   qvlm W4A4   0.052 0.060 0.060 0.075 (seed 0)
 *   qvlm W3A16  0.0108 0.0102 0.0104 0.0103 (seed 0)
 * so that nothing is gained there beyond what another choice of samples does, and something is lost with qvlm at 4 bits.
 *
 * How to use them: begin with the sequences that were gathered; at the first place of every layer, before it is
 * quantized, call vq_tokens_layer with the full-precision stream's input of the place; then t.r belongs to the four
 * places of the layer and t.block to the output of the block so far.  Where they are NULL, every weight is 1 and nothing
 * must be multiplied: results are then those without weights, to the byte.  An error is sum_t r[t] ||dy_t||^2 (or
 * |dy_t|), its reference weighted alike; second moments are sum_t r[t] x_t^T x_t, which is what rows times sqrt(r[t])
 * give. */
#ifndef VQ_TASK_SEARCH_TOKENS_H
#define VQ_TASK_SEARCH_TOKENS_H

#include "model/layer.h"
#include "task/search.h"
#include "task/search_acts.h"

struct vq_tokens {
	const struct vq_search_opts *o;
	const struct vq_acts *acts;
	const struct vq_batch *batch;
	uint8_t *image; /* [n_rows] 1: a row of a picture; NULL without weights */
	float *r;       /* [n_rows] of the layer at hand, mean 1; NULL: all 1 */
	float *block;   /* [n_rows] mean of the layers since begin; NULL: all 1 */
	uint32_t n_layers;
};

/* b: the rows that were gathered of sequences seqs [b->n_seqs] of acts, which stand before unit `first`; o, acts and b
 * are kept.  VQ_E_DATA when measured weights are wanted and the stream brought none. */
VQ_MUST_CHECK int vq_tokens_begin(struct vq_tokens *t, const struct vq_search_opts *o,
				  const struct vq_acts *acts, const uint32_t *seqs,
				  const struct vq_batch *b, uint32_t first, struct vq_err *err);

/* The weights of a unit's layer l (full precision); x [n_rows, hidden]: what full precision has as input of its first
 * place.  Nothing happens without weights. */
VQ_MUST_CHECK int vq_tokens_layer(struct vq_tokens *t, uint32_t unit, const struct vq_layer *l,
				  const float *x, struct vq_err *err);

void vq_tokens_free(struct vq_tokens *t); /* fine on zeroes */

#endif
