/* Integer products: grouped b-bit weights times quantized activations.
 *
 *   y[t,o] = sum over segments g of  (sa[t,g] * sw[o,g]) * (float)( sum_k (u - zw)(q - za) ),  then + bias[o]
 *
 * u unsigned weight codes, q signed activation codes.  A segment is the finer of the activation's and the
 * weight's groups (one must divide the other, or be the whole row).  The inner sum is exact in int32.
 * Segments are added in ascending order, starting from y = 0, y = fmaf(sa * sw, (float)sum, y): the product of the
 * scales is rounded, the product with the sum is not.  The bias is added to that, and the whole to what y held where the
 * product is a residual (y_old + (y + bias)); an activation function follows, f(y + bias), and with a gate
 * f(gate + its bias) (y + bias).  So every kernel set gives the same bits.
 *
 * Codes may stand for the values of a table instead (NF4): code u is value[u] * absmax.  The products multiply
 * bytes in place of the values, u = 128 + rint(127 value), zw = 128, sw = absmax * (1 / 127). */
#ifndef VQ_KERNEL_QGEMM_H
#define VQ_KERNEL_QGEMM_H

#include "kernel/ops.h"
#include "kernel/qact.h"

/* Weights in the order the kernels read them; the layout is stored in packed models and documented in
 * vqlm-model(5).  "r32k4": panels of 32 rows (the last one padded with zero codes); in a panel, for each
 * 4 consecutive inputs, bit planes of a code: 4 bits 64 bytes (byte 4r+j: low nibble row r, high nibble row
 * 16+r, input j), 2 bits 32 bytes, 1 bit 16 bytes; 8 bits two 64-byte lines (rows 0-15, rows 16-31).  A
 * b-bit code is the planes of {4, 2, 1} that add up to b, least significant bits first (b = 8: bytes).
 * The planes of one step of 4 inputs follow each other, 16 b bytes a step, so that a panel is one
 * sequential stream.  Field j (bits f j .. f j + f - 1) of byte i of an f-bit plane belongs to position
 * e = 16 f j + i of the step's 128 codes, and e is row e / 4 of the panel, input e % 4. */
#define VQ_N_BYTE    16           /* a register that bytes are looked up in */
#define VQ_BYTE_STEP (1.0f / 127) /* of absmax */

struct vq_packed {
	uint32_t n_out, n_in; /* n_in padded to a multiple of 4 with zero codes in the planes */
	uint32_t bits, group; /* group 0 = whole row */
	uint32_t n_groups;
	int sym;
	const uint8_t *planes; /* vq_packed_plane_bytes() bytes; any alignment */
	const uint16_t *scale; /* float16 [n_panels, n_groups, 32] */
	const uint8_t *zero;   /* [n_panels, n_groups, 32]; NULL when symmetric */
	/* A table instead of scale and zero, which are NULL then; bits at most 4. */
	const float *value;      /* [2^bits]; NULL: none */
	uint8_t byte[VQ_N_BYTE]; /* 128 + rint(127 value) */
	const float *absmax;     /* [n_panels, n_groups, 32] */
	/* Rows are no whole groups: absmax is of the groups of the matrix as one vector, row after row, and n_groups
	 * is 0.  Such a weight has no integer product. */
	int straddles;
};

#define VQ_PANEL 32u /* rows */

/* Bytes of the planes; SIZE_MAX when they do not fit a size_t. */
size_t vq_packed_plane_bytes(uint32_t bits, uint32_t n_out, uint32_t n_in);
size_t vq_packed_n_scales(uint32_t n_out, uint32_t n_groups); /* elements of scale, and of zero */

/* Plain codes [n_out, n_in], scale and zero [n_out, n_groups] (zero NULL when symmetric) -> the layout, into
 * blocks of the sizes above; and back. */
void vq_pack_codes(uint32_t bits, const uint8_t *codes, uint32_t n_out, uint32_t n_in,
		   uint8_t *planes);
void vq_unpack_codes(uint32_t bits, const uint8_t *planes, uint32_t n_out, uint32_t n_in,
		     uint8_t *codes);
void vq_pack_scales(const uint16_t *scale, uint32_t n_out, uint32_t n_groups, uint16_t *out);
void vq_unpack_scales(const uint16_t *packed, uint32_t n_out, uint32_t n_groups, uint16_t *scale);
void vq_pack_zeros(const uint8_t *zero, uint32_t n_out, uint32_t n_groups, uint8_t *out);
void vq_pack_absmax(const float *absmax, uint32_t n_out, uint32_t n_groups, float *out);
void vq_unpack_zeros(const uint8_t *packed, uint32_t n_out, uint32_t n_groups, uint8_t *zero);

/* One panel of planes (n_steps steps of 4 inputs) -> codes [n_steps, 32, 4]. */
void vq_panel_expand(uint32_t bits, const uint8_t *panel, uint32_t n_steps, uint8_t *codes);

/* VQ_E_DATA when w has no integer product with inputs on g: their groups do not divide each other, or straddle rows, or a
 * segment is so long that its sum may leave int32 (33,025 inputs at 8 x 8 bits). */
VQ_MUST_CHECK int vq_qgemm_check(const struct vq_packed *w, const struct vq_agrid *g,
				 struct vq_err *err);

/* y [a->n_rows, n_out]; g is the grid that a was made with; bias [n_out] or NULL.  With add set the product is added to
 * what y holds.  VQ_E_DATA when vq_qgemm_check says so, and when the widths of w and a differ. */
VQ_MUST_CHECK int vq_qgemm(const struct vq_packed *w, const struct vq_qact *a,
			   const struct vq_agrid *g, const float *bias, int add, float *y,
			   struct vq_err *err);

/* What follows a product. */
struct vq_qgemm_act {
	enum vq_act_fn f;
	const struct vq_packed *gate; /* as wide as the product; NULL: none */
	const float *gate_bias;       /* or NULL */
};

/* y = f(product) or, with a gate, f(gate's product) * product, both of the same a; else as vq_qgemm.  Where the set
 * can, a panel of one and of the other are met at once, and only what comes of both is stored. */
VQ_MUST_CHECK int vq_qgemm_act(const struct vq_packed *w, const struct vq_qact *a,
			       const struct vq_agrid *g, const float *bias,
			       const struct vq_qgemm_act *act, float *y, struct vq_err *err);

#endif
