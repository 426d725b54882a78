/* Adjoint of softmax attention: with P = softmax(S), S = q k^T / sqrt(d) and O = P v, for a cotangent dO
 *   dv = P^T dO,   dP = dO v^T,   dS = P (dP - rowsum(dP P)),   dq = dS k / sqrt(d),   dk = dS^T q / sqrt(d). */
#include "model/adjoint_attention.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/blas.h"
#include "kernel/ops.h"

/* VQ_ADJOINT_QUERIES; of a causal head no block beyond the diagonal is computed. */
#define BLOCK VQ_ADJOINT_QUERIES

/* Rows of one query head: weights and their cotangents, BLOCK x n each. */
struct room {
	float *p, *ds;
};

static int room_new(struct room *r, uint32_t n)
{
	size_t block = (size_t)(n < BLOCK ? n : BLOCK) * n;
	float *base = vq_alloc_f32(2 * block, NULL);

	if (!base)
		return VQ_E_SYS;
	*r = (struct room){base, base + block};
	return VQ_OK;
}

/* Queries first.. first + n over m keys. */
static void softmax_rows(float *p, uint32_t first, uint32_t n, uint32_t m, int causal)
{
	uint32_t i;

	for (i = 0; i < n; i++) {
		uint32_t seen = causal ? first + i + 1 : m;

		vq_softmax(p + (size_t)i * m, seen);
		memset(p + (size_t)i * m + seen, 0, (m - seen) * sizeof(float));
	}
}

/* Eight sums at once: a single one would wait for itself. */
static double dot(const float *a, const float *b, uint32_t n)
{
	enum { LANES = 8 };
	double s[LANES] = {0}, sum = 0;
	uint32_t i = 0, j;

	for (; i + LANES <= n; i += LANES)
		for (j = 0; j < LANES; j++)
			s[j] += (double)a[i + j] * b[i + j];
	for (; i < n; i++)
		sum += (double)a[i] * b[i];
	for (j = 0; j < LANES; j++)
		sum += s[j];
	return sum;
}

/* dS = P (dP - rowsum(dP P)) / sqrt(d), in place of dP; n rows of m keys. */
static void softmax_adjoint(const float *p, float *dp, uint32_t n, uint32_t m, float scale)
{
	uint32_t i, j;

	for (i = 0; i < n; i++) {
		const float *pi = p + (size_t)i * m;
		float *di = dp + (size_t)i * m;
		float sum = (float)dot(pi, di, m);

		for (j = 0; j < m; j++)
			di[j] = pi[j] * (di[j] - sum) * scale;
	}
}

/* Queries first.. first + n of one query head, all cotangents. */
static void block(const struct vq_attention_grad *a, uint32_t hq, uint32_t first, uint32_t n,
		  const struct room *r)
{
	const struct vq_layer_config *c = a->cfg;
	uint32_t dim = c->head_dim, m = c->causal ? first + n : a->n, j;
	size_t qs = (size_t)c->n_heads * dim, ks = (size_t)c->n_kv_heads * dim;
	size_t ko = (size_t)(hq / (c->n_heads / c->n_kv_heads)) * dim;
	size_t qo = (size_t)hq * dim + first * qs;
	float scale = 1.0f / sqrtf((float)dim);

	vq_gemm_nt(n, m, dim, scale, a->q + qo, qs, a->key + ko, ks, r->p, m);
	softmax_rows(r->p, first, n, m, c->causal);
	for (j = 0; j < a->k; j++) {
		size_t gq = j * a->n * qs + qo, gk = j * a->n * ks + ko;

		vq_gemm_tn(m, dim, n, r->p, m, a->g_out + gq, qs, a->g_v + gk, ks);
		vq_gemm_nt(n, m, dim, 1.0f, a->g_out + gq, qs, a->value + ko, ks, r->ds, m);
		softmax_adjoint(r->p, r->ds, n, m, scale);
		vq_gemm_nn(n, dim, m, r->ds, m, a->key + ko, ks, a->g_q + gq, qs);
		vq_gemm_tn(m, dim, n, r->ds, m, a->q + qo, qs, a->g_k + gk, ks);
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
		uint32_t i, first;

		if (room_new(&r, a->n) < 0) {
#pragma omp atomic write
			failed = 1;
			continue;
		}
		for (i = 0; i < group; i++)
			for (first = 0; first < a->n; first += BLOCK)
				block(a, (uint32_t)g * group + i, first,
				      a->n - first < BLOCK ? a->n - first : BLOCK, &r);
		vq_free(r.p);
	}
	if (failed)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have %u x %u attention weights",
			       BLOCK, a->n);
	return VQ_OK;
}
