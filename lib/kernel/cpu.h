/* The kernel table: one row an instruction set, chosen once at run time.  VQLM_CPU=generic|avx2|avx512
 * (more to come) forces one. */
#ifndef VQ_KERNEL_CPU_H
#define VQ_KERNEL_CPU_H

#include "base/err.h"

/* Name of the chosen set, "avx512-vnni".  The choice is made on the first call. */
const char *vq_cpu_name(void);

/* VQ_E_USAGE when VQLM_CPU names a set that is unknown or that this CPU cannot run; main calls it. */
VQ_MUST_CHECK int vq_cpu_check(struct vq_err *err);

#endif
