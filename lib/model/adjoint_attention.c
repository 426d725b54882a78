/* Adjoint of softmax attention: with P = softmax(S), S = q k^T / sqrt(d) and O = P v, for a cotangent dO
 *   dv = P^T dO,   dP = dO v^T,   dS = P (dP - rowsum(dP P)),   dq = dS k / sqrt(d),   dk = dS^T q / sqrt(d). */
#include "model/adjoint_attention.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/blas.h"
#include "kernel/ops.h"

/* Work space of one key head: n x n matrices and n x head_dim rows. */
struct room {
	float *p, *pt, *ds, *dst, *rows;
};

static int room_new(struct room *r, uint32_t n, uint32_t dim)
{
	size_t nn = (size_t)n * n;
	float *base = vq_alloc_f32(4 * nn + (size_t)n * dim, NULL);

	if (!base)
		return VQ_E_SYS;
	*r = (struct room){base, base + nn, base + 2 * nn, base + 3 * nn, base + 4 * nn};
	return VQ_OK;
}

static void transpose(const float *a, uint32_t n, float *out)
{
	uint32_t i, j, i0, j0;

	for (i0 = 0; i0 < n; i0 += 32) /* blocks that stay in the first cache */
		for (j0 = 0; j0 < n; j0 += 32)
			for (i = i0; i < n && i < i0 + 32; i++)
				for (j = j0; j < n && j < j0 + 32; j++)
					out[(size_t)j * n + i] = a[(size_t)i * n + j];
}

static void softmax_rows(float *p, uint32_t n, int causal)
{
	uint32_t i;

	for (i = 0; i < n; i++) {
		uint32_t m = causal ? i + 1 : n;

		vq_softmax(p + (size_t)i * n, m);
		memset(p + (size_t)i * n + m, 0, (n - m) * sizeof(float));
	}
}

/* dS = P (dP - rowsum(dP P)) / sqrt(d), in place of dP. */
static void softmax_adjoint(const float *p, float *dp, uint32_t n, float scale)
{
	uint32_t i, j;

	for (i = 0; i < n; i++) {
		const float *pi = p + (size_t)i * n;
		float *di = dp + (size_t)i * n;
		double sum = 0;

		for (j = 0; j < n; j++)
			sum += (double)pi[j] * di[j];
		for (j = 0; j < n; j++)
			di[j] = pi[j] * (di[j] - (float)sum) * scale;
	}
}

static void add_rows(float *to, size_t stride, const float *rows, uint32_t n, uint32_t dim)
{
	uint32_t i, j;

	for (i = 0; i < n; i++)
		for (j = 0; j < dim; j++)
			to[i * stride + j] += rows[(size_t)i * dim + j];
}

/* One query head, all cotangents. */
static void head(const struct vq_attention_grad *a, uint32_t hq, struct room *r)
{
	const struct vq_layer_config *c = a->cfg;
	uint32_t n = a->n, dim = c->head_dim, j;
	size_t qs = (size_t)c->n_heads * dim, ks = (size_t)c->n_kv_heads * dim;
	size_t qo = (size_t)hq * dim, ko = (size_t)(hq / (c->n_heads / c->n_kv_heads)) * dim;
	float scale = 1.0f / sqrtf((float)dim);

	vq_gemm_nt(n, n, dim, scale, a->q + qo, qs, a->key + ko, ks, r->p, n);
	softmax_rows(r->p, n, c->causal);
	transpose(r->p, n, r->pt);
	for (j = 0; j < a->k; j++) {
		const float *go = a->g_out + j * n * qs + qo;

		vq_gemm_nn(n, dim, n, r->pt, n, go, qs, r->rows, dim);
		add_rows(a->g_v + j * n * ks + ko, ks, r->rows, n, dim);
		vq_gemm_nt(n, n, dim, 1.0f, go, qs, a->value + ko, ks, r->ds, n);
		softmax_adjoint(r->p, r->ds, n, scale);
		transpose(r->ds, n, r->dst);
		vq_gemm_nn(n, dim, n, r->ds, n, a->key + ko, ks, a->g_q + j * n * qs + qo, qs);
		vq_gemm_nn(n, dim, n, r->dst, n, a->q + qo, qs, r->rows, dim);
		add_rows(a->g_k + j * n * ks + ko, ks, r->rows, n, dim);
	}
}

int vq_attention_adjoint(const struct vq_attention_grad *a, struct vq_err *err)
{
	const struct vq_layer_config *c = a->cfg;
	uint32_t group = c->n_heads / c->n_kv_heads;
	size_t kv = (size_t)a->k * a->n * c->n_kv_heads * c->head_dim;
	int failed = 0;
	long long g;

	memset(a->g_k, 0, kv * sizeof(float));
	memset(a->g_v, 0, kv * sizeof(float));
	/* A job is a key head with all of its query heads: nobody else adds to its dk and dv. */
#pragma omp parallel for schedule(dynamic, 1)
	for (g = 0; g < c->n_kv_heads; g++) {
		struct room r;
		uint32_t i;

		if (room_new(&r, a->n, c->head_dim) < 0) {
#pragma omp atomic write
			failed = 1;
			continue;
		}
		for (i = 0; i < group; i++)
			head(a, (uint32_t)g * group + i, &r);
		vq_free(r.p);
	}
	if (failed)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have %u x %u attention weights", a->n,
			       a->n);
	return VQ_OK;
}
