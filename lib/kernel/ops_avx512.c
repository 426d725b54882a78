/* The operations of ops.h compiled for AVX-512. */
#if defined(__x86_64__)
#define VQ_TARGET   __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define VQ_OPS      vq_ops_avx512
#define VQ_OPS_NAME "avx512"
#include "kernel/ops_rows.h"
#else
typedef int vq_ops_avx512_unused;
#endif
