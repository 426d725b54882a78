/* Routing of rows to experts. */
#include "model/route.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/gemm16.h"
#include "kernel/ops.h"
#include "kernel/share.h"

#define FEW_ROWS 16 /* of which the logits are one thread's work */

/* --- choosing --- */

float vq_route_noise(const struct vq_gating *g, uint32_t layer, uint32_t position, uint32_t expert)
{
	struct vq_rng r = vq_rng_new(g->seed, "moe");
	double u =
		vq_rng_uniform(r, ((uint64_t)layer << 32 | position) * VQ_LIMIT_EXPERTS + expert);

	return (float)-log(-log((u > 0 ? u : 0x1p-54)));
}

static void logits_of(const struct vq_router *r, const float *x, float *l)
{
	uint32_t e;

	for (e = 0; e < r->n_experts; e++)
		l[e] = vq_dot(r->w + (size_t)e * r->hidden, x, r->hidden);
}

/* The largest without number `but`; the lowest number among equals. */
static uint32_t largest(const float *v, uint32_t n, uint32_t but)
{
	uint32_t best = but == 0 ? 1 : 0, i;

	for (i = best + 1; i < n; i++)
		if (i != but && v[i] > v[best])
			best = i;
	return best;
}

/* Gates of the experts that c names; p [n_experts] holds their probabilities. */
static void set_gates(uint32_t top_k, const float *p, struct vq_choice *c)
{
	float sum = 0;
	uint32_t k;

	for (k = 0; k < VQ_TOP_K; k++) {
		c->gate[k] = c->expert[k] == VQ_NO_EXPERT ? 0 : p[c->expert[k]];
		sum += c->gate[k];
	}
	sum = sum > 0x1p-23f ? sum : 0x1p-23f;
	for (k = 0; top_k > 1 && k < VQ_TOP_K; k++)
		c->gate[k] /= sum;
}

struct choosing {
	const struct vq_router *r;
	const float *x;
	float *p; /* [n_rows, n_experts] probabilities are left here, or NULL */
	uint32_t n_seqs;
	const uint32_t *start, *past;
	struct vq_choice *out;
	int given; /* experts are; gates are not */
};

/* Position of a row. */
static uint32_t position(const struct choosing *c, size_t row)
{
	uint32_t s = 0;

	while (s + 1 < c->n_seqs && c->start[s + 1] <= row)
		s++;
	return c->past[s] + (uint32_t)row - c->start[s];
}

static void choose_rows(void *ctx, size_t first, size_t end)
{
	const struct choosing *c = ctx;
	const struct vq_router *r = c->r;
	const struct vq_gating *g = r->g;
	float l[VQ_LIMIT_EXPERTS], p[VQ_LIMIT_EXPERTS];
	uint32_t e;
	size_t i;

	for (i = first; i < end; i++) {
		struct vq_choice *o = &c->out[i];

		logits_of(r, c->x + i * r->hidden, l);
		memcpy(p, l, r->n_experts * sizeof(*p));
		vq_softmax(p, r->n_experts);
		if (!c->given) {
			o->expert[0] = (uint8_t)largest(p, r->n_experts, VQ_NO_EXPERT);
			o->expert[1] = VQ_NO_EXPERT;
		}
		if (!c->given && g->top_k > 1) {
			for (e = 0; g->noise && e < r->n_experts; e++)
				l[e] += vq_route_noise(g, r->layer, position(c, i), e);
			o->expert[1] = (uint8_t)largest(l, r->n_experts, o->expert[0]);
		}
		set_gates(g->top_k, p, o);
		if (c->p)
			memcpy(c->p + i * r->n_experts, p, r->n_experts * sizeof(*p));
	}
}

/* --- capacity --- */

static uint64_t capacity(const struct vq_router *r, uint32_t n_tokens)
{
	const struct vq_gating *g = r->g;
	/* In float32 and in this order, as the authors' tensors are. */
	float c = ceilf((float)((double)n_tokens / r->n_experts) *
			(g->capacity_factor * (float)g->top_k));

	return c > (float)g->min_capacity ? (uint64_t)c : g->min_capacity;
}

/* Drops what is beyond the capacity in rows first.. end of one sequence. */
static void drop(const struct vq_router *r, const float *p, uint32_t first, uint32_t end,
		 struct vq_choice *out)
{
	uint64_t room = capacity(r, end - first);
	uint32_t taken[VQ_LIMIT_EXPERTS] = {0}, k, i;

	for (k = 0; k < r->g->top_k; k++)
		for (i = first; i < end; i++) {
			uint8_t *e = &out[i].expert[k];

			if (taken[*e]++ >= room)
				*e = VQ_NO_EXPERT;
		}
	for (i = first; i < end; i++)
		set_gates(r->g->top_k, p + (size_t)i * r->n_experts, &out[i]);
}

int vq_route(const struct vq_router *r, const float *x, size_t n_rows, uint32_t n_seqs,
	     const uint32_t *start, const uint32_t *past, struct vq_choice *out, struct vq_err *err)
{
	struct choosing c = {.r = r, .x = x, .n_seqs = n_seqs, .start = start, .past = past};
	uint32_t s;

	c.out = out;
	if (r->g->drop) {
		c.p = vq_alloc(n_rows, r->n_experts * sizeof(float), err);
		if (!c.p)
			return VQ_E_SYS;
	}
	vq_share(n_rows, n_rows <= FEW_ROWS, choose_rows, &c);
	for (s = 0; r->g->drop && s < n_seqs; s++)
		drop(r, c.p, start[s], start[s + 1], out);
	vq_free(c.p);
	return VQ_OK;
}

void vq_route_gates(const struct vq_router *r, const float *x, size_t n_rows, struct vq_choice *c)
{
	struct choosing k = {.r = r, .x = x, .out = c, .given = 1};

	vq_share(n_rows, n_rows <= FEW_ROWS, choose_rows, &k);
}

/* --- gathering --- */

static int take(struct vq_route *r, uint32_t n_experts, size_t n_rows, struct vq_err *err)
{
	r->n_experts = n_experts;
	r->start = vq_calloc(3 * (size_t)n_experts, sizeof(*r->start), err);
	r->row = vq_calloc(n_rows, sizeof(*r->row), err);
	r->gate = r->row ? vq_calloc(n_rows, sizeof(*r->gate), err) : NULL;
	if (!r->start || !r->gate) {
		vq_route_free(r);
		return VQ_E_SYS;
	}
	r->n = r->start + n_experts;
	r->run = r->n + n_experts;
	r->n_rows = (uint32_t)n_rows;
	return VQ_OK;
}

/* Whether row i is among the rows of expert e, and its gate. */
static int goes_to(const struct vq_choice *c, size_t i, uint32_t e, const uint8_t *whole,
		   float *gate)
{
	uint32_t k;

	*gate = 0;
	for (k = 0; k < VQ_TOP_K; k++)
		if (c[i].expert[k] == e) {
			*gate = c[i].gate[k];
			return 1;
		}
	return whole && whole[e];
}

int vq_route_gather(struct vq_route *r, const struct vq_choice *c, size_t n_rows,
		    uint32_t n_experts, const uint8_t *whole, struct vq_err *err)
{
	uint32_t count[VQ_LIMIT_EXPERTS] = {0}, least, e, at = 0;
	float gate;
	size_t i, total = 0;

	*r = (struct vq_route){0};
	for (i = 0; i < n_rows; i++)
		for (e = 0; e < n_experts; e++)
			count[e] += (uint32_t)goes_to(c, i, e, whole, &gate);
	least = n_rows > VQ_GEMM_FEW ? VQ_GEMM_FEW + 1 : 0;
	for (e = 0; e < n_experts; e++)
		total += count[e] && count[e] < least ? least : count[e];
	if (total > UINT32_MAX)
		return vq_fail(err, VQ_E_DATA, "experts: %zu rows are too many", total);
	if (take(r, n_experts, total, err) < 0)
		return VQ_E_SYS;
	for (e = 0; e < n_experts; e++) {
		uint32_t to = at;

		r->start[e] = at;
		r->n[e] = count[e];
		r->run[e] = count[e] && count[e] < least ? least : count[e];
		for (i = 0; i < n_rows; i++)
			if (goes_to(c, i, e, whole, &gate)) {
				r->row[to] = (uint32_t)i;
				r->gate[to++] = gate;
			}
		at += r->run[e];
	}
	return VQ_OK;
}

int vq_route_copy(struct vq_route *to, const struct vq_route *r, struct vq_err *err)
{
	*to = (struct vq_route){0};
	if (!r->start)
		return VQ_OK;
	if (take(to, r->n_experts, r->n_rows, err) < 0)
		return VQ_E_SYS;
	memcpy(to->start, r->start, 3 * (size_t)r->n_experts * sizeof(*r->start));
	memcpy(to->row, r->row, r->n_rows * sizeof(*r->row));
	memcpy(to->gate, r->gate, r->n_rows * sizeof(*r->gate));
	return VQ_OK;
}

void vq_route_free(struct vq_route *r)
{
	vq_free(r->start);
	vq_free(r->row);
	vq_free(r->gate);
	*r = (struct vq_route){0};
}
