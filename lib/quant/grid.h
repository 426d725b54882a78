/* Weight grids: b-bit integers with a float16 scale and an integer zero point for each group of inputs.
 *
 *   w ~ s * (u - z),   u in 0..2^b-1 unsigned code,   s rounded to float16 before the codes are chosen
 *   symmetric:  s = absmax / (2^(b-1) - 1),  z = 2^(b-1)
 *   asymmetric: range [min(0, lo), max(0, hi)],  s = range / (2^b - 1),  z = rint(-lo / s) in 0..2^b-1
 *   u = clamp(rint(w / s) + z, 0, 2^b - 1)
 *
 * every operation in float and rounded by itself, rint half to even.  A scale that would overflow float16
 * is its largest number, 65504; one that rounds to 0 (the group is smaller than half of float16's least
 * step) stays 0 and the codes are z, as in a group of zeros (asymmetric: z = 0).  Finite weights never
 * give NaN or infinity.  This is so
 * that GGUF Q4_0/Q4_1, AWQ, GPTQ and compressed-tensors can hold the same numbers. */
#ifndef VQ_QUANT_GRID_H
#define VQ_QUANT_GRID_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct vq_wgrid {
	uint32_t bits; /* 2..8 */
	uint32_t
		group; /* inputs a group; 0 = the whole row; the last group of a row may be short */
	int sym;
};

uint32_t vq_grid_n_groups(const struct vq_wgrid *g, uint32_t n_in);

/* A quantized matrix in its plain form, as streams carry it. */
struct vq_codes {
	struct vq_wgrid grid;
	uint32_t n_out, n_in;
	uint8_t *codes;  /* [n_out, n_in] one code a byte */
	uint16_t *scale; /* [n_out, n_groups] float16 */
	uint8_t *zero;   /* [n_out, n_groups]; NULL when symmetric (z = 2^(b-1)) */
};

VQ_MUST_CHECK int vq_codes_alloc(struct vq_codes *c, const struct vq_wgrid *g, uint32_t n_out,
				 uint32_t n_in, struct vq_err *err);
void vq_codes_free(struct vq_codes *c);

/* The grid of one group: s as float16 rounded it, z a whole number.  min and max are of the group's
 * weights (0 is put into the range here), clip shrinks both. */
struct vq_wstep {
	float s, z;
};

struct vq_wstep vq_grid_step(const struct vq_wgrid *g, float min, float max, float clip);
uint8_t vq_grid_code(const struct vq_wgrid *g, struct vq_wstep p, float w);

/* Round to nearest: fits scales to w [n_out, n_in] with the range shrunk by clip (1 = none), rounds half to
 * even, clamps.  c must be allocated.  A group of zeros has scale 0 and codes z. */
void vq_grid_fit(struct vq_codes *c, const float *w, float clip);

/* w' [n_out, n_in] = s * (u - z). */
void vq_grid_dequant(const struct vq_codes *c, float *w);

#endif
