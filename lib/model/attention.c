/* Attention in tiles of queries, so that no score matrix is larger than TILE x keys. */
#include "model/attention.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/blas.h"
#include "kernel/ops.h"

#define TILE 64u /* query rows a job; fixed, so that results do not depend on the threads */

/* A job: one tile of one sequence, one head. */
struct job {
	uint32_t seq, first, rows; /* rows first.. of the sequence */
};

static uint32_t seq_rows(const struct vq_attention *a, uint32_t s)
{
	return a->batch->start[s + 1] - a->batch->start[s];
}

/* Tokens ahead of a sequence's own. */
static uint32_t held(const struct vq_attention *a, uint32_t s)
{
	return a->kv ? a->kv->n[s] + a->kv->shared[s] : 0;
}

static uint32_t n_keys(const struct vq_attention *a, uint32_t s)
{
	return held(a, s) + a->own->start[s + 1] - a->own->start[s];
}

static size_t count_tiles(const struct vq_attention *a, uint32_t *most_keys)
{
	size_t n = 0;
	uint32_t s;

	*most_keys = 0;
	for (s = 0; s < a->batch->n_seqs; s++) {
		uint32_t keys = n_keys(a, s);

		n += (seq_rows(a, s) + TILE - 1) / TILE;
		if (keys > *most_keys)
			*most_keys = keys;
	}
	return n;
}

static void list_tiles(const struct vq_attention *a, struct job *jobs)
{
	uint32_t s, at;

	for (s = 0; s < a->batch->n_seqs; s++)
		for (at = 0; at < seq_rows(a, s); at += TILE) {
			uint32_t left = seq_rows(a, s) - at;

			*jobs++ = (struct job){s, at, left < TILE ? left : TILE};
		}
}

/* scores [TILE, keys] and, with a cache, keys and values [keys, head_dim] after them are the thread's. */
static void run_tile(const struct vq_attention *a, const struct job *j, uint32_t head,
		     float *scores)
{
	const struct vq_layer_config *c = a->cfg;
	uint32_t d = c->head_dim, q_width = c->n_heads * d, width = c->n_kv_heads * d, i;
	uint32_t kv_head = head / (c->n_heads / c->n_kv_heads);
	size_t row = (size_t)a->batch->start[j->seq] + j->first;
	uint32_t first = a->past[j->seq] + j->first; /* position of the first query */
	uint32_t keys = c->causal ? first + j->rows : n_keys(a, j->seq);
	size_t at = (size_t)a->own->start[j->seq] * width + (size_t)kv_head * d;
	const float *k = a->k + at, *v = a->v + at;

	if (a->kv) {
		struct vq_keys h = vq_kv_head(a->kv, j->seq, kv_head);
		float *room = scores + (size_t)TILE * keys;

		vq_keys_load(&h, 0, keys, room, room + (size_t)keys * d);
		k = room;
		v = room + (size_t)keys * d;
		width = d;
	}
	vq_gemm_nt(j->rows, keys, d, 1.0f / sqrtf((float)d), a->q + row * q_width + head * d,
		   q_width, k, width, scores, keys);
	for (i = 0; i < j->rows; i++) {
		float *s = scores + (size_t)i * keys;
		uint32_t seen = c->causal ? first + i + 1 : keys;

		vq_softmax(s, seen);
		memset(s + seen, 0, (keys - seen) * sizeof(float));
	}
	vq_gemm_nn(j->rows, d, keys, scores, keys, v, width, a->out + row * q_width + head * d,
		   q_width);
}

static void store(const struct vq_attention *a)
{
	uint32_t width = a->cfg->n_kv_heads * a->cfg->head_dim, s;

	for (s = 0; s < a->batch->n_seqs; s++) {
		size_t at = (size_t)a->own->start[s] * width;

		if (a->kv->shared[s])
			vq_kv_layer_copy(a->kv, s - 1, s, a->kv->shared[s]);
		vq_kv_store(a->kv, s, held(a, s), n_keys(a, s) - held(a, s), a->k + at, a->v + at);
	}
}

int vq_attention_run(const struct vq_attention *a, struct vq_err *err)
{
	uint32_t most_keys, heads = a->cfg->n_heads;
	size_t n_tiles = count_tiles(a, &most_keys);
	size_t room = (size_t)most_keys * (TILE + (a->kv ? 2 * a->cfg->head_dim : 0));
	struct job *jobs = vq_alloc(n_tiles, sizeof(*jobs), err);
	int failed = 0;
	long long i;

	if (!jobs)
		return VQ_E_SYS;
	list_tiles(a, jobs);
	if (a->kv)
		store(a);
#pragma omp parallel
	{
		float *scores = vq_alloc_f32(room, NULL);

		if (!scores) {
#pragma omp atomic write
			failed = 1;
		}
#pragma omp for schedule(dynamic, 1)
		for (i = 0; i < (long long)(n_tiles * heads); i++)
			if (scores)
				run_tile(a, &jobs[i / heads], (uint32_t)(i % heads), scores);
		vq_free(scores);
	}
	vq_free(jobs);
	if (failed)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have attention scores for %u keys",
			       most_keys);
	return VQ_OK;
}
