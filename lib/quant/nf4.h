/* NF4, the data type of QLoRA (Dettmers et al., arXiv 2305.14314, appendix E), as bitsandbytes stores it, with
 * double quantization (section 3); and NF3, ours by the same rule.
 *
 * A matrix is taken row after row as one vector and cut into blocks of 64; the last block may be short, and one
 * that holds the end of a row may hold the start of the next.  In a block
 *
 *   absmax = max |w|,   x = clamp(w * (1 / max(absmax, 1e-38)), -1, 1),   u = the code nearest to x
 *   w' = code[u] * absmax
 *
 * in float, every operation rounded by itself; x is compared with the midpoints of neighbouring codes, and one
 * that equals a midpoint takes the lower code.  Double quantization stores absmax - offset, offset being the mean
 * of all absmax, by the same rule in blocks of 256 with the 256 values of the dynamic map:
 *
 *   absmax' = map[q] * scale + offset,   scale = max |absmax - offset| of the block */
#ifndef VQ_QUANT_NF4_H
#define VQ_QUANT_NF4_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "stream/tensor.h"

#define VQ_NF_BLOCK  64u  /* weights that share an absmax */
#define VQ_NF_DOUBLE 256u /* absmax that share a scale */

/* The 2^bits codes, ascending: quantiles of the normal distribution scaled to -1..1, with an exact 0; NULL for
 * other bits than 3 and 4. */
const float *vq_nf_codes(uint32_t bits);

/* Midpoint of codes i and i + 1, rounded to float. */
float vq_nf_threshold(uint32_t bits, uint32_t i);

/* The code nearest to x; NaN takes code 0. */
uint8_t vq_nf_nearest(uint32_t bits, float x);

/* w [n] -> codes [n], one a byte, and absmax [ceil(n / 64)]. */
void vq_nf_quantize(uint32_t bits, const float *w, size_t n, uint8_t *codes, float *absmax);

/* w' [n] of codes first .. first + n of a matrix; absmax is that of the whole matrix. */
void vq_nf_dequantize(uint32_t bits, const uint8_t *codes, const float *absmax, size_t first,
		      size_t n, float *w);

/* map [256], ascending: both signs of the means of 2^i linear steps of 0.1..1, times 10^(i - 6), i = 0..6; and 0 and 1
 * (bitsandbytes' dynamic map of 8 bits). */
void vq_nf_dynamic_map(float map[256]);

/* The doubly quantized absmax of n blocks. */
struct vq_nf_absmax {
	size_t n;
	uint8_t *q;   /* [n] indices of the dynamic map */
	float *scale; /* [ceil(n / 256)] */
	float offset; /* the mean is taken in double, then rounded */
};

/* Takes scale and q from absmax [n], q and scale being allocated. */
void vq_nf_absmax_quantize(struct vq_nf_absmax *a, const float *absmax);
void vq_nf_absmax_dequantize(const struct vq_nf_absmax *a, float *absmax);

/* Two codes a byte as bitsandbytes packs them, the first in the high nibble; a last half is 0.  out [ceil(n / 2)]. */
void vq_nf_pack_nibbles(const uint8_t *codes, size_t n, uint8_t *out);

/* What the integer products multiply instead of the codes' values: 128 + rint(127 code), [2^bits]. */
void vq_nf_bytes(uint32_t bits, uint8_t *bytes);

/* A matrix [n_out, n_in] in NF, as streams carry it. */
struct vq_nf {
	uint32_t bits; /* 3 or 4; 0: there is none */
	uint32_t n_out, n_in;
	uint8_t *codes; /* [n_out, n_in] one code a byte */
	struct vq_nf_absmax absmax;
};

/* Errors of a fit, squared and relative: of w' to w, and of what the integer products multiply to w'. */
struct vq_nf_error {
	double weight, bytes;
};

static inline size_t vq_nf_n_blocks(uint32_t n_out, uint32_t n_in)
{
	return ((size_t)n_out * n_in + VQ_NF_BLOCK - 1) / VQ_NF_BLOCK;
}

static inline size_t vq_nf_n_scales(size_t n_blocks)
{
	return (n_blocks + VQ_NF_DOUBLE - 1) / VQ_NF_DOUBLE;
}

VQ_MUST_CHECK int vq_nf_alloc(struct vq_nf *f, uint32_t bits, uint32_t n_out, uint32_t n_in,
			      struct vq_err *err);
void vq_nf_free(struct vq_nf *f); /* fine on zeroes */

/* w' [n_out, n_in]. */
VQ_MUST_CHECK int vq_nf_values(const struct vq_nf *f, float *w, struct vq_err *err);

/* The attribute "grid" of such a matrix: {"type": "nf", "bits", "block": 64, "double": 256}.  Given; NULL without
 * memory. */
json_t *vq_nf_grid_json(uint32_t bits);
/* *bits: 3 or 4, or 0 when grid has no "type" and is a uniform one.  VQ_E_DATA when it is one that is not known here. */
VQ_MUST_CHECK int vq_nf_grid_parse(const json_t *grid, uint32_t *bits, const char *label,
				   struct vq_err *err);

/* VQ_E_DATA when an absmax that came from a file holds, or makes, what is no number. */
VQ_MUST_CHECK int vq_nf_absmax_check(const struct vq_nf_absmax *a, const char *label,
				     struct vq_err *err);

/* Fits f (allocated) to w [n_out, n_in] of type F32, F16 or BF16.  VQ_E_DATA names the element when w holds NaN or
 * infinity.  The result does not depend on the number of threads. */
VQ_MUST_CHECK int vq_nf_fit(struct vq_nf *f, const void *w, enum vq_dtype type,
			    struct vq_nf_error *error, struct vq_err *err);

#endif
