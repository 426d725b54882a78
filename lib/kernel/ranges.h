/* Jobs 0 .. n for some threads: each has a range of its own and takes from its front, so that what it reads lies in one
 * piece; one that has done its own takes from the back of the fullest other. */
#ifndef VQ_KERNEL_RANGES_H
#define VQ_KERNEL_RANGES_H

#include <stdatomic.h>
#include <stdint.h>

#define VQ_MOST_RANGES 64

struct vq_ranges {
	uint32_t n;
	struct {
		_Atomic uint64_t left; /* first job in the low half, end in the high */
		char line[56];         /* each in a cache line of its own */
	} of[VQ_MOST_RANGES];
};

/* n_ranges at most VQ_MOST_RANGES. */
void vq_ranges_set(struct vq_ranges *r, uint32_t n_ranges, uint32_t n_jobs);

/* The next job for the thread of range `own`; 0 when there is none left. */
int vq_ranges_take(struct vq_ranges *r, uint32_t own, uint32_t *job);

#endif
