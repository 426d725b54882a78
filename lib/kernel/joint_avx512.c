/* Joint soft-level matrices: AVX-512. */
#if defined(__x86_64__)
#define BODY __attribute__((target("avx512f,avx512dq")))
#include "kernel/joint_body.h"

BODY void vq_joint_rows_avx512(const struct vq_joint *j, size_t r0, size_t r1, double *S)
{
	joint_rows(j, r0, r1, S);
}
#endif
