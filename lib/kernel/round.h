/* The hot loops of rounding weights to a grid (quant/grid.h) and of what comes before: ranges, codes, values, errors, and
 * whether numbers are finite.  All on the calling thread; every instruction set gives the same bits, for every
 * operation is rounded by itself and sums of a row run in the order of its elements. */
#ifndef VQ_KERNEL_ROUND_H
#define VQ_KERNEL_ROUND_H

#include <stddef.h>
#include <stdint.h>

#include "stream/tensor.h"

/* *min = min(0, w), *max = max(0, w) over w [n]; NaN is passed over. */
void vq_round_range(const float *w, size_t n, float *min, float *max);

/* u = clamp(rint(w / s) + z, 0, top), s > 0, top a whole number of at most 255; NaN becomes 0. */
void vq_round_codes(const float *w, size_t n, float s, float z, float top, uint8_t *u);

/* w = s * (u - z). */
void vq_round_values(const uint8_t *u, size_t n, float s, float z, float *w);

/* The bits that any of u [n] has. */
uint8_t vq_round_bits(const uint8_t *u, size_t n);

/* For each row of w and q [n_rows, n]: err2 += sum (q - w)^2, ref2 += sum w^2; in double, from the first element to the
 * last.  Eight rows at a time are fastest. */
void vq_round_errors(const float *w, const float *q, size_t n_rows, size_t n, double *err2,
		     double *ref2);

/* e [n_rows]: sum (a - b)^2 of each row of a and b [n_rows, n], in double, element i on lane i % 4 of four, those after the last
 * whole four on lane 0; the lanes are added as (0 + 1) + (2 + 3).  a NULL: zeros. */
void vq_distance_rows(const float *a, const float *b, size_t n_rows, size_t n, double *e);

/* Index of the first NaN or infinity in p [n], of any alignment, of type F32, F16 or BF16; n when there is none, and for
 * other types. */
size_t vq_first_bad(enum vq_dtype t, const void *p, size_t n);

/* --- private: one row of the table an instruction set --- */
struct vq_round {
	const char *name;
	void (*range)(const float *w, size_t n, float *min, float *max);
	void (*codes)(const float *w, size_t n, float s, float z, float top, uint8_t *u);
	void (*values)(const uint8_t *u, size_t n, float s, float z, float *w);
	/* Eight rows. */
	void (*errors)(const float *w, const float *q, size_t n, double *err2, double *ref2);
	/* One, two or four rows; a is not NULL. */
	void (*distance)(const float *a, const float *b, uint32_t n_rows, size_t n, double *e);
	/* n bytes; e and one: the bits of exponents and the lowest of them, in 32 bits. */
	int (*finite)(const uint8_t *p, size_t n, uint32_t e, uint32_t one);
};

extern const struct vq_round vq_round_generic;
#if defined(__x86_64__)
extern const struct vq_round vq_round_avx2, vq_round_avx512;
#endif

#endif
