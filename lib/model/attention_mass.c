/* Attention that tokens receive: column sums of the softmax, in tiles of queries. */
#include "model/attention_mass.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/blas.h"
#include "kernel/ops.h"

#define TILE 64u /* query rows at once */

struct mass {
	const struct vq_layer_config *c;
	const struct vq_batch *b;
	float *q, *k; /* [rows, heads * head_dim] after rotary embedding */
	double *sum;  /* [n_heads, rows] */
};

static float *rows_of(size_t n_rows, uint32_t width, struct vq_err *err)
{
	size_t n;

	if (vq_mul_size(&n, n_rows, width) < 0) {
		vq_fail(err, VQ_E_SYS, "memory: %zu rows of %u numbers", n_rows, width);
		return NULL;
	}
	return vq_alloc_f32(n, err);
}

static int rotate(const struct mass *m, struct vq_err *err)
{
	const struct vq_layer_config *c = m->c;
	uint32_t half = vq_rotary_dim(c) / 2, most = 0, s;
	float *table;

	for (s = 0; s < m->b->n_seqs; s++)
		if (m->b->start[s + 1] - m->b->start[s] > most)
			most = m->b->start[s + 1] - m->b->start[s];
	table = rows_of(most, c->head_dim, err);
	if (!table)
		return VQ_E_SYS;
	vq_rotary_table(table, table + (size_t)most * half, 0, most, 2 * half, c->rope_theta);
	for (s = 0; s < m->b->n_seqs; s++) {
		uint32_t first = m->b->start[s];
		long long i, end = m->b->start[s + 1];

#pragma omp parallel for schedule(static)
		for (i = first; i < end; i++) {
			const float *cs = table + (size_t)(i - first) * half;
			const float *sn = cs + (size_t)most * half;

			vq_layer_turn(c, m->q + (size_t)i * c->n_heads * c->head_dim, c->n_heads,
				      cs, sn);
			vq_layer_turn(c, m->k + (size_t)i * c->n_kv_heads * c->head_dim,
				      c->n_kv_heads, cs, sn);
		}
	}
	vq_free(table);
	return VQ_OK;
}

/* One head of one sequence; scores [TILE, keys] is the thread's. */
static void add_head(const struct mass *m, uint32_t seq, uint32_t head, float *scores)
{
	const struct vq_layer_config *c = m->c;
	uint32_t d = c->head_dim, n = m->b->start[seq + 1] - m->b->start[seq], at, i, j;
	size_t first = m->b->start[seq], qs = (size_t)c->n_heads * d,
	       ks = (size_t)c->n_kv_heads * d;
	const float *q = m->q + first * qs + (size_t)head * d,
		    *k = m->k + first * ks + (size_t)(head / (c->n_heads / c->n_kv_heads)) * d;
	double *sum = m->sum + (size_t)head * m->b->start[m->b->n_seqs] + first;

	memset(sum, 0, n * sizeof(*sum));
	for (at = 0; at < n; at += TILE) {
		uint32_t rows = n - at < TILE ? n - at : TILE, keys = c->causal ? at + rows : n;

		vq_gemm_nt(rows, keys, d, 1.0f / sqrtf((float)d), q + at * qs, qs, k, ks, scores,
			   keys);
		for (i = 0; i < rows; i++) {
			float *s = scores + (size_t)i * keys;
			uint32_t seen = c->causal ? at + i + 1 : keys;

			vq_softmax(s, seen);
			for (j = 0; j < seen; j++)
				sum[j] += s[j];
		}
	}
}

static int add_all(const struct mass *m, struct vq_err *err)
{
	uint32_t heads = m->c->n_heads, most = 0, s;
	long long i, n = (long long)m->b->n_seqs * heads;
	int failed = 0;

	for (s = 0; s < m->b->n_seqs; s++)
		if (m->b->start[s + 1] - m->b->start[s] > most)
			most = m->b->start[s + 1] - m->b->start[s];
#pragma omp parallel
	{
		float *scores = vq_alloc_f32((size_t)TILE * most, NULL);

		if (!scores) {
#pragma omp atomic write
			failed = 1;
		}
#pragma omp for schedule(dynamic, 1)
		for (i = 0; i < n; i++)
			if (scores)
				add_head(m, (uint32_t)(i / heads), (uint32_t)(i % heads), scores);
		vq_free(scores);
	}
	return failed ? vq_fail(err, VQ_E_SYS, "memory: cannot have attention scores for %u keys",
				most)
		      : VQ_OK;
}

static void take_means(const struct mass *m, float *mass)
{
	size_t rows = m->b->start[m->b->n_seqs], i;
	uint32_t s, h;

	for (s = 0; s < m->b->n_seqs; s++)
		for (i = m->b->start[s]; i < m->b->start[s + 1]; i++) {
			size_t see = m->b->start[s + 1] - (m->c->causal ? i : m->b->start[s]);
			double sum = 0;

			for (h = 0; h < m->c->n_heads; h++)
				sum += m->sum[(size_t)h * rows + i];
			mass[i] = (float)(sum / ((double)m->c->n_heads * (double)see));
		}
}

int vq_attention_mass(const struct vq_layer *l, const float *x, const struct vq_batch *b,
		      float *mass, struct vq_err *err)
{
	const struct vq_linear *q = &l->lin[VQ_LIN_Q], *k = &l->lin[VQ_LIN_K];
	size_t rows = b->start[b->n_seqs];
	struct mass m = {.c = l->cfg, .b = b};
	int rc = VQ_E_SYS;

	m.q = rows_of(rows, q->n_out, err);
	m.k = rows_of(rows, k->n_out, err);
	m.sum = vq_alloc(rows * l->cfg->n_heads, sizeof(*m.sum), err);
	if (!m.q || !m.k || !m.sum)
		goto out;
	rc = vq_linear_apply((const struct vq_linear *[]){q, k}, 2, x, rows, (float *[]){m.q, m.k},
			     err);
	if (rc == VQ_OK && l->cfg->rope_theta > 0)
		rc = rotate(&m, err);
	if (rc == VQ_OK)
		rc = add_all(&m, err);
	if (rc == VQ_OK)
		take_means(&m, mass);
out:
	vq_free(m.q);
	vq_free(m.k);
	vq_free(m.sum);
	return rc;
}
