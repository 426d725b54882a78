/* vqlm-entropy: reads a model stream's statistics and puts the plan before the first weight.
 *
 * The proxy of a pair (k, k+1) of neighbouring layers is
 *   entropy  D(k, k+1) of quant/dependency.h from stat/joint/SPACE/BITS
 *   error    the mean of the two layers' rounding errors, from stat/error/BITS
 * and blocks are cut by vq_plan_cut.  Everything else passes as it came. */
#ifndef VQ_TASK_ENTROPY_H
#define VQ_TASK_ENTROPY_H

#include "task/plan.h"

struct vq_entropy_opts {
	double h0;       /* < 0: the quantile or mean of the proxy */
	double quantile; /* < 0: the mean */
	uint32_t depth, bits;
	enum vq_partition partition;
	enum vq_proxy proxy;
	enum vq_space space;
	uint32_t offset; /* of --partition fixed: layers of each tower's first block; 0: depth */
	uint64_t seed;   /* of --partition random */
	int table;       /* numbers as TSV instead of the stream */
	const char *output;
	int level;
};

/* From standard input. */
VQ_MUST_CHECK int vq_entropy(const struct vq_entropy_opts *o, struct vq_err *err);

#endif
