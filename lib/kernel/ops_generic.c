/* The operations of ops.h in plain C. */
#define VQ_TARGET
#define VQ_OPS      vq_ops_generic
#define VQ_OPS_NAME "generic"
#include "kernel/ops_rows.h"
