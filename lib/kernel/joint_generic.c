/* Joint soft-level matrices: for any CPU. */
#define BODY
#include "kernel/joint_body.h"

void vq_joint_rows_generic(const struct vq_joint *j, size_t r0, size_t r1, double *S)
{
	joint_rows(j, r0, r1, S);
}
