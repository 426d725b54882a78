/* What a layer consists of: its linears and the places where they share an input. */
#include <string.h>

#include "model/layer.h"

static const char *const lin_names[VQ_N_LINEARS] = {"q_proj",  "k_proj",    "v_proj",   "o_proj",
						    "up_proj", "gate_proj", "down_proj"};

static const enum vq_slot lin_slots[VQ_N_LINEARS] = {
	VQ_SLOT_QKV, VQ_SLOT_QKV, VQ_SLOT_QKV, VQ_SLOT_O, VQ_SLOT_UP, VQ_SLOT_UP, VQ_SLOT_DOWN};

const char *vq_lin_name(enum vq_lin l)
{
	return lin_names[l];
}

enum vq_slot vq_lin_slot(enum vq_lin l)
{
	return lin_slots[l];
}

struct vq_linear *vq_layer_linear(struct vq_layer *l, enum vq_lin k, uint32_t e)
{
	return l->n_experts && k >= VQ_LIN_UP ? &l->experts[e * VQ_EXPERT_LINEARS + k - VQ_LIN_UP]
					      : &l->lin[k];
}

uint32_t vq_layer_n_linears(const struct vq_layer *l)
{
	return VQ_LIN_UP + VQ_EXPERT_LINEARS * (l->n_experts ? l->n_experts : 1);
}

uint32_t vq_layer_linear_number(enum vq_lin k, uint32_t e)
{
	return k < VQ_LIN_UP ? (uint32_t)k : k + e * VQ_EXPERT_LINEARS;
}

struct vq_linear *vq_layer_linear_at(struct vq_layer *l, uint32_t number)
{
	uint32_t k = number - VQ_LIN_UP;

	return number < VQ_LIN_UP
		       ? &l->lin[number]
		       : vq_layer_linear(l, (enum vq_lin)(VQ_LIN_UP + k % VQ_EXPERT_LINEARS),
					 k / VQ_EXPERT_LINEARS);
}

uint32_t vq_layer_n_places(const struct vq_layer *l)
{
	return l->n_experts ? VQ_SLOT_UP + 2 * l->n_experts : VQ_N_SLOTS;
}

struct vq_layer_place vq_layer_place(const struct vq_layer *l, uint32_t i)
{
	uint32_t e = i - VQ_SLOT_UP;

	if (i < VQ_SLOT_UP || !l->n_experts)
		return (struct vq_layer_place){(enum vq_slot)i, 0};
	return e < l->n_experts ? (struct vq_layer_place){VQ_SLOT_UP, e}
				: (struct vq_layer_place){VQ_SLOT_DOWN, e - l->n_experts};
}

uint32_t vq_layer_place_linears(const struct vq_layer *l, struct vq_layer_place p,
				const struct vq_linear *out[3], enum vq_lin which[3])
{
	uint32_t n = 0, i;

	for (i = 0; i < VQ_N_LINEARS; i++) {
		/* the cast: the one look-up serves those that write too */
		const struct vq_linear *m =
			vq_layer_linear((struct vq_layer *)(uintptr_t)l, (enum vq_lin)i, p.expert);

		if (lin_slots[i] == p.slot && m->n_out) {
			out[n] = m;
			which[n++] = (enum vq_lin)i;
		}
	}
	return n;
}

static void set_dims(struct vq_linear *l, const struct vq_layer_config *c, enum vq_lin k)
{
	uint32_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
	const uint32_t dims[VQ_N_LINEARS][2] = {
		{q, c->hidden},       {kv, c->hidden},       {kv, c->hidden},
		{c->hidden, q},       {c->inter, c->hidden}, {c->gated ? c->inter : 0, c->hidden},
		{c->hidden, c->inter}};

	*l = (struct vq_linear){.n_out = dims[k][0], .n_in = dims[k][1], .act.bits = 16};
}

void vq_layer_init(struct vq_layer *l, const struct vq_layer_config *c)
{
	uint32_t i;

	memset(l, 0, sizeof(*l));
	l->cfg = c;
	for (i = 0; i < VQ_N_LINEARS; i++)
		set_dims(&l->lin[i], c, (enum vq_lin)i);
}

void vq_layer_init_sparse(struct vq_layer *l, const struct vq_layer_config *c,
			  struct vq_linear *experts, uint32_t n, uint32_t index,
			  const struct vq_gating *gating)
{
	uint32_t e, k;

	vq_layer_init(l, c);
	l->n_experts = n;
	l->experts = experts;
	l->index = index;
	l->gating = gating;
	for (k = VQ_LIN_UP; k < VQ_N_LINEARS; k++) {
		l->lin[k].n_out = 0;
		for (e = 0; e < n; e++)
			set_dims(vq_layer_linear(l, (enum vq_lin)k, e), c, (enum vq_lin)k);
	}
}
