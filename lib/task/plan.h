/* The plan: which neighbouring units are searched together, and META `calib`, which bounds it.
 *
 * PLAN "plan" is JSON:
 *   {"blocks": [[first, last], ...],   units, inclusive; they cover 0..n_units-1 in order, without gaps
 *    "D": [x, null, ...],              n_units - 1 values: the proxy of pair (k, k+1); null across the projector
 *    "h0": x, "depth": 3, "partition": "entropy|fixed|random|none", "proxy": "entropy|error",
 *    "bits": 4, "space": "raw|hadamard", "seed": 0}
 * A block never holds both sides of the projector (which is alone) nor of a checkpoint. */
#ifndef VQ_TASK_PLAN_H
#define VQ_TASK_PLAN_H

#include "base/json.h"
#include "model/config.h"

#define VQ_PLAN_MAX_UNITS 65536u
#define VQ_PLAN_NO_UNIT   UINT32_MAX

enum vq_partition { VQ_PART_ENTROPY, VQ_PART_FIXED, VQ_PART_RANDOM, VQ_PART_NONE };
enum vq_proxy { VQ_PROXY_ENTROPY, VQ_PROXY_ERROR };
enum vq_space { VQ_SPACE_RAW, VQ_SPACE_HADAMARD };

#define VQ_PARTITIONS "entropy|fixed|random|none"
#define VQ_PROXIES    "entropy|error"
#define VQ_SPACES     "raw|hadamard"

struct vq_block {
	uint32_t first, last; /* units, inclusive */
};

struct vq_plan {
	uint32_t n_units, n_blocks;
	struct vq_block *blocks; /* [n_blocks] */
	double *d;               /* [n_units - 1]; negative: no pair there */
	double h0;
	double quantile; /* in: of d that h0 < 0 stands for; < 0: the mean instead; not in the JSON */
	uint32_t depth, bits;
	uint32_t
		offset; /* fixed: layers of the first block of each tower; 0: depth; not in the JSON */
	uint64_t seed;
	enum vq_partition partition;
	enum vq_proxy proxy;
	enum vq_space space;
};

/* Where blocks must end.  A zeroed one with projector = VQ_PLAN_NO_UNIT forbids nothing. */
struct vq_plan_bounds {
	uint32_t n_units;
	uint32_t projector;     /* the unit that stands alone, or VQ_PLAN_NO_UNIT */
	const uint32_t *starts; /* [n_starts] units that begin a block (checkpoints); borrowed */
	uint32_t n_starts;
};

struct vq_calib_meta;

/* Of a model and its META `calib` (NULL: no checkpoints).  The bounds borrow from both. */
struct vq_plan_bounds vq_plan_bounds_of(const struct vq_config *c, const struct vq_calib_meta *m);

/* 1 when unit k and k+1 may share a block. */
int vq_plan_may_join(const struct vq_plan_bounds *b, uint32_t k);

/* Cuts the units into blocks.  In p: partition, proxy, space, bits, depth (>= 1), offset, seed, h0 and quantile are the caller's
 * (h0 < 0: the mean of d, or its quantile) and d [n_units - 1] too (NULL: unknown, then `entropy` gives one-layer blocks; taken over
 * by p otherwise).  Greedy as in the paper's Eq 7 with pairs k = first..last-1: a block grows while it has fewer
 * than depth units and the mean of its d, the new pair included, is above h0.  Given: vq_plan_free. */
VQ_MUST_CHECK int vq_plan_cut(struct vq_plan *p, const struct vq_plan_bounds *b,
			      struct vq_err *err);

void vq_plan_free(struct vq_plan *p);

/* A reader trusts nothing: blocks must cover 0..n_units-1 and keep the bounds.  bounds NULL: n_units is what the
 * blocks cover.  Label names the stream in messages. */
VQ_MUST_CHECK int vq_plan_parse(struct vq_plan *p, const json_t *j, const struct vq_plan_bounds *b,
				const char *label, struct vq_err *err);
json_t *vq_plan_json(const struct vq_plan *p, struct vq_err *err); /* given */

/* Index of the block that holds a unit (unit < n_units). */
uint32_t vq_plan_block_of(const struct vq_plan *p, uint32_t unit);

/* META `calib`. */
struct vq_calib_meta {
	uint32_t n; /* samples; 0 = weights only */
	uint64_t seed, n_tokens;
	char data_sha256[65]; /* "" when n = 0 */
	char **ids;           /* [n] */
	uint32_t *
		checkpoints; /* [n_checkpoints] ascending units whose input travels as input/checkpoint/U */
	uint32_t n_checkpoints;
};

VQ_MUST_CHECK int vq_calib_meta_parse(struct vq_calib_meta *m, const json_t *j, const char *label,
				      struct vq_err *err);
json_t *vq_calib_meta_json(const struct vq_calib_meta *m, struct vq_err *err); /* given */
void vq_calib_meta_free(struct vq_calib_meta *m);

#endif
