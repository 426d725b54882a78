/* A transformer layer, for CLIP towers and LLaMA decoders alike.  MODEL.md has the formulas.
 *
 * The four slots are the places where linears share an input; search quantizes slot by slot:
 *   SLOT_QKV   x = norm1(h)                       -> q, k, v
 *   SLOT_O     x = attention(q, k, v)             -> o,      h += o
 *   SLOT_UP    x = norm2(h)                       -> up, gate
 *   SLOT_DOWN  x = act(gate) * up, or act(up)     -> down,   h += down */
#ifndef VQ_MODEL_LAYER_H
#define VQ_MODEL_LAYER_H

#include "model/config.h"
#include "model/kv.h"
#include "model/linear.h"

enum vq_slot { VQ_SLOT_QKV, VQ_SLOT_O, VQ_SLOT_UP, VQ_SLOT_DOWN, VQ_N_SLOTS };
enum vq_lin {
	VQ_LIN_Q,
	VQ_LIN_K,
	VQ_LIN_V,
	VQ_LIN_O,
	VQ_LIN_UP,
	VQ_LIN_GATE,
	VQ_LIN_DOWN,
	VQ_N_LINEARS
};

/* "q_proj", ...; and the slot whose input a linear reads. */
const char *vq_lin_name(enum vq_lin l);
enum vq_slot vq_lin_slot(enum vq_lin l);

struct vq_layer {
	const struct vq_layer_config *cfg;
	const float *norm1_w, *norm1_b, *norm2_w,
		*norm2_b;                   /* [hidden]; _b NULL for RMSNorm; borrowed */
	struct vq_linear lin[VQ_N_LINEARS]; /* gate has n_out 0 when the MLP is not gated */
};

/* Rows of hidden states of several sequences, one after the other. */
struct vq_batch {
	uint32_t n_seqs;
	const uint32_t *start; /* [n_seqs + 1] first row of each sequence; start[0] = 0 */
};

/* One layer in stages, so that search can hold every token of a slot at once: "one forward per block".
 *   begin:  x = input of SLOT_QKV          (state points at caller's h)
 *   next:   runs the linears of the current slot on x, and what follows, up to the next slot's input
 * After the fourth next, h holds the layer's output. */
struct vq_layer_run {
	const struct vq_layer *layer;
	const struct vq_batch *batch;
	struct vq_kv_layer *kv; /* NULL: no cache, positions start at 0 */
	float *h;               /* [rows, hidden] in, out; the caller's */
	float *last;            /* see vq_layer_last; NULL: every row goes through */
	enum vq_slot slot;      /* VQ_N_SLOTS after the fourth next */
	float *x;               /* [rows, x_width] input of the slot; owned by the run */
	uint32_t x_width;
	size_t n_rows;
};

/* The norm of the kind that c says over n rows of h [n, hidden]; b for layer norm only. */
void vq_layer_norm(const struct vq_layer_config *c, const float *h, size_t n, const float *w,
		   const float *b, float *out);

/* l, h, b and kv are kept until vq_layer_end.  The new tokens of sequence i follow the kv->n[i] that the cache
 * holds (and the kv->shared[i] that it takes from the sequence before): their keys and values are written
 * there, kv->n is not advanced (all layers share it).  A full
 * cache or more sequences than it has: VQ_E_DATA.  Callers pass chunks of at most some thousand rows: a
 * run takes about rows * (2 inter + 4 hidden) floats while a stage runs, and x between stages. */
VQ_MUST_CHECK int vq_layer_begin(struct vq_layer_run *r, const struct vq_layer *l, float *h,
				 const struct vq_batch *b, struct vq_kv_layer *kv,
				 struct vq_err *err);
VQ_MUST_CHECK int vq_layer_next(struct vq_layer_run *r, struct vq_err *err);
void vq_layer_end(struct vq_layer_run *r); /* frees; fine after a failure */

/* All four stages. */
VQ_MUST_CHECK int vq_layer_forward(const struct vq_layer *l, float *h, const struct vq_batch *b,
				   struct vq_kv_layer *kv, struct vq_err *err);

/* The same for the last row of each sequence alone: last [n_seqs, hidden] is what vq_layer_forward leaves in those rows.
 * Keys and values of all rows are made; h is only read.  A sequence without rows: VQ_E_DATA. */
VQ_MUST_CHECK int vq_layer_last(const struct vq_layer *l, float *h, const struct vq_batch *b,
				struct vq_kv_layer *kv, float *last, struct vq_err *err);

/* The linears that read a slot: pointers into l, at most 3; returns their number. */
uint32_t vq_layer_slot_linears(const struct vq_layer *l, enum vq_slot slot,
			       const struct vq_linear *out[3], enum vq_lin which[3]);

/* Sets the dimensions of the linears from cfg, which is kept; no weights yet. */
void vq_layer_init(struct vq_layer *l, const struct vq_layer_config *cfg);

#endif
