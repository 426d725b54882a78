/* A transformer layer in four stages. */
#include "model/layer.h"

#include <string.h>

#include "base/mem.h"
#include "kernel/ops.h"
#include "kernel/share.h"
#include "model/attention.h"
#include "model/layer_stage.h"

float *vq_layer_rows(size_t n_rows, uint32_t width, struct vq_err *err)
{
	size_t n;

	if (vq_mul_size(&n, n_rows, width) < 0) {
		vq_fail(err, VQ_E_SYS, "memory: %zu rows of %u numbers", n_rows, width);
		return NULL;
	}
	return vq_alloc_f32(n, err);
}

static float *rows_of(const struct vq_layer_run *r, uint32_t width, struct vq_err *err)
{
	return vq_layer_rows(r->n_rows, width, err);
}

void vq_layer_norm(const struct vq_layer_config *c, const float *h, size_t n, const float *w,
		   const float *b, float *out)
{
	if (c->norm == VQ_NORM_RMS)
		vq_rmsnorm(h, n, c->hidden, w, c->eps, out);
	else
		vq_layernorm(h, n, c->hidden, w, b, c->eps, out);
}

void vq_layer_turn(const struct vq_layer_config *c, float *x, uint32_t n_heads, const float *cos,
		   const float *sin)
{
	uint32_t turning = vq_rotary_dim(c), i;

	if (turning == c->head_dim) {
		vq_rotary(x, n_heads, turning, cos, sin);
		return;
	}
	for (i = 0; i < n_heads; i++)
		vq_rotary(x + (size_t)i * c->head_dim, 1, turning, cos, sin);
}

void vq_layer_set_x(struct vq_layer_run *r, float *x, uint32_t width)
{
	vq_free(r->x);
	r->x = x;
	r->x_width = width;
}

static int has_norms(const struct vq_layer *l)
{
	int second = !l->cfg->parallel;

	if (!l->norm1_w || (second && !l->norm2_w))
		return 0;
	return l->cfg->norm == VQ_NORM_RMS || (l->norm1_b && (!second || l->norm2_b));
}

static int check_cache(const struct vq_kv_layer *kv, const struct vq_batch *b, struct vq_err *err)
{
	uint32_t held, i; /* held: after this call */

	if (b->n_seqs > kv->n_seqs - kv->first)
		return vq_fail(err, VQ_E_DATA, "cache: want room for %u sequences, have %u",
			       b->n_seqs, kv->n_seqs - kv->first);
	held = kv->first ? kv->n[kv->first - 1] : 0;
	for (i = 0; i < b->n_seqs; i++) {
		uint32_t rows = b->start[i + 1] - b->start[i], s = kv->first + i;

		if (kv->shared[s] && (s == 0 || kv->n[s] || kv->shared[s] > held))
			return vq_fail(err, VQ_E_DATA,
				       "cache: sequence %u cannot begin with %u tokens of another",
				       s, kv->shared[s]);
		held = kv->n[s] + kv->shared[s];
		if (held > kv->room || rows > kv->room - held)
			return vq_fail(err, VQ_E_DATA,
				       "cache: sequence %u wants %u tokens after %u, room is %u", s,
				       rows, held, kv->room);
		held += rows;
	}
	return VQ_OK;
}

int vq_layer_begin(struct vq_layer_run *r, const struct vq_layer *l, float *h,
		   const struct vq_batch *b, struct vq_kv_layer *kv, struct vq_err *err)
{
	float *x;

	memset(r, 0, sizeof(*r));
	r->layer = l;
	r->batch = b;
	r->kv = kv;
	r->h = h;
	r->slot = VQ_SLOT_QKV;
	r->n_rows = b->start[b->n_seqs];
	if (!has_norms(l))
		return vq_fail(err, VQ_E_DATA, "a layer has no norm weights");
	if (kv && check_cache(kv, b, err) < 0)
		return VQ_E_DATA;
	x = rows_of(r, l->cfg->hidden, err);
	if (!x)
		return VQ_E_SYS;
	vq_layer_norm(l->cfg, h, r->n_rows, l->norm1_w, l->norm1_b, x);
	vq_layer_set_x(r, x, l->cfg->hidden);
	return VQ_OK;
}

/* Position of a sequence's first row. */
uint32_t vq_layer_past(const struct vq_layer_run *r, uint32_t s)
{
	return r->kv ? r->kv->n[r->kv->first + s] + r->kv->shared[r->kv->first + s] : 0;
}

int vq_layer_queries(struct vq_queries *q, const struct vq_layer_run *r, struct vq_err *err)
{
	const uint32_t *start = r->batch->start;
	uint32_t n = r->batch->n_seqs, s;

	q->start = vq_alloc(2 * (size_t)n + 1, sizeof(*q->start), err);
	if (!q->start)
		return VQ_E_SYS;
	q->past = q->start + n + 1;
	q->batch = (struct vq_batch){n, q->start};
	for (s = 0; s <= n; s++)
		q->start[s] = r->last ? s : start[s];
	for (s = 0; s < n; s++)
		q->past[s] = vq_layer_past(r, s) + (r->last ? start[s + 1] - start[s] - 1 : 0);
	return VQ_OK;
}

static uint32_t positions_met(const struct vq_layer_run *r)
{
	const uint32_t *start = r->batch->start;
	uint32_t end = 0, s;

	for (s = 0; s < r->batch->n_seqs; s++) {
		uint32_t n = vq_layer_past(r, s) + start[s + 1] - start[s];

		end = n > end ? n : end;
	}
	return end;
}

struct rotating {
	const struct vq_layer_config *c;
	const struct vq_turns *turns;
	const uint32_t *at; /* position of each row */
	float *x;
	uint32_t n_heads;
};

static void rotate_rows(void *ctx, size_t first, size_t end)
{
	const struct rotating *r = ctx;
	uint32_t half = vq_rotary_dim(r->c) / 2;
	size_t i;

	for (i = first; i < end; i++)
		vq_layer_turn(r->c, r->x + i * r->n_heads * r->c->head_dim, r->n_heads,
			      r->turns->c + (size_t)r->at[i] * half,
			      r->turns->s + (size_t)r->at[i] * half);
}

/* Turns x, n_heads heads a row, by the position of each row; at holds a number for each of them. */
static void rotate(const struct vq_layer_config *c, const struct vq_turns *t,
		   const struct vq_batch *b, const uint32_t *past, uint32_t *at, float *x,
		   uint32_t n_heads)
{
	struct rotating r = {c, t, at, x, n_heads};
	uint32_t s, n;

	for (s = 0, n = 0; s < b->n_seqs; s++)
		for (; n < b->start[s + 1]; n++)
			at[n] = past[s] + n - b->start[s];
	vq_share(n, n <= 64, rotate_rows, &r);
}

static int rotate_both(const struct vq_layer_run *r, const struct vq_queries *asking, float *q,
		       float *k, struct vq_err *err)
{
	const struct vq_layer_config *c = r->layer->cfg;
	uint32_t n = r->batch->n_seqs, *past = vq_alloc(n + r->n_rows, sizeof(*past), err), s;
	struct vq_turns own = {0}, *t = r->kv ? r->kv->turns : &own;
	int rc = past ? vq_turns_make(t, positions_met(r), vq_rotary_dim(c), c->rope_theta, err)
		      : VQ_E_SYS;

	if (rc >= 0) {
		for (s = 0; s < n; s++)
			past[s] = vq_layer_past(r, s);
		rotate(c, t, &asking->batch, asking->past, past + n, q, c->n_heads);
		rotate(c, t, r->batch, past, past + n, k, c->n_kv_heads);
	}
	vq_turns_free(&own);
	vq_free(past);
	return rc;
}

/* x = attention(q, k, v), with q k v [rows, ...] from the linears; q of the last rows alone where only they ask. */
static int attend(struct vq_layer_run *r, float *q, float *k, float *v, struct vq_err *err)
{
	const struct vq_layer_config *c = r->layer->cfg;
	uint32_t q_width = c->n_heads * c->head_dim;
	float *x = rows_of(r, q_width, err);
	struct vq_queries at = {0};
	int rc = x ? vq_layer_queries(&at, r, err) : VQ_E_SYS;

	if (rc >= 0 && c->rope_theta > 0 && r->n_rows)
		rc = rotate_both(r, &at, q, k, err);
	if (rc >= 0)
		rc = vq_attention_run(
			&(struct vq_attention){c, &at.batch, at.past, q, r->batch, k, v, r->kv, x},
			err);
	if (rc >= 0) {
		vq_layer_set_x(r, x, q_width);
		x = NULL;
	}
	vq_free(x);
	vq_free(at.start);
	return rc;
}

/* Row `width` wide of the end of each sequence; out = x is fine. */
static void last_rows(const struct vq_batch *b, const float *x, uint32_t width, float *out)
{
	uint32_t s;

	for (s = 0; s < b->n_seqs; s++)
		memmove(out + (size_t)s * width, x + (size_t)(b->start[s + 1] - 1) * width,
			width * sizeof(float));
}

static int project(const struct vq_layer_run *r, float *q, float *k, float *v, struct vq_err *err)
{
	const struct vq_linear *l = r->layer->lin;
	float *x;
	int rc;

	if (!r->last)
		return vq_linear_apply(
			(const struct vq_linear *[]){&l[VQ_LIN_Q], &l[VQ_LIN_K], &l[VQ_LIN_V]}, 3,
			r->x, r->n_rows, (float *[]){q, k, v}, err);
	rc = vq_linear_apply((const struct vq_linear *[]){&l[VQ_LIN_K], &l[VQ_LIN_V]}, 2, r->x,
			     r->n_rows, (float *[]){k, v}, err);
	if (rc < 0)
		return rc;
	x = rows_of(r, r->x_width, err);
	if (!x)
		return VQ_E_SYS;
	last_rows(r->batch, r->x, r->x_width, x);
	rc = vq_linear_one(&l[VQ_LIN_Q], x, r->batch->n_seqs, q, err);
	vq_free(x);
	return rc;
}

static int stage_qkv(struct vq_layer_run *r, struct vq_err *err)
{
	const struct vq_linear *l = r->layer->lin;
	float *q = rows_of(r, l[VQ_LIN_Q].n_out, err), *k = rows_of(r, l[VQ_LIN_K].n_out, err),
	      *v = rows_of(r, l[VQ_LIN_V].n_out, err);
	int rc = VQ_E_SYS;

	if (!q || !k || !v)
		goto out;
	rc = project(r, q, k, v, err);
	if (rc >= 0 && r->layer->cfg->parallel) {
		r->kept = r->x;
		r->x = NULL;
	}
	if (rc >= 0)
		rc = attend(r, q, k, v, err);
	if (rc >= 0 && r->last) {
		last_rows(r->batch, r->h, r->layer->cfg->hidden, r->last);
		if (r->kept)
			last_rows(r->batch, r->kept, r->layer->cfg->hidden, r->kept);
		r->h = r->last;
		r->n_rows = r->batch->n_seqs;
	}
out:
	vq_free(q);
	vq_free(k);
	vq_free(v);
	return rc;
}

/* h += linear(x). */
static int add_linear(struct vq_layer_run *r, enum vq_lin l, struct vq_err *err)
{
	return vq_linear_add(&r->layer->lin[l], r->x, r->n_rows, r->h, err);
}

static int stage_o(struct vq_layer_run *r, struct vq_err *err)
{
	const struct vq_layer *l = r->layer;
	float *x;
	int rc = add_linear(r, VQ_LIN_O, err);

	if (rc < 0)
		return rc;
	x = r->kept ? r->kept : rows_of(r, l->cfg->hidden, err);
	if (!x)
		return VQ_E_SYS;
	if (!r->kept)
		vq_layer_norm(l->cfg, r->h, r->n_rows, l->norm2_w, l->norm2_b, x);
	r->kept = NULL;
	if (l->n_experts)
		return vq_layer_route(r, x, err);
	vq_layer_set_x(r, x, l->cfg->hidden);
	return VQ_OK;
}

static int stage_up(struct vq_layer_run *r, struct vq_err *err)
{
	const struct vq_layer_config *c = r->layer->cfg;
	const struct vq_linear *l = r->layer->lin;
	float *up = rows_of(r, c->inter, err);
	int rc = VQ_E_SYS;

	if (up)
		rc = vq_linear_act(&l[VQ_LIN_UP], c->gated ? &l[VQ_LIN_GATE] : NULL, c->act, r->x,
				   r->n_rows, up, err);
	if (rc >= 0) {
		vq_layer_set_x(r, up, c->inter);
		up = NULL;
	}
	vq_free(up);
	return rc;
}

int vq_layer_next(struct vq_layer_run *r, struct vq_err *err)
{
	int rc = VQ_OK;

	if (r->layer->n_experts && r->slot > VQ_SLOT_O && r->slot < VQ_N_SLOTS)
		return vq_layer_next_expert(r, err);
	switch (r->slot) {
	case VQ_SLOT_QKV: rc = stage_qkv(r, err); break;
	case VQ_SLOT_O: rc = stage_o(r, err); break;
	case VQ_SLOT_UP: rc = stage_up(r, err); break;
	case VQ_SLOT_DOWN: rc = add_linear(r, VQ_LIN_DOWN, err); break;
	case VQ_N_SLOTS: return vq_fail(err, VQ_E_DATA, "a layer has no stage after its last");
	}
	if (rc >= 0)
		r->slot++;
	return rc;
}

const float *vq_layer_input(const struct vq_layer_run *r, size_t *n_rows)
{
	int part = r->layer->n_experts && r->slot > VQ_SLOT_O;

	*n_rows = part ? r->route.n[r->expert] : r->n_rows;
	return part ? r->x + (size_t)r->route.start[r->expert] * r->x_width : r->x;
}

void vq_layer_end(struct vq_layer_run *r)
{
	vq_free(r->x);
	vq_free(r->wide);
	vq_free(r->mid);
	vq_free(r->choice);
	vq_route_free(&r->route);
	vq_free(r->kept);
	memset(r, 0, sizeof(*r));
}

static int all_stages(struct vq_layer_run *r, struct vq_err *err)
{
	int rc = VQ_OK;

	while (rc >= 0 && r->slot < VQ_N_SLOTS)
		rc = vq_layer_next(r, err);
	return rc;
}

int vq_layer_forward(const struct vq_layer *l, float *h, const struct vq_batch *b,
		     struct vq_kv_layer *kv, struct vq_err *err)
{
	struct vq_layer_run r;
	int rc = vq_layer_begin(&r, l, h, b, kv, err);

	if (rc >= 0)
		rc = all_stages(&r, err);
	vq_layer_end(&r);
	return rc;
}

int vq_layer_last(const struct vq_layer *l, float *h, const struct vq_batch *b,
		  struct vq_kv_layer *kv, float *last, struct vq_err *err)
{
	struct vq_layer_run r;
	uint32_t s;
	int rc;

	for (s = 0; s < b->n_seqs; s++)
		if (b->start[s + 1] == b->start[s])
			return vq_fail(err, VQ_E_DATA, "sequence %u has no last row", s);
	rc = vq_layer_begin(&r, l, h, b, kv, err);
	r.last = last;
	if (rc >= 0)
		rc = all_stages(&r, err);
	vq_layer_end(&r);
	return rc;
}
