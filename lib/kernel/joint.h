/* The hot loop of joint soft-level matrices (quant/dependency.h): one function an instruction set. */
#ifndef VQ_KERNEL_JOINT_H
#define VQ_KERNEL_JOINT_H

#include <stddef.h>
#include <stdint.h>

#define VQ_JOINT_REACH 3 /* levels to each side of the nearest */
#define VQ_JOINT_WIDE  8 /* 2 REACH + 1 weights and a zero: one vector of doubles */

/* Two layers of the same shape. */
struct vq_joint {
	struct {
		const float *x;    /* [n_rows, n_channels] */
		const float *min;  /* [n_channels] */
		const double *inv; /* [n_channels] 1 / step; 0: no range */
	} side[2];
	uint32_t n_channels;
	uint32_t top;      /* the last level, L - 1 */
	uint32_t n_copies; /* of S: 1, 2, 4 or 8 */
};

/* Adds rows r0 .. r1 to S [n_copies, L + 8, L + 8], where level a of side 0 is row a + 3 and level b of side 1
 * is column b + 3.  Channel c goes to copy c % n_copies: neighbours fall on nearly the same few levels, and
 * a load that half overlaps a store still on its way waits for it.  Elementwise double arithmetic in a fixed order: the same bits from every function. */
void vq_joint_rows_generic(const struct vq_joint *j, size_t r0, size_t r1, double *S);
#if defined(__x86_64__)
void vq_joint_rows_avx512(const struct vq_joint *j, size_t r0, size_t r1, double *S);
#endif

#endif
