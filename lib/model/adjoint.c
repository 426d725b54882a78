/* Adjoint of a transformer layer, the reverse of layer.c's four stages. */
#include "model/adjoint.h"

#include <string.h>

#include "base/mem.h"
#include "kernel/blas.h"
#include "kernel/gemm_back.h"
#include "kernel/ops.h"
#include "model/adjoint_attention.h"

/* Cotangent rows that go through the MLP at once. */
#define MAX_ROWS 2048u

/* What the forward pass leaves for the way back; all [n, width]. */
struct trace {
	float *q, *k, *v; /* q, k after rotary embedding */
	float *mid;       /* h + o(attention) */
	float *value;     /* gated: act(gate); else unused */
	float *slope;     /* gated: up * act'(gate); else act'(up) */
	/* With a sink alone, else NULL: the inputs of o and down. */
	float *att, *act;
	const struct vq_layer_sink *sink;
};

static void trace_free(struct trace *t)
{
	vq_free(t->q);
	vq_free(t->k);
	vq_free(t->v);
	vq_free(t->mid);
	vq_free(t->value);
	vq_free(t->slope);
	vq_free(t->att);
	vq_free(t->act);
}

static float *rows(uint32_t n, uint32_t width, struct vq_err *err)
{
	size_t count;

	if (vq_mul_size(&count, n, width) < 0) {
		vq_fail(err, VQ_E_SYS, "memory: %u rows of %u numbers", n, width);
		return NULL;
	}
	return vq_alloc_f32(count, err);
}

static void value_of(enum vq_act_fn f, const float *x, size_t n, float *out)
{
	switch (f) {
	case VQ_ACT_SILU: vq_silu(x, NULL, n, out); break;
	case VQ_ACT_QUICK_GELU: vq_quick_gelu(x, NULL, n, out); break;
	case VQ_ACT_GELU_ERF: vq_gelu_erf(x, NULL, n, out); break;
	case VQ_ACT_GELU_TANH: vq_gelu_tanh(x, NULL, n, out); break;
	}
}

/* g += norm^T gx for k stacks of n rows; x [n, hidden] is the norm's input. */
static void add_norm_adjoint(const struct vq_layer_config *c, const float *x, const float *w,
			     uint32_t n, uint32_t k, float *gx, float *g)
{
	long long i, total = (long long)n * k;
	uint32_t d = c->hidden;

#pragma omp parallel for schedule(static)
	for (i = 0; i < total; i++) {
		uint32_t j;

		vq_norm_adjoint(c->norm, c->eps, d, x + (size_t)(i % n) * d, w, gx + (size_t)i * d);
		for (j = 0; j < d; j++)
			g[(size_t)i * d + j] += gx[(size_t)i * d + j];
	}
}

static int back(const struct vq_linear *l, const float *g, size_t n, float *out, struct vq_err *err)
{
	if (!l->w || l->act.bits < 16)
		return vq_fail(err, VQ_E_DATA, "adjoint: want floating-point weights and inputs");
	return vq_gemm_back(g, n, l->w, l->dtype, l->n_out, l->n_in, out, err);
}

/* out += g W, with room for one product in tmp. */
static int add_back(const struct vq_linear *l, const float *g, size_t n, float *tmp, float *out,
		    struct vq_err *err)
{
	int rc = back(l, g, n, tmp, err);

	if (rc >= 0)
		vq_add(out, tmp, n * l->n_in);
	return rc;
}

static void rotate(const struct vq_layer_config *c, uint32_t heads, uint32_t n, uint32_t k,
		   const float *table, float *x)
{
	uint32_t half = vq_rotary_dim(c) / 2;
	long long i, total = (long long)n * k;

#pragma omp parallel for schedule(static)
	for (i = 0; i < total; i++)
		vq_layer_turn(c, x + (size_t)i * heads * c->head_dim, heads,
			      table + (size_t)(i % n) * half, table + ((size_t)n + i % n) * half);
}

/* cos and sin [2, n, vq_rotary_dim / 2]; the adjoint of a rotation is the rotation back: sin negated. */
static float *rotation_table(const struct vq_layer_config *c, uint32_t n, int backward,
			     struct vq_err *err)
{
	size_t half = vq_rotary_dim(c) / 2, i;
	float *t = rows(n, 2 * (uint32_t)half, err);

	if (!t)
		return NULL;
	vq_rotary_table(t, t + n * half, 0, n, vq_rotary_dim(c), c->rope_theta);
	for (i = 0; backward && i < n * half; i++)
		t[n * half + i] = -t[n * half + i];
	return t;
}

static int forward_attention(const struct vq_layer *l, const float *h, uint32_t n, struct trace *t,
			     struct vq_err *err)
{
	const struct vq_layer_config *c = l->cfg;
	float *x = rows(n, c->hidden, err), *a = rows(n, l->lin[VQ_LIN_Q].n_out, err), *table;
	const uint32_t start[2] = {0, n}, past = 0;
	const struct vq_batch batch = {1, start};
	int rc = VQ_E_SYS;

	if (!x || !a)
		goto out;
	vq_layer_norm(c, h, n, l->norm1_w, l->norm1_b, x);
	rc = vq_linear_apply((const struct vq_linear *[]){&l->lin[VQ_LIN_Q], &l->lin[VQ_LIN_K],
							  &l->lin[VQ_LIN_V]},
			     3, x, n, (float *[]){t->q, t->k, t->v}, err);
	if (rc >= 0 && c->rope_theta > 0) {
		table = rotation_table(c, n, 0, err);
		if (!table) {
			rc = VQ_E_SYS;
			goto out;
		}
		rotate(c, c->n_heads, n, 1, table, t->q);
		rotate(c, c->n_kv_heads, n, 1, table, t->k);
		vq_free(table);
	}
	if (rc >= 0)
		rc = vq_attention_run(
			&(struct vq_attention){c, &batch, &past, t->q, &batch, t->k, t->v, NULL, a},
			err);
	if (rc >= 0)
		rc = vq_linear_one(&l->lin[VQ_LIN_O], a, n, t->mid, err);
	if (rc >= 0)
		vq_add(t->mid, h, (size_t)n * c->hidden);
	if (t->sink) {
		t->att = a;
		a = NULL;
	}
out:
	vq_free(x);
	vq_free(a);
	return rc;
}

/* What the MLP's first linears read. */
static void mlp_input(const struct vq_layer *l, const float *h, const struct trace *t, uint32_t n,
		      float *x)
{
	if (l->cfg->parallel)
		vq_layer_norm(l->cfg, h, n, l->norm1_w, l->norm1_b, x);
	else
		vq_layer_norm(l->cfg, t->mid, n, l->norm2_w, l->norm2_b, x);
}

/* value and slope of the MLP's middle. */
static int forward_mlp(const struct vq_layer *l, const float *h, uint32_t n, struct trace *t,
		       struct vq_err *err)
{
	const struct vq_layer_config *c = l->cfg;
	size_t count = (size_t)n * c->inter, i;
	float *x = rows(n, c->hidden, err), *up = rows(n, c->inter, err);
	int rc = VQ_E_SYS;

	if (!x || !up)
		goto out;
	mlp_input(l, h, t, n, x);
	rc = vq_linear_apply((const struct vq_linear *[]){&l->lin[VQ_LIN_UP], &l->lin[VQ_LIN_GATE]},
			     c->gated ? 2 : 1, x, n, (float *[]){up, t->value}, err);
	if (rc < 0)
		goto out;
	vq_act_slope(c->act, c->gated ? t->value : up, count, t->slope);
	if (c->gated) {
		value_of(c->act, t->value, count, t->value);
		for (i = 0; i < count; i++)
			t->slope[i] *= up[i];
	}
	if (t->sink && c->gated)
		for (i = 0; i < count; i++)
			t->act[i] = t->value[i] * up[i];
	else if (t->sink)
		value_of(c->act, up, count, t->act);
out:
	vq_free(x);
	vq_free(up);
	return rc;
}

static int trace_new(struct trace *t, const struct vq_layer *l, const float *h, uint32_t n,
		     const struct vq_layer_sink *sink, struct vq_err *err)
{
	const struct vq_layer_config *c = l->cfg;
	int rc;

	*t = (struct trace){.sink = sink};
	t->q = rows(n, l->lin[VQ_LIN_Q].n_out, err);
	t->k = rows(n, l->lin[VQ_LIN_K].n_out, err);
	t->v = rows(n, l->lin[VQ_LIN_V].n_out, err);
	t->mid = rows(n, c->hidden, err);
	t->slope = rows(n, c->inter, err);
	t->value = rows(c->gated ? n : 0, c->inter, err);
	if (sink)
		t->act = rows(n, c->inter, err);
	if (!t->q || !t->k || !t->v || !t->mid || !t->slope || !t->value || (sink && !t->act))
		return VQ_E_SYS;
	rc = forward_attention(l, h, n, t, err);
	return rc < 0 ? rc : forward_mlp(l, h, n, t, err);
}

/* Cotangents of the outputs of linears that share an input. */
struct slot_grad {
	uint32_t n_linears;
	enum vq_lin lin[3];
	const float *g[3]; /* [n, n_out] */
};

static int give_linears(const struct vq_layer_sink *s, const struct slot_grad *p, const float *x,
			uint32_t n, struct vq_err *err)
{
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0; i < p->n_linears && rc >= 0; i++)
		rc = s->linear(s->ctx, p->lin[i], x, p->g[i], n, err);
	return rc;
}

/* Linears that read norm1's output, or norm2's (second): what that norm reads is in [n, hidden]. */
static int give_behind(const struct vq_layer *l, const struct vq_layer_sink *s, int second,
		       const struct slot_grad *p, const float *in, uint32_t n, struct vq_err *err)
{
	float *x = rows(n, l->cfg->hidden, err);
	int rc;

	if (!x)
		return VQ_E_SYS;
	vq_layer_norm(l->cfg, in, n, second ? l->norm2_w : l->norm1_w,
		      second ? l->norm2_b : l->norm1_b, x);
	rc = give_linears(s, p, x, n, err);
	vq_free(x);
	return rc;
}

/* Through the norm whose output has the cotangents gx: adds to g.  in [n, hidden] is its input. */
static int back_norm(const struct vq_layer *l, const struct vq_layer_sink *s, int second,
		     const float *in, uint32_t n, float *gx, float *g, uint32_t k,
		     struct vq_err *err)
{
	int rc = s && s->norm ? s->norm(s->ctx, second, in, gx, n, err) : VQ_OK;

	if (rc >= 0)
		add_norm_adjoint(l->cfg, in, second ? l->norm2_w : l->norm1_w, n, k, gx, g);
	return rc;
}

/* g of the output -> gx of what up and gate read, for k cotangents. */
static int back_mlp(const struct vq_layer *l, const struct trace *t, const float *h, uint32_t n,
		    const float *g, float *gx, uint32_t k, struct vq_err *err)
{
	const struct vq_layer_config *c = l->cfg;
	uint32_t r = n * k;
	size_t one = (size_t)n * c->inter, count = (size_t)r * c->inter;
	float *ga = rows(r, c->inter, err), *gate = rows(c->gated ? r : 0, c->inter, err);
	float *tmp = rows(c->gated ? r : 0, c->hidden, err);
	int rc = VQ_E_SYS;
	long long i;

	if (!ga || !gate || !tmp)
		goto out;
	rc = back(&l->lin[VQ_LIN_DOWN], g, r, ga, err);
	if (rc >= 0 && t->sink)
		rc = give_linears(t->sink, &(struct slot_grad){1, {VQ_LIN_DOWN}, {g}}, t->act, n,
				  err);
	if (rc < 0)
		goto out;
#pragma omp parallel for schedule(static)
	for (i = 0; i < (long long)count; i++) {
		float a = ga[i];

		if (c->gated) {
			gate[i] = a * t->slope[(size_t)i % one];
			ga[i] = a * t->value[(size_t)i % one];
		} else {
			ga[i] = a * t->slope[(size_t)i % one];
		}
	}
	rc = back(&l->lin[VQ_LIN_UP], ga, r, gx, err);
	if (rc >= 0 && c->gated)
		rc = add_back(&l->lin[VQ_LIN_GATE], gate, r, tmp, gx, err);
	if (rc >= 0 && t->sink)
		rc = give_behind(
			l, t->sink, !c->parallel,
			&(struct slot_grad){c->gated ? 2 : 1, {VQ_LIN_UP, VQ_LIN_GATE}, {ga, gate}},
			c->parallel ? h : t->mid, n, err);
out:
	vq_free(ga);
	vq_free(gate);
	vq_free(tmp);
	return rc;
}

/* g of the attention's output -> gx of what q, k and v read. */
static int back_attention(const struct vq_layer *l, const struct trace *t, const float *h,
			  uint32_t n, const float *g, float *gx, uint32_t k, struct vq_err *err)
{
	const struct vq_layer_config *c = l->cfg;
	uint32_t r = n * k, q_width = l->lin[VQ_LIN_Q].n_out, kv_width = l->lin[VQ_LIN_K].n_out;
	float *ga = rows(r, q_width, err), *gq = rows(r, q_width, err),
	      *gk = rows(r, kv_width, err);
	float *gv = rows(r, kv_width, err), *table = NULL;
	float *tmp = rows(r, c->hidden, err);
	int rc = VQ_E_SYS;

	if (!ga || !gq || !gk || !gv || !tmp)
		goto out;
	rc = back(&l->lin[VQ_LIN_O], g, r, ga, err);
	if (rc >= 0 && t->sink)
		rc = give_linears(t->sink, &(struct slot_grad){1, {VQ_LIN_O}, {g}}, t->att, n, err);
	if (rc >= 0)
		rc = vq_attention_adjoint(
			&(struct vq_attention_grad){c, n, k, t->q, t->k, t->v, ga, gq, gk, gv},
			err);
	if (rc >= 0 && c->rope_theta > 0) {
		table = rotation_table(c, n, 1, err);
		if (!table) {
			rc = VQ_E_SYS;
			goto out;
		}
		rotate(c, c->n_heads, n, k, table, gq);
		rotate(c, c->n_kv_heads, n, k, table, gk);
	}
	if (rc >= 0)
		rc = back(&l->lin[VQ_LIN_Q], gq, r, gx, err);
	if (rc >= 0)
		rc = add_back(&l->lin[VQ_LIN_K], gk, r, tmp, gx, err);
	if (rc >= 0)
		rc = add_back(&l->lin[VQ_LIN_V], gv, r, tmp, gx, err);
	if (rc >= 0 && t->sink)
		rc = give_behind(
			l, t->sink, 0,
			&(struct slot_grad){3, {VQ_LIN_Q, VQ_LIN_K, VQ_LIN_V}, {gq, gk, gv}}, h, n,
			err);
out:
	vq_free(ga);
	vq_free(gq);
	vq_free(gk);
	vq_free(gv);
	vq_free(tmp);
	vq_free(table);
	return rc;
}

/* k cotangents g [k, n, hidden] of the output, in place.  A parallel layer has one norm, which both of its halves read. */
static int back_layer(const struct vq_layer *l, const struct trace *t, const float *h, uint32_t n,
		      float *g, uint32_t k, struct vq_err *err)
{
	uint32_t hidden = l->cfg->hidden;
	float *gx = rows(n * k, hidden, err), *both = NULL;
	int rc = gx ? back_mlp(l, t, h, n, g, gx, k, err) : VQ_E_SYS;

	if (rc >= 0 && l->cfg->parallel) {
		both = gx;
		gx = rows(n * k, hidden, err);
		rc = gx ? VQ_OK : VQ_E_SYS;
	} else if (rc >= 0) {
		rc = back_norm(l, t->sink, 1, t->mid, n, gx, g, k, err);
	}
	if (rc >= 0)
		rc = back_attention(l, t, h, n, g, gx, k, err);
	if (rc >= 0 && both)
		vq_add(gx, both, (size_t)n * k * hidden);
	if (rc >= 0)
		rc = back_norm(l, t->sink, 0, h, n, gx, g, k, err);
	vq_free(gx);
	vq_free(both);
	return rc;
}

int vq_layer_adjoint(const struct vq_layer *l, const float *h, uint32_t n, float *g, uint32_t k,
		     const struct vq_layer_sink *sink, struct vq_err *err)
{
	uint32_t step = n >= MAX_ROWS ? 1 : n ? MAX_ROWS / n : 1, i;
	struct trace t;
	int rc = trace_new(&t, l, h, n, sink, err);

	for (i = 0; i < k && rc >= 0; i += step) {
		uint32_t m = k - i < step ? k - i : step;

		rc = back_layer(l, &t, h, n, g + (size_t)i * n * l->cfg->hidden, m, err);
	}
	trace_free(&t);
	return rc;
}

int vq_projector_adjoint(const struct vq_config *c, const struct vq_projector *p,
			 const float *features, uint32_t n, const float *g, uint32_t k, float *out,
			 struct vq_err *err)
{
	uint32_t width = c->projector.out;
	size_t one = (size_t)n * width, i;
	float *mid, *gm;
	int rc = VQ_E_SYS;

	if (c->projector.n_linears == 1)
		return back(&p->fc[0], g, (size_t)n * k, out, err);
	mid = rows(n, width, err);
	gm = rows(n * k, width, err);
	if (!mid || !gm)
		goto out;
	rc = vq_linear_one(&p->fc[0], features, n, mid, err);
	if (rc >= 0)
		rc = back(&p->fc[1], g, (size_t)n * k, gm, err);
	if (rc < 0)
		goto out;
	vq_act_slope(c->projector.act, mid, one, mid);
	for (i = 0; i < one * k; i++)
		gm[i] *= mid[i % one];
	rc = back(&p->fc[0], gm, (size_t)n * k, out, err);
out:
	vq_free(mid);
	vq_free(gm);
	return rc;
}
