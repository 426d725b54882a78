/* Activation grids, 2..8 bits, each with a scale and a zero point for a range of inputs that holds 0.  Where
 * ranges come from (enum vq_act_range): found anew for every group of inputs of every token, times a clip ratio that
 * search finds; or stored, the same for all tokens, per group, per input channel, or per position in the sequence
 * (Q-VLM's paper, 4.3: the latter two).
 *
 *   asymmetric: lo, hi = clip * min(0, min x), clip * max(0, max x) over the group, or as stored
 *               s = (hi - lo) / (2^b - 1),  z = clamp(rint(-lo / s), 0, 2^b - 1),
 *               q = clamp(rint(x / s) + z, 0, 2^b - 1)
 *   symmetric:  s = clip * max|x| / (2^(b-1) - 1),  q = clamp(rint(x / s), -2^(b-1), 2^(b-1) - 1),  z = 0
 *
 * in float, every operation rounded by itself, rint half to even, and a division where one is written (a
 * product with the reciprocal gives other codes).  A group whose s is 0 (no range, or one below the
 * smallest float) gets codes equal to z.  Where hi - lo overflows, s = hi / (2^b - 1) - lo / (2^b - 1).  So
 * finite inputs never give NaN, and those below half of the largest float never give infinity.  Codes are kept as signed bytes: asymmetric q and z are
 * stored less 2^(b-1).  The value that computation sees is s * (q - z). */
#ifndef VQ_KERNEL_QACT_H
#define VQ_KERNEL_QACT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define VQ_ACT_FLOAT 16 /* bits of an activation that is not quantized */

enum vq_act_range {
	VQ_RANGE_TOKEN,   /* of a group of the token at hand */
	VQ_RANGE_STATIC,  /* stored for each group of inputs */
	VQ_RANGE_CHANNEL, /* stored for each input: group 1 */
	VQ_RANGE_POSITION /* stored for each row of a sequence of n_ranges rows: group 0 */
};

struct vq_agrid {
	uint32_t bits;  /* 2..8; 16 = activations stay float */
	uint32_t group; /* inputs a group; 0 = the whole token; the last group may be short */
	int sym;
	float clip; /* (0, 1]; 1 where ranges are stored */
	enum vq_act_range range;
	uint32_t n_ranges; /* stored ones: groups or positions */
	const float *lo,
		*hi; /* [n_ranges], finite, lo <= 0 <= hi; borrowed; NULL where none are stored */
};

uint32_t vq_agrid_n_groups(const struct vq_agrid *g, uint32_t n);

/* Ranges of n inputs that a grid stores: 0 for VQ_RANGE_TOKEN; n_positions rows make a sequence. */
uint32_t vq_agrid_n_ranges(const struct vq_agrid *g, uint32_t n, uint32_t n_positions);

/* 1 when an integer product can run it.  A scale for each input stands inside the sum: such grids are simulated in
 * float. */
int vq_agrid_is_integer(const struct vq_agrid *g);

/* 1 when both turn every input into the same codes. */
int vq_agrid_same(const struct vq_agrid *a, const struct vq_agrid *b);

/* The least number of rows, n or more, by which rows can be cut into parts: whole sequences where ranges are by
 * position. */
size_t vq_agrid_chunk(const struct vq_agrid *g, size_t n);

/* What a product made of the codes, for the next product with them. */
struct vq_kept {
	void *data;     /* NULL: nothing yet; the caller frees it (vq_free) */
	const void *by; /* the kernel that made it ... */
	uint32_t seg;   /* ... for segments of so many inputs */
};

/* Quantized activations of n_rows tokens, as the products want them. */
struct vq_qact {
	uint32_t n_rows, n, n_groups;
	uint32_t stride; /* bytes between rows of q: n rounded up to 64, the rest is 0 */
	int8_t *q;       /* [n_rows, stride] */
	float *scale;    /* [n_rows, n_groups] */
	int32_t *zero;   /* [n_rows, n_groups] */
	/* Where several products have this input, one after the other, and q, scale and zero stay as they are: a place for
	 * what they share.  NULL: none; borrowed. */
	struct vq_kept *kept;
};

/* VQ_E_DATA when the grid has not 2..8 bits. */
VQ_MUST_CHECK int vq_qact_alloc(struct vq_qact *a, size_t n_rows, uint32_t n,
				const struct vq_agrid *g, struct vq_err *err);
void vq_qact_free(struct vq_qact *a);
/* x [n_rows, n] into all rows of a, which vq_qact_alloc made for the same grid.  With ranges by position, row r has
 * position r % n_ranges. */
void vq_act_quantize(const struct vq_agrid *g, const float *x, struct vq_qact *a);
/* x [n] into row t alone, on the calling thread. */
void vq_act_quantize_row(const struct vq_agrid *g, const float *x, struct vq_qact *a, size_t t);

/* x [n_rows, n] -> s * (q - z) in float, the same values that the integer path computes with; out = x is
 * fine.  bits = 16 copies. */
void vq_act_fake(const struct vq_agrid *g, const float *x, size_t n_rows, uint32_t n, float *out);

/* Stored ranges of a file: VQ_E_DATA unless all are finite and lo <= 0 <= hi. */
VQ_MUST_CHECK int vq_agrid_check_ranges(const float *lo, const float *hi, uint32_t n,
					const char *label, struct vq_err *err);

#endif
