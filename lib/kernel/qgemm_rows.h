/* Integer products (qgemm.h), one function an instruction set.  A set may hand products of a shape that it
 * does not know to generic. */
#ifndef VQ_KERNEL_QGEMM_ROWS_H
#define VQ_KERNEL_QGEMM_ROWS_H

#include "kernel/cpu.h"

VQ_MUST_CHECK int vq_qgemm_generic(const struct vq_product *p, struct vq_err *err);

#endif
