/* Counter-based random numbers: value i of stream (seed, purpose) depends on nothing else, so results
 * do not depend on threads or on order.  SplitMix64's finalizer over a Weyl sequence (Steele, Lea and
 * Flood, OOPSLA 2014). */
#ifndef VQ_BASE_RNG_H
#define VQ_BASE_RNG_H

#include <stdint.h>

#include "base/err.h"

struct vq_rng {
	uint64_t key;
};

/* purpose: a short fixed word ("calib", "sign"), so that two uses of one seed are independent. */
struct vq_rng vq_rng_new(uint64_t seed, const char *purpose);

uint64_t vq_rng_u64(struct vq_rng r, uint64_t i);
double vq_rng_uniform(struct vq_rng r, uint64_t i); /* [0, 1) with 53 bits */
double vq_rng_normal(struct vq_rng r, uint64_t i);  /* Box-Muller over draws 2i and 2i+1 */

/* Writes k different numbers of 0..n-1, in ascending order, to out (a uniform choice; k <= n). */
VQ_MUST_CHECK int vq_rng_choose(struct vq_rng r, uint32_t n, uint32_t k, uint32_t *out,
				struct vq_err *err);

#endif
