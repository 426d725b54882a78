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
	struct vq_walk_route *routes; /* [units] what the walks of this block have in common */
	const float *r;               /* tokens.r of the rows of the place at hand; NULL: all 1 */
	float *r_part;                /* behind r, where the place is an expert's; owned */
	struct vq_walk walk; /* stands before place `at` with the choice of the places before it */
	uint32_t at;
	struct vq_block_cost cost;

	/* awq; NULL before vq_sblock_awq_scales */
	struct vq_awq_place *awq; /* [n_places] */
	struct vq_fold *folds;    /* [units] */
};

/* The full-precision walk goes on by a place.  Where it comes to the experts of a layer for the first time, what its rows
 * chose becomes the layer's route: an expert with fewer than VQ_STARVED of them is to see all the layer's rows. */
#define VQ_STARVED 32u
VQ_MUST_CHECK int vq_sblock_next_full(struct vq_sblock *b, struct vq_walk *full,
				      struct vq_err *err);
/* b->r for the place that a walk of the block is at. */
VQ_MUST_CHECK int vq_sblock_rows(struct vq_sblock *b, const struct vq_walk *at, struct vq_err *err);

/* Chooses the clips of place i by its own output error (layerwise): xq [n_rows, n_in] is its input from quantized
 * predecessors, xf that of full precision. */
VQ_MUST_CHECK int vq_sblock_layerwise(struct vq_sblock *b, uint32_t i, const float *xq,
				      const float *xf, size_t n_rows, struct vq_err *err);

/* Improves the choice by coordinate descent on the block's output error (qvlm); from the better of none and
 * layer-wise. */
VQ_MUST_CHECK int vq_sblock_blockwise(struct vq_sblock *b, struct vq_err *err);

/* The block's error with one choice for all places, from its input on. */
VQ_MUST_CHECK int vq_sblock_error(struct vq_sblock *b, const uint8_t *choice, double *error,
				  struct vq_err *err);

/* Builds what a choice says and gives it to the quantized model. */
VQ_MUST_CHECK int vq_sblock_set(struct vq_sblock *b, const uint8_t *choice, struct vq_err *err);

#endif
