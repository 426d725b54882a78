/* Scores or an order of blocks from a file: what --table prints, and the published files of Shortened LLaMA
 * (github.com/Nota-NetsPresso/shortened-llm, output_block_sensitivity). */
#ifndef VQ_TASK_PRUNE_FILE_H
#define VQ_TASK_PRUNE_FILE_H

#include <stdint.h>

#include "base/err.h"

/* score [n] of blocks 0..n-1 from CSV whose first line is one of
 *
 *   removed_block,ppl...                                  the second column
 *   block_name,block_score       block_name,all_weight_scores    the sum of the columns after the first
 *   rank,block_name,block_score,block_index               the third
 *   weight_name,weight_score                              the sum over the tensors of a block
 *   25,27,10,...                                          no scores but the order of removal, one line
 *
 * A block is a number ("25", "25.0") or a name ("model.layers.25", and a tensor of it); rows of other names are passed
 * over.  A score may be inf or nan.  Every block must come as often as every other, once where rows are of blocks:
 * VQ_E_DATA; a path that cannot be opened is VQ_E_SYS. */
VQ_MUST_CHECK int vq_prune_file(const char *path, uint32_t n, double *score, struct vq_err *err);

#endif
