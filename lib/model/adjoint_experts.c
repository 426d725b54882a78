/* Adjoint of a sparse layer's experts and router: the choice is a constant, the gates are not.
 *
 *   y      = sum_e gate_e mlp_e(x)
 *   gx     = sum_e mlp_e^T (gate_e g)  +  sum_j dl_j router_j
 *   top-2  gate_1 = p_1 / (p_1 + p_2): dl_1 = gate_1 gate_2 (<g, y_1> - <g, y_2>) = -dl_2
 *   top-1  gate = p_1: dl_j = <g, y_1> p_1 ((j == 1) - p_j) */
#include <string.h>

#include "base/mem.h"
#include "kernel/ops.h"
#include "model/adjoint_mlp.h"
#include "model/layer_stage.h"

static struct vq_mlp mlp_of(const struct vq_experts_trace *t, const struct vq_layer *l, uint32_t e)
{
	const struct vq_linear *lin = l->experts + (size_t)e * VQ_EXPERT_LINEARS;
	size_t at = (size_t)t->route.start[e] * l->cfg->inter;

	return (struct vq_mlp){.cfg = l->cfg,
			       .up = &lin[0],
			       .gate = &lin[VQ_LIN_GATE - VQ_LIN_UP],
			       .down = &lin[VQ_LIN_DOWN - VQ_LIN_UP],
			       .n = t->route.n[e],
			       .expert = e,
			       .value = l->cfg->gated ? t->value + at : NULL,
			       .slope = t->slope + at,
			       .act = t->act ? t->act + at : NULL};
}

/* Rows of expert e out of x [n, d]; given. */
static float *gather(const struct vq_experts_trace *t, uint32_t e, uint32_t d, struct vq_err *err)
{
	float *x = vq_layer_rows(t->route.n[e], d, err);
	uint32_t i;

	for (i = 0; x && i < t->route.n[e]; i++)
		memcpy(x + (size_t)i * d, t->x + (size_t)t->route.row[t->route.start[e] + i] * d,
		       d * sizeof(float));
	return x;
}

static int trace_expert(struct vq_experts_trace *t, const struct vq_layer *l, uint32_t e,
			struct vq_err *err)
{
	uint32_t d = l->cfg->hidden, n = t->route.n[e];
	struct vq_mlp m = mlp_of(t, l, e);
	float *x = gather(t, e, d, err), *own = NULL;
	int rc = x ? VQ_OK : VQ_E_SYS;

	if (rc >= 0 && !m.act) {
		own = m.act = vq_layer_rows(n, l->cfg->inter, err);
		rc = own ? VQ_OK : VQ_E_SYS;
	}
	if (rc >= 0)
		rc = vq_mlp_trace(&m, x, err);
	if (rc >= 0)
		rc = vq_linear_one(m.down, m.act, n, t->y + (size_t)t->route.start[e] * d, err);
	vq_free(own);
	vq_free(x);
	return rc;
}

int vq_experts_trace(struct vq_experts_trace *t, const struct vq_layer *l, float *x, uint32_t n,
		     int with_act, struct vq_err *err)
{
	const struct vq_layer_config *c = l->cfg;
	const struct vq_router r = {l->gating, l->router, l->n_experts, c->hidden, l->index};
	const uint32_t start[2] = {0, n}, past = 0;
	uint32_t e;
	int rc = VQ_E_SYS;

	*t = (struct vq_experts_trace){.x = x};
	t->choice = vq_alloc(n, sizeof(*t->choice), err);
	if (t->choice)
		rc = vq_route(&r, x, n, 1, start, &past, t->choice, err);
	if (rc >= 0)
		rc = vq_route_gather(&t->route, t->choice, n, l->n_experts, NULL, err);
	if (rc < 0)
		return rc;
	t->slope = vq_layer_rows(t->route.n_rows, c->inter, err);
	t->value = vq_layer_rows(c->gated ? t->route.n_rows : 0, c->inter, err);
	t->y = vq_layer_rows(t->route.n_rows, c->hidden, err);
	t->act = with_act ? vq_layer_rows(t->route.n_rows, c->inter, err) : NULL;
	if (!t->slope || !t->value || !t->y || (with_act && !t->act))
		return VQ_E_SYS;
	for (e = 0; rc >= 0 && e < l->n_experts; e++)
		if (t->route.n[e])
			rc = trace_expert(t, l, e, err);
	return rc;
}

void vq_experts_trace_free(struct vq_experts_trace *t)
{
	vq_free(t->x);
	vq_free(t->choice);
	vq_route_free(&t->route);
	vq_free(t->value);
	vq_free(t->slope);
	vq_free(t->act);
	vq_free(t->y);
	*t = (struct vq_experts_trace){0};
}

/* What goes back through one expert. */
struct part {
	const struct vq_experts_trace *t;
	uint32_t e, n, d;
	const float *g; /* [k, n, d] */
	float *gy, *gx; /* [k, rows of e, d] of the expert's output, of its input */
	float *sum;     /* [k, n, d] += */
	float *dot;     /* [k, n, VQ_TOP_K] <g, y> */
};

/* Row j of the k stacks of an expert's rows: its gated cotangent, and its derivative by the gate. */
static void into_expert(const struct part *p, long long j)
{
	uint32_t n_e = p->t->route.n[p->e], at = p->t->route.start[p->e] + (uint32_t)(j % n_e), i;
	uint32_t row = p->t->route.row[at];
	size_t from = (size_t)(j / n_e) * p->n + row;
	const float *g = p->g + from * p->d;
	float *gy = p->gy + (size_t)j * p->d, gate = p->t->route.gate[at];

	for (i = 0; i < p->d; i++)
		gy[i] = gate * g[i];
	for (i = 0; i < VQ_TOP_K; i++)
		if (p->t->choice[row].expert[i] == p->e)
			p->dot[from * VQ_TOP_K + i] = vq_dot(g, p->t->y + (size_t)at * p->d, p->d);
}

static void out_of_expert(const struct part *p, long long j)
{
	uint32_t n_e = p->t->route.n[p->e];
	uint32_t row = p->t->route.row[p->t->route.start[p->e] + (uint32_t)(j % n_e)];

	vq_add(p->sum + ((size_t)(j / n_e) * p->n + row) * p->d, p->gx + (size_t)j * p->d, p->d);
}

static int back_expert(struct part *p, const struct vq_layer *l, uint32_t k,
		       const struct vq_layer_sink *sink, struct vq_err *err)
{
	long long total = (long long)k * p->t->route.n[p->e], j;
	struct vq_mlp m = mlp_of(p->t, l, p->e);
	float *x = sink ? gather(p->t, p->e, p->d, err) : NULL;
	int rc = VQ_E_SYS;

	p->gy = vq_layer_rows((size_t)total, p->d, err);
	p->gx = p->gy ? vq_layer_rows((size_t)total, p->d, err) : NULL;
	if (!p->gx || (sink && !x))
		goto out;
#pragma omp parallel for schedule(static)
	for (j = 0; j < total; j++)
		into_expert(p, j);
	rc = vq_mlp_back(&m, p->gy, k, p->gx, sink, x, err);
	if (rc < 0)
		goto out;
#pragma omp parallel for schedule(static)
	for (j = 0; j < total; j++)
		out_of_expert(p, j);
out:
	vq_free(p->gy);
	vq_free(p->gx);
	vq_free(x);
	return rc;
}

/* gx += what the gates of a row bring; dot [VQ_TOP_K]. */
static void back_router(const struct vq_layer *l, const struct vq_choice *c, const float *x,
			const float *dot, float *gx)
{
	uint32_t d = l->cfg->hidden, e, i;
	float p[VQ_LIMIT_EXPERTS] = {0}, dl[VQ_LIMIT_EXPERTS] = {0};

	if (l->gating->top_k > 1) {
		dl[c->expert[0]] = c->gate[0] * c->gate[1] * (dot[0] - dot[1]);
		dl[c->expert[1]] = -dl[c->expert[0]];
	} else {
		for (e = 0; e < l->n_experts; e++)
			p[e] = vq_dot(l->router + (size_t)e * d, x, d);
		vq_softmax(p, l->n_experts);
		for (e = 0; e < l->n_experts; e++)
			dl[e] = dot[0] * c->gate[0] * ((e == c->expert[0] ? 1.0f : 0.0f) - p[e]);
	}
	for (e = 0; e < l->n_experts; e++)
		for (i = 0; dl[e] != 0 && i < d; i++)
			gx[i] += dl[e] * l->router[(size_t)e * d + i];
}

int vq_experts_back(const struct vq_experts_trace *t, const struct vq_layer *l, uint32_t n,
		    const float *g, uint32_t k, float *gx, const struct vq_layer_sink *sink,
		    struct vq_err *err)
{
	struct part p = {.t = t, .n = n, .d = l->cfg->hidden, .g = g, .sum = gx};
	long long total = (long long)n * k, i;
	int rc = VQ_OK;

	p.dot = vq_calloc((size_t)total, VQ_TOP_K * sizeof(float), err);
	if (!p.dot)
		return VQ_E_SYS;
	memset(gx, 0, (size_t)total * p.d * sizeof(float));
	for (p.e = 0; rc >= 0 && p.e < l->n_experts; p.e++)
		if (t->route.n[p.e])
			rc = back_expert(&p, l, k, sink, err);
#pragma omp parallel for schedule(static)
	for (i = 0; i < total; i++)
		if (rc >= 0)
			back_router(l, &t->choice[i % n], t->x + (size_t)(i % n) * p.d,
				    p.dot + (size_t)i * VQ_TOP_K, gx + (size_t)i * p.d);
	vq_free(p.dot);
	return rc;
}
