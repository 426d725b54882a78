/* A planned block while it is searched: what the files search_block, search_layerwise, search_blockwise and
 * search_report share. */
#ifndef VQ_TASK_SEARCH_SBLOCK_H
#define VQ_TASK_SEARCH_SBLOCK_H

#include "task/search_awq.h"
#include "task/search_block.h"
#include "task/search_place.h"
#include "task/search_score.h"
#include "task/search_tokens.h"
#include "task/search_walk.h"

struct vq_sblock {
	const struct vq_search_opts *o;
	const struct vq_acts *acts;
	struct vq_model *full, *quant;
	const struct vq_held_list *in;
	uint32_t first, last;
	int projector;
	struct vq_place *places;
	uint32_t n_places;
	int active;      /* something is quantized */
	uint8_t *choice; /* [2 * n_places] input's and weights' value of each place */
	uint8_t *usable; /* [2 * n_places, VQ_QVLM_VALUES] */

	/* while searching */
	struct vq_batch batch;
	float *input; /* what enters the block, quantized stream, rows of the batch */
	struct vq_score score;
	struct vq_tokens tokens; /* of the layer that in-order search is at, and of the block */
	struct vq_walk walk; /* stands before place `at` with the choice of the places before it */
	uint32_t at;
	struct vq_block_cost cost;

	/* awq; NULL before vq_sblock_awq_scales */
	struct vq_awq_place *awq; /* [n_places] */
	struct vq_fold *folds;    /* [units] */
};

/* Chooses the clips of place i by its own output error (layerwise): xq [n_rows, n_in] is its input from quantized
 * predecessors, xf that of full precision. */
VQ_MUST_CHECK int vq_sblock_layerwise(struct vq_sblock *b, uint32_t i, const float *xq,
				      const float *xf, struct vq_err *err);

/* Improves the choice by coordinate descent on the block's output error (qvlm); from the better of none and
 * layer-wise. */
VQ_MUST_CHECK int vq_sblock_blockwise(struct vq_sblock *b, struct vq_err *err);

/* The block's error with one choice for all places, from its input on. */
VQ_MUST_CHECK int vq_sblock_error(struct vq_sblock *b, const uint8_t *choice, double *error,
				  struct vq_err *err);

/* Builds what a choice says and gives it to the quantized model. */
VQ_MUST_CHECK int vq_sblock_set(struct vq_sblock *b, const uint8_t *choice, struct vq_err *err);

#endif
