/* Attention shared out: a job is some rows of one sequence that read the same key head. */
#include "model/attention.h"

#include <stdatomic.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/attend.h"
#include "kernel/share.h"

struct job {
	uint32_t seq, head; /* a key head */
	uint32_t first, n;  /* queries of the sequence */
};

struct work {
	const struct vq_attention *a;
	struct vq_keys *heads; /* [n_seqs, n_kv_heads] */
	void *made;            /* keys and values where there is no cache */
	struct job *jobs;
	uint32_t n_jobs, most_rows;
};

/* Tokens ahead of a sequence's own. */
static uint32_t held(const struct vq_attention *a, uint32_t s)
{
	return a->kv ? a->kv->n[a->kv->first + s] + a->kv->shared[a->kv->first + s] : 0;
}

static uint32_t own_rows(const struct vq_attention *a, uint32_t s)
{
	return a->own->start[s + 1] - a->own->start[s];
}

static uint32_t n_queries(const struct vq_attention *a, uint32_t s)
{
	return a->batch->start[s + 1] - a->batch->start[s];
}

/* --- keys and values in their places --- */

/* Blocks for the keys of this call alone. */
static int make_heads(struct work *w, struct vq_err *err)
{
	const struct vq_layer_config *c = w->a->cfg;
	size_t total = 0, bytes;
	uint32_t s, head;
	char *p;

	for (s = 0; s < w->a->batch->n_seqs; s++) {
		if (vq_keys_bytes(VQ_KV_F32, c->head_dim, own_rows(w->a, s), &bytes) < 0 ||
		    vq_mul_size(&bytes, bytes, c->n_kv_heads) < 0 || bytes > SIZE_MAX - total)
			return vq_fail(err, VQ_E_SYS, "memory: keys of %u tokens",
				       own_rows(w->a, s));
		total += bytes;
	}
	p = w->made = vq_alloc(total, 1, err);
	if (!p)
		return VQ_E_SYS;
	for (s = 0; s < w->a->batch->n_seqs; s++)
		for (head = 0; head < c->n_kv_heads; head++) {
			uint32_t room = own_rows(w->a, s);

			(void)!vq_keys_bytes(VQ_KV_F32, c->head_dim, room, &bytes); /* did above */
			w->heads[s * c->n_kv_heads + head] =
				vq_keys_at(VQ_KV_F32, c->head_dim, room, p);
			p += bytes;
		}
	return VQ_OK;
}

static void find_heads(struct work *w)
{
	const struct vq_attention *a = w->a;
	uint32_t n = a->cfg->n_kv_heads, s, head;

	for (s = 0; s < a->batch->n_seqs; s++)
		for (head = 0; head < n; head++)
			w->heads[s * n + head] = vq_kv_head(a->kv, a->kv->first + s, head);
}

/* A head of a sequence begins with what it shares with the one before, which is whole by then. */
static void share(const struct vq_kv_layer *kv, uint32_t s, uint32_t head)
{
	struct vq_keys own, before;

	if (!kv->shared[s])
		return;
	own = vq_kv_head(kv, s, head);
	before = vq_kv_head(kv, s - 1, head);
	vq_keys_copy(&own, &before, kv->shared[s]);
}

/* Sequence after sequence, since one takes from the one before: hence a thread a head. */
static void store_heads(void *ctx, size_t first, size_t end)
{
	const struct work *w = ctx;
	const struct vq_attention *a = w->a;
	uint32_t n = a->cfg->n_kv_heads, dim = a->cfg->head_dim, s;
	size_t width = (size_t)n * dim, head;

	for (head = first; head < end; head++)
		for (s = 0; s < a->own->n_seqs; s++) {
			const struct vq_keys *h = &w->heads[s * n + head];
			size_t at = a->own->start[s] * width + head * dim;

			if (a->kv)
				share(a->kv, a->kv->first + s, (uint32_t)head);
			vq_keys_store(h, held(a, s), own_rows(a, s), a->k + at, a->v + at, width);
		}
}

/* --- jobs --- */

/* Queries a job.  How they are cut changes no result. */
static uint32_t queries_a_job(const struct vq_attention *a)
{
	uint32_t group = a->cfg->n_heads / a->cfg->n_kv_heads;

	return group < VQ_ATTEND_ROWS ? VQ_ATTEND_ROWS / group : 1;
}

static uint32_t count_jobs(const struct vq_attention *a, uint32_t each)
{
	uint32_t n = 0, s;

	for (s = 0; s < a->batch->n_seqs; s++)
		n += vq_ceil_div(n_queries(a, s), each) * a->cfg->n_kv_heads;
	return n;
}

/* The last rows of a sequence come first: they see most. */
static void list_jobs(struct work *w, uint32_t each)
{
	const struct vq_attention *a = w->a;
	uint32_t group = a->cfg->n_heads / a->cfg->n_kv_heads, s, i, head;
	struct job *j = w->jobs;

	for (s = 0; s < a->batch->n_seqs; s++)
		for (i = vq_ceil_div(n_queries(a, s), each); i-- > 0;)
			for (head = 0; head < a->cfg->n_kv_heads; head++) {
				uint32_t left = n_queries(a, s) - i * each;

				*j = (struct job){s, head, i * each, left < each ? left : each};
				if (j->n * group > w->most_rows)
					w->most_rows = j->n * group;
				j++;
			}
}

static void run(const struct work *w, const struct job *j, float *room)
{
	const struct vq_layer_config *c = w->a->cfg;
	uint32_t group = c->n_heads / c->n_kv_heads;
	size_t stride = (size_t)c->n_heads * c->head_dim;
	size_t at = (w->a->batch->start[j->seq] + j->first) * stride +
		    (size_t)j->head * group * c->head_dim;

	vq_attend(&(struct vq_attend){
		.keys = &w->heads[j->seq * c->n_kv_heads + j->head],
		.n_rows = j->n * group,
		.group = group,
		.seen = c->causal ? w->a->past[j->seq] + j->first + 1
				  : held(w->a, j->seq) + own_rows(w->a, j->seq),
		.more = c->causal ? 1 : 0,
		.q = w->a->q + at,
		.out = w->a->out + at,
		.stride = stride,
		.room = room,
	});
}

/* Jobs from *next on as long as there are some, beside other threads that take theirs. */
static void run_some(const struct work *w, atomic_uint *next, atomic_int *failed)
{
	float *room = vq_alloc_f32(vq_attend_room(w->a->cfg->head_dim, w->most_rows), NULL);
	uint32_t i;

	if (!room)
		atomic_store(failed, 1);
	while (room && (i = atomic_fetch_add(next, 1)) < w->n_jobs)
		run(w, &w->jobs[i], room);
	vq_free(room);
}

static int run_jobs(const struct work *w, struct vq_err *err)
{
	atomic_uint next = 0;
	atomic_int failed = 0;

	if (vq_alone(w->n_jobs <= 1)) {
		run_some(w, &next, &failed);
	} else {
#pragma omp parallel
		run_some(w, &next, &failed);
	}
	return failed ? vq_fail(err, VQ_E_SYS, "memory: attention of %u rows at a time",
				w->most_rows)
		      : VQ_OK;
}

int vq_attention_run(const struct vq_attention *a, struct vq_err *err)
{
	uint32_t each = queries_a_job(a);
	struct work w = {.a = a, .n_jobs = count_jobs(a, each)};
	int rc = VQ_E_SYS;

	w.heads = vq_alloc((size_t)a->batch->n_seqs * a->cfg->n_kv_heads, sizeof(*w.heads), err);
	w.jobs = vq_alloc(w.n_jobs, sizeof(*w.jobs), err);
	if (!w.heads || !w.jobs)
		goto out;
	rc = VQ_OK;
	if (a->kv)
		find_heads(&w);
	else
		rc = make_heads(&w, err);
	if (rc < 0)
		goto out;
	vq_share(a->cfg->n_kv_heads, a->own->start[a->own->n_seqs] <= 16, store_heads, &w);
	list_jobs(&w, each);
	rc = run_jobs(&w, err);
out:
	vq_free(w.jobs);
	vq_free(w.made);
	vq_free(w.heads);
	return rc;
}
