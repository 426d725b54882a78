/* Adjoint of a transformer layer, the reverse of layer.c's four stages. */
#include "model/adjoint.h"

#include <string.h>

#include "base/mem.h"
#include "kernel/blas.h"
#include "kernel/ops.h"
#include "model/adjoint_attention.h"
#include "model/adjoint_mlp.h"

/* Cotangent rows that go through the MLP at once. */
#define MAX_ROWS 2048u

/* What the forward pass leaves for the way back; all [n, width]. */
struct trace {
	float *q, *k, *v; /* q, k after rotary embedding */
	float *mid;       /* h + o(attention) */
	struct vq_mlp mlp;
	struct vq_experts_trace experts; /* of a sparse layer, instead */
	float *att;                      /* with a sink alone, else NULL: the input of o */
	const struct vq_layer_sink *sink;
};

static void trace_free(struct trace *t)
{
	vq_free(t->q);
	vq_free(t->k);
	vq_free(t->v);
	vq_free(t->mid);
	vq_free(t->mlp.value);
	vq_free(t->mlp.slope);
	vq_free(t->mlp.act);
	vq_experts_trace_free(&t->experts);
	vq_free(t->att);
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

/* Of the MLP's middle, or of the experts'. */
static int forward_mlp(const struct vq_layer *l, const float *h, uint32_t n, struct trace *t,
		       struct vq_err *err)
{
	const struct vq_layer_config *c = l->cfg;
	float *x = rows(n, c->hidden, err);
	int rc = VQ_E_SYS;

	if (!x)
		return rc;
	mlp_input(l, h, t, n, x);
	if (l->n_experts)
		return vq_experts_trace(&t->experts, l, x, n, t->sink != NULL, err);
	t->mlp = (struct vq_mlp){.cfg = c,
				 .up = &l->lin[VQ_LIN_UP],
				 .gate = &l->lin[VQ_LIN_GATE],
				 .down = &l->lin[VQ_LIN_DOWN],
				 .n = n};
	t->mlp.slope = rows(n, c->inter, err);
	t->mlp.value = rows(c->gated ? n : 0, c->inter, err);
	t->mlp.act = t->sink ? rows(n, c->inter, err) : NULL;
	if (t->mlp.slope && t->mlp.value && (!t->sink || t->mlp.act))
		rc = vq_mlp_trace(&t->mlp, x, err);
	vq_free(x);
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
	if (!t->q || !t->k || !t->v || !t->mid)
		return VQ_E_SYS;
	rc = forward_attention(l, h, n, t, err);
	return rc < 0 ? rc : forward_mlp(l, h, n, t, err);
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
	float *x = NULL;
	int rc;

	if (l->n_experts)
		return vq_experts_back(&t->experts, l, n, g, k, gx, t->sink, err);
	if (t->sink) {
		x = rows(n, l->cfg->hidden, err);
		if (!x)
			return VQ_E_SYS;
		mlp_input(l, h, t, n, x);
	}
	rc = vq_mlp_back(&t->mlp, g, k, gx, t->sink, x, err);
	vq_free(x);
	return rc;
}

/* q, k and v, which read norm1 of h. */
static int give_qkv(const struct vq_layer *l, const struct vq_layer_sink *s, const float *h,
		    float *const g[3], uint32_t n, struct vq_err *err)
{
	float *x = rows(n, l->cfg->hidden, err);
	uint32_t i;
	int rc = x ? VQ_OK : VQ_E_SYS;

	if (rc >= 0)
		vq_layer_norm(l->cfg, h, n, l->norm1_w, l->norm1_b, x);
	for (i = 0; i < 3 && rc >= 0; i++)
		rc = s->linear(s->ctx, (enum vq_lin)(VQ_LIN_Q + i), 0, x, g[i], n, err);
	vq_free(x);
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
	rc = vq_linear_back(&l->lin[VQ_LIN_O], g, r, ga, err);
	if (rc >= 0 && t->sink)
		rc = t->sink->linear(t->sink->ctx, VQ_LIN_O, 0, t->att, g, n, err);
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
		rc = vq_linear_back(&l->lin[VQ_LIN_Q], gq, r, gx, err);
	if (rc >= 0)
		rc = vq_linear_add_back(&l->lin[VQ_LIN_K], gk, r, tmp, gx, err);
	if (rc >= 0)
		rc = vq_linear_add_back(&l->lin[VQ_LIN_V], gv, r, tmp, gx, err);
	if (rc >= 0 && t->sink)
		rc = give_qkv(l, t->sink, h, (float *const[]){gq, gk, gv}, n, err);
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
		return vq_linear_back(&p->fc[0], g, (size_t)n * k, out, err);
	mid = rows(n, width, err);
	gm = rows(n * k, width, err);
	if (!mid || !gm)
		goto out;
	rc = vq_linear_one(&p->fc[0], features, n, mid, err);
	if (rc >= 0)
		rc = vq_linear_back(&p->fc[1], g, (size_t)n * k, gm, err);
	if (rc < 0)
		goto out;
	vq_act_slope(c->projector.act, mid, one, mid);
	for (i = 0; i < one * k; i++)
		gm[i] *= mid[i % one];
	rc = vq_linear_back(&p->fc[0], gm, (size_t)n * k, out, err);
out:
	vq_free(mid);
	vq_free(gm);
	return rc;
}
