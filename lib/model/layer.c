/* A transformer layer in four stages. */
#include "model/layer.h"

#include <string.h>

#include "base/mem.h"
#include "kernel/ops.h"
#include "model/attention.h"

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

uint32_t vq_layer_slot_linears(const struct vq_layer *l, enum vq_slot slot,
			       const struct vq_linear *out[3], enum vq_lin which[3])
{
	uint32_t n = 0, i;

	for (i = 0; i < VQ_N_LINEARS; i++)
		if (lin_slots[i] == slot && l->lin[i].n_out) {
			out[n] = &l->lin[i];
			which[n++] = (enum vq_lin)i;
		}
	return n;
}

void vq_layer_init(struct vq_layer *l, const struct vq_layer_config *c)
{
	uint32_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim, i;
	const uint32_t dims[VQ_N_LINEARS][2] = {
		{q, c->hidden},       {kv, c->hidden},       {kv, c->hidden},
		{c->hidden, q},       {c->inter, c->hidden}, {c->gated ? c->inter : 0, c->hidden},
		{c->hidden, c->inter}};

	memset(l, 0, sizeof(*l));
	l->cfg = c;
	for (i = 0; i < VQ_N_LINEARS; i++) {
		l->lin[i].n_out = dims[i][0];
		l->lin[i].n_in = dims[i][1];
		l->lin[i].act.bits = 16;
	}
}

static float *rows_of(const struct vq_layer_run *r, uint32_t width, struct vq_err *err)
{
	size_t n;

	if (vq_mul_size(&n, r->n_rows, width) < 0) {
		vq_fail(err, VQ_E_SYS, "memory: %zu rows of %u numbers", r->n_rows, width);
		return NULL;
	}
	return vq_alloc_f32(n, err);
}

void vq_layer_norm(const struct vq_layer_config *c, const float *h, size_t n, const float *w,
		   const float *b, float *out)
{
	if (c->norm == VQ_NORM_RMS)
		vq_rmsnorm(h, n, c->hidden, w, c->eps, out);
	else
		vq_layernorm(h, n, c->hidden, w, b, c->eps, out);
}

static void activate(enum vq_act_fn f, const float *x, const float *mul, size_t n, float *out)
{
	switch (f) {
	case VQ_ACT_SILU: vq_silu(x, mul, n, out); break;
	case VQ_ACT_QUICK_GELU: vq_quick_gelu(x, mul, n, out); break;
	case VQ_ACT_GELU_ERF: vq_gelu_erf(x, mul, n, out); break;
	case VQ_ACT_GELU_TANH: vq_gelu_tanh(x, mul, n, out); break;
	}
}

static void set_x(struct vq_layer_run *r, float *x, uint32_t width)
{
	vq_free(r->x);
	r->x = x;
	r->x_width = width;
}

static int check_cache(const struct vq_kv_layer *kv, const struct vq_batch *b, struct vq_err *err)
{
	uint32_t s;

	if (b->n_seqs > kv->n_seqs)
		return vq_fail(err, VQ_E_DATA, "cache: want room for %u sequences, have %u",
			       b->n_seqs, kv->n_seqs);
	for (s = 0; s < b->n_seqs; s++) {
		uint32_t rows = b->start[s + 1] - b->start[s];

		if (rows > kv->room - kv->n[s])
			return vq_fail(err, VQ_E_DATA,
				       "cache: sequence %u wants %u tokens after %u, room is %u", s,
				       rows, kv->n[s], kv->room);
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
	if (!l->norm1_w || !l->norm2_w ||
	    (l->cfg->norm == VQ_NORM_LAYER && (!l->norm1_b || !l->norm2_b)))
		return vq_fail(err, VQ_E_DATA, "a layer has no norm weights");
	if (kv && check_cache(kv, b, err) < 0)
		return VQ_E_DATA;
	x = rows_of(r, l->cfg->hidden, err);
	if (!x)
		return VQ_E_SYS;
	vq_layer_norm(l->cfg, h, r->n_rows, l->norm1_w, l->norm1_b, x);
	set_x(r, x, l->cfg->hidden);
	return VQ_OK;
}

static uint32_t past_of(const struct vq_layer_run *r, uint32_t s)
{
	return r->kv ? r->kv->n[s] : 0;
}

/* Turns the queries and keys of every row by its position. */
static int rotate(const struct vq_layer_run *r, float *q, float *k, struct vq_err *err)
{
	const struct vq_layer_config *c = r->layer->cfg;
	const uint32_t *start = r->batch->start;
	uint32_t half = c->head_dim / 2, first = UINT32_MAX, end = 0, s;
	float *table;

	for (s = 0; s < r->batch->n_seqs; s++) {
		uint32_t past = past_of(r, s), n = start[s + 1] - start[s];

		if (n && past < first)
			first = past;
		if (n && past + n > end)
			end = past + n;
	}
	table = vq_alloc((size_t)(end - first) * half, 2 * sizeof(float), err);
	if (!table)
		return VQ_E_SYS;
	vq_rotary_table(table, table + (size_t)(end - first) * half, first, end - first,
			c->head_dim, c->rope_theta);
	for (s = 0; s < r->batch->n_seqs; s++) {
		uint32_t past = past_of(r, s);
		long long i;

#pragma omp parallel for schedule(static) if (start[s + 1] - start[s] > 64)
		for (i = start[s]; i < start[s + 1]; i++) {
			const float *cs =
				table + (size_t)(past + (uint32_t)i - start[s] - first) * half;
			const float *sn = cs + (size_t)(end - first) * half;

			vq_rotary(q + (size_t)i * c->n_heads * c->head_dim, c->n_heads, c->head_dim,
				  cs, sn);
			vq_rotary(k + (size_t)i * c->n_kv_heads * c->head_dim, c->n_kv_heads,
				  c->head_dim, cs, sn);
		}
	}
	vq_free(table);
	return VQ_OK;
}

/* Where each sequence's keys and values stand: in k and v, or in the cache, which gets the new rows. */
static void place_keys(const struct vq_layer_run *r, float *k, float *v, const float **ks,
		       const float **vs, uint32_t *past)
{
	uint32_t width = r->layer->lin[VQ_LIN_K].n_out, s;

	for (s = 0; s < r->batch->n_seqs; s++) {
		size_t at = (size_t)r->batch->start[s] * width;
		size_t n = (size_t)(r->batch->start[s + 1] - r->batch->start[s]) * width;

		past[s] = past_of(r, s);
		ks[s] = k + at;
		vs[s] = v + at;
		if (r->kv) {
			size_t base = (size_t)s * r->kv->room * width;
			size_t to = base + (size_t)past[s] * width;

			memcpy(r->kv->k + to, k + at, n * sizeof(float));
			memcpy(r->kv->v + to, v + at, n * sizeof(float));
			ks[s] = r->kv->k + base;
			vs[s] = r->kv->v + base;
		}
	}
}

/* x = attention(q, k, v), with q k v [rows, ...] from the linears. */
static int attend(struct vq_layer_run *r, float *q, float *k, float *v, struct vq_err *err)
{
	const struct vq_layer_config *c = r->layer->cfg;
	uint32_t n_seqs = r->batch->n_seqs, q_width = c->n_heads * c->head_dim;
	const float **ks = vq_alloc(2 * (size_t)n_seqs, sizeof(*ks), err);
	uint32_t *past = vq_alloc(n_seqs, sizeof(*past), err);
	float *x = rows_of(r, q_width, err);
	int rc = VQ_E_SYS;

	if (!ks || !past || !x)
		goto out;
	if (c->rope_theta > 0 && r->n_rows) {
		rc = rotate(r, q, k, err);
		if (rc < 0)
			goto out;
	}
	place_keys(r, k, v, ks, ks + n_seqs, past);
	rc = vq_attention_run(&(struct vq_attention){c, r->batch, q, ks, ks + n_seqs, past,
						     r->layer->lin[VQ_LIN_K].n_out, x},
			      err);
	if (rc < 0)
		goto out;
	set_x(r, x, q_width);
	x = NULL;
out:
	vq_free(x);
	vq_free(past);
	vq_free(ks);
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
	rc = vq_linear_apply((const struct vq_linear *[]){&l[VQ_LIN_Q], &l[VQ_LIN_K], &l[VQ_LIN_V]},
			     3, r->x, r->n_rows, (float *[]){q, k, v}, err);
	if (rc >= 0)
		rc = attend(r, q, k, v, err);
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
	x = rows_of(r, l->cfg->hidden, err);
	if (!x)
		return VQ_E_SYS;
	vq_layer_norm(l->cfg, r->h, r->n_rows, l->norm2_w, l->norm2_b, x);
	set_x(r, x, l->cfg->hidden);
	return VQ_OK;
}

static int stage_up(struct vq_layer_run *r, struct vq_err *err)
{
	const struct vq_layer_config *c = r->layer->cfg;
	const struct vq_linear *l = r->layer->lin;
	float *up = rows_of(r, c->inter, err);
	float *gate = c->gated ? rows_of(r, c->inter, err) : NULL;
	int rc = VQ_E_SYS;

	if (!up || (c->gated && !gate))
		goto out;
	rc = vq_linear_apply((const struct vq_linear *[]){&l[VQ_LIN_UP], &l[VQ_LIN_GATE]},
			     c->gated ? 2 : 1, r->x, r->n_rows, (float *[]){up, gate}, err);
	if (rc < 0)
		goto out;
	activate(c->act, gate ? gate : up, gate ? up : NULL, r->n_rows * c->inter, up);
	set_x(r, up, c->inter);
	up = NULL;
out:
	vq_free(up);
	vq_free(gate);
	return rc;
}

int vq_layer_next(struct vq_layer_run *r, struct vq_err *err)
{
	int rc = VQ_OK;

	switch (r->slot) {
	case VQ_SLOT_QKV: rc = stage_qkv(r, err); break;
	case VQ_SLOT_O: rc = stage_o(r, err); break;
	case VQ_SLOT_UP: rc = stage_up(r, err); break;
	case VQ_SLOT_DOWN: rc = add_linear(r, VQ_LIN_DOWN, err); break;
	case VQ_N_SLOTS: return vq_fail(err, VQ_E_DATA, "a layer has four stages, not five");
	}
	if (rc >= 0)
		r->slot++;
	return rc;
}

void vq_layer_end(struct vq_layer_run *r)
{
	vq_free(r->x);
	memset(r, 0, sizeof(*r));
}

int vq_layer_forward(const struct vq_layer *l, float *h, const struct vq_batch *b,
		     struct vq_kv_layer *kv, struct vq_err *err)
{
	struct vq_layer_run r;
	int rc = vq_layer_begin(&r, l, h, b, kv, err), i;

	for (i = 0; rc >= 0 && i < VQ_N_SLOTS; i++)
		rc = vq_layer_next(&r, err);
	vq_layer_end(&r);
	return rc;
}
