/* A transformer layer, for CLIP towers and LLaMA decoders alike.  MODEL.md has the formulas.
 *
 * The four slots are the places where linears share an input; search quantizes slot by slot:
 *   SLOT_QKV   x = norm1(h)                       -> q, k, v
 *   SLOT_O     x = attention(q, k, v)             -> o,      h += o
 *   SLOT_UP    x = norm2(h)                       -> up, gate
 *   SLOT_DOWN  x = act(gate) * up, or act(up)     -> down,   h += down
 * A parallel layer's SLOT_UP has x = norm1(h) of the layer's input, which SLOT_QKV read too.
 *
 * A sparse layer has experts in the place of one MLP (route.h): up, gate and down of each, and the rows of x gathered by
 * expert in the last two slots.  A place is a slot, or there an expert's part of it; places run in the order
 * qkv, o, up of expert 0, 1, ..., down of expert 0, 1, ... */
#ifndef VQ_MODEL_LAYER_H
#define VQ_MODEL_LAYER_H

#include "model/config.h"
#include "model/kv.h"
#include "model/linear.h"
#include "model/route.h"

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
#define VQ_EXPERT_LINEARS (VQ_N_LINEARS - VQ_LIN_UP) /* up, gate, down */

/* "q_proj", ...; and the slot whose input a linear reads. */
const char *vq_lin_name(enum vq_lin l);
enum vq_slot vq_lin_slot(enum vq_lin l);

struct vq_layer {
	const struct vq_layer_config *cfg;
	/* [hidden]; _b NULL for RMSNorm, norm2 in a parallel layer; borrowed */
	const float *norm1_w, *norm1_b, *norm2_w, *norm2_b;
	struct vq_linear
		lin[VQ_N_LINEARS]; /* gate has n_out 0 when the MLP is not gated; so have up, gate
					     * and down of a sparse layer */
	/* Of a sparse layer; experts 0: a dense one */
	uint32_t n_experts, index;      /* index: the layer's number in the decoder */
	struct vq_linear *experts;      /* [n_experts, VQ_EXPERT_LINEARS]; borrowed */
	const float *router;            /* [n_experts, hidden]; borrowed */
	const struct vq_gating *gating; /* borrowed */
	uint64_t *
		counts; /* [n_experts] the rows that chose each are added; NULL: nobody counts; borrowed */
};

/* Linear k: of expert e, where the layer is sparse and k is of its MLP. */
struct vq_linear *vq_layer_linear(struct vq_layer *l, enum vq_lin k, uint32_t e);

/* All linears of a layer by number: attention's, then those of the MLP, or of each expert; some may have n_out 0. */
#define VQ_LIMIT_LINEARS (VQ_LIN_UP + VQ_EXPERT_LINEARS * VQ_LIMIT_EXPERTS)
uint32_t vq_layer_n_linears(const struct vq_layer *l);
uint32_t vq_layer_linear_number(enum vq_lin k, uint32_t e);
struct vq_linear *vq_layer_linear_at(struct vq_layer *l, uint32_t number);

/* The places of a layer, and what the i-th is. */
struct vq_layer_place {
	enum vq_slot slot;
	uint32_t expert; /* 0 but in the last two slots of a sparse layer */
};
uint32_t vq_layer_n_places(const struct vq_layer *l);
struct vq_layer_place vq_layer_place(const struct vq_layer *l, uint32_t i);

/* Rows of hidden states of several sequences, one after the other. */
struct vq_batch {
	uint32_t n_seqs;
	const uint32_t *start; /* [n_seqs + 1] first row of each sequence; start[0] = 0 */
};

/* One layer in stages, so that search can hold every token of a slot at once: "one forward per block".
 *   begin:  x = input of SLOT_QKV          (state points at caller's h)
 *   next:   runs the linears of the current place on x, and what follows, up to the next place's input
 * After the last next (the fourth of a dense layer), h holds the layer's output. */
struct vq_layer_run {
	const struct vq_layer *layer;
	const struct vq_batch *batch;
	struct vq_kv_layer *kv; /* NULL: no cache, positions start at 0 */
	float *h;               /* [rows, hidden] in, out; the caller's */
	float *last;            /* see vq_layer_last; NULL: every row goes through */
	enum vq_slot slot;      /* VQ_N_SLOTS after the last next */
	float *x;               /* [rows, x_width] input of the slot; owned by the run */
	uint32_t x_width;
	size_t n_rows; /* of h */
	/* Of a sparse layer, from SLOT_UP on; owned by the run */
	uint32_t expert;
	struct vq_choice *choice; /* [n_rows] */
	struct vq_route route;    /* what x has the rows of */
	float *wide;              /* [n_rows, hidden] norm2(h) until SLOT_UP has run */
	float *mid;               /* x of SLOT_DOWN as far as it has been made */
	float *kept; /* parallel: norm1(h) [n_rows, hidden], from SLOT_QKV to SLOT_UP; owned; else NULL */
};

/* Input of the place at hand, and the number of its rows. */
const float *vq_layer_input(const struct vq_layer_run *r, size_t *n_rows);

/* The norm of the kind that c says over n rows of h [n, hidden]; b for layer norm only. */
void vq_layer_norm(const struct vq_layer_config *c, const float *h, size_t n, const float *w,
		   const float *b, float *out);

/* Turns one row of n_heads heads in place: the first numbers of each by cos and sin [vq_rotary_dim / 2]. */
void vq_layer_turn(const struct vq_layer_config *c, float *x, uint32_t n_heads, const float *cos,
		   const float *sin);

/* l, h, b and kv are kept until vq_layer_end.  The new tokens of sequence i follow the kv->n[i] that the cache
 * holds (and the kv->shared[i] that it takes from the sequence before): their keys and values are written
 * there, kv->n is not advanced (all layers share it).  A full
 * cache or more sequences than it has: VQ_E_DATA.  Callers pass chunks of at most some thousand rows: a
 * run takes about rows * (2 inter + 4 hidden) floats while a stage runs, and x between stages; a parallel
 * layer's rows * hidden more as far as SLOT_UP. */
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

/* Before the first place of SLOT_UP of a sparse layer: rows go to the experts that choice says (NULL: to those that
 * they chose), with the gates of r's own x; whole as vq_route_gather. */
VQ_MUST_CHECK int vq_layer_gather(struct vq_layer_run *r, const struct vq_choice *choice,
				  const uint8_t *whole, struct vq_err *err);

/* A run that goes on by itself from the place at hand, over h, which holds a copy of r's; nothing else is shared but
 * what is borrowed.  To be ended also on failure. */
VQ_MUST_CHECK int vq_layer_fork(struct vq_layer_run *to, const struct vq_layer_run *r, float *h,
				struct vq_err *err);

/* The linears that read a place: pointers into l, at most 3; returns their number. */
uint32_t vq_layer_place_linears(const struct vq_layer *l, struct vq_layer_place p,
				const struct vq_linear *out[3], enum vq_lin which[3]);

/* Sets the dimensions of the linears from cfg, which is kept; no weights yet. */
void vq_layer_init(struct vq_layer *l, const struct vq_layer_config *cfg);

/* The same for a sparse one: experts [n, VQ_EXPERT_LINEARS] are overwritten and kept. */
void vq_layer_init_sparse(struct vq_layer *l, const struct vq_layer_config *cfg,
			  struct vq_linear *experts, uint32_t n, uint32_t index,
			  const struct vq_gating *gating);

#endif
