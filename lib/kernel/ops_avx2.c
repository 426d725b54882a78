/* The operations of ops.h compiled for AVX2. */
#if defined(__x86_64__)
#define VQ_TARGET   __attribute__((target("avx2")))
#define VQ_OPS      vq_ops_avx2
#define VQ_OPS_NAME "avx2"
#include "kernel/ops_rows.h"
#else
typedef int vq_ops_avx2_unused;
#endif
