/* The kernel table: one row an instruction set, chosen once at run time: the last row that this CPU runs.
 * VQLM_CPU=generic|avx2|avx512vnni, on arm64 generic|neon|neondot, forces one.  The generic row is the meaning of each
 * operation and every other row gives the same bits. */
#ifndef VQ_KERNEL_CPU_H
#define VQ_KERNEL_CPU_H

#include "base/err.h"
#include "kernel/attend.h"
#include "kernel/joint.h"
#include "kernel/ops.h"
#include "kernel/qgemm.h"
#include "kernel/transform_rows.h"

/* A product that vq_qgemm has checked. */
struct vq_product {
	const struct vq_packed *w;
	const struct vq_qact *a;
	uint32_t seg;                   /* inputs a segment; the last one may be short */
	uint32_t n_segs;                /* segment s has weight group s / w_every ... */
	uint32_t w_every, a_every;      /* ... and activation group s / a_every */
	int has_za;                     /* the activations' zero points may differ from 0 */
	const float *bias;              /* or NULL */
	int add;                        /* to what y holds */
	const struct vq_qgemm_act *act; /* or NULL; its gate has the groups, bits and kind of w */
	float *y;
};

struct vq_gemm_kind;

struct vq_kernels {
	const char *name;
	int (*runs)(void); /* 1 when this CPU has the instructions */
	/* One token: x [n] -> codes and, for each group, scale and zero. */
	void (*act_quantize)(const struct vq_agrid *g, const float *x, uint32_t n, int8_t *q,
			     float *scale, int32_t *zero);
	/* One token: x [n] -> s * (q - z); out = x is fine. */
	void (*act_fake)(const struct vq_agrid *g, const float *x, uint32_t n, float *out);
	/* Some rows: x [n_rows, n] -> out [n_rows, n]; out = x is fine. */
	void (*transform)(const struct vq_transform *t, const float *x, size_t n_rows, float *out);
	int (*qgemm)(const struct vq_product *p, struct vq_err *err); /* VQ_E_SYS: no memory */
	int fuses_act;                   /* qgemm knows vq_product.act */
	const struct vq_gemm_kind *gemm; /* float products (gemm16.h) ... */
	const struct vq_gemm_kind
		*gemm_bf16; /* ... of bfloat16, where they run; NULL: the set has none */
	void (*attend)(const struct vq_attend *a);
	void (*joint_rows)(const struct vq_joint *j, size_t r0, size_t r1, double *S);
	const struct vq_ops *ops;
};

/* The chosen row.  The choice is made on the first call; a VQLM_CPU that cannot be had is ignored here,
 * for vq_cpu_check has refused it. */
const struct vq_kernels *vq_kernels_get(void);

/* Row i of the table in the order of preference, least first; NULL past the end.  For tests, which compare
 * the rows; vq_kernels_use makes one the choice. */
const struct vq_kernels *vq_kernels_row(uint32_t i);
void vq_kernels_use(const struct vq_kernels *k);

/* Name of the chosen row. */
const char *vq_cpu_name(void);

/* VQ_E_USAGE when VQLM_CPU names a set that is unknown or that this CPU cannot run; main calls it. */
VQ_MUST_CHECK int vq_cpu_check(struct vq_err *err);

/* The rows. */
extern const struct vq_kernels vq_kernels_generic;
#if defined(__x86_64__)
extern const struct vq_kernels vq_kernels_avx2, vq_kernels_avx512vnni;
#elif defined(__aarch64__)
extern const struct vq_kernels vq_kernels_neon, vq_kernels_neondot;
#endif

#endif
