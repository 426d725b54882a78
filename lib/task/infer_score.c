/* Log-probabilities of tokens, many sequences at a time. */
#include "task/infer_score.h"

#include <omp.h>
#include <string.h>

#include "base/mem.h"
#include "model/sampler.h"

#define LOGIT_ROWS    256u /* held at a time: 32 MiB with 32,000 tokens */
#define SMALL_BATCHES 16u  /* of a round of a small model, to be shared out */

int vq_scorer_open(struct vq_scorer *s, const struct vq_infer *o, const struct vq_loaded *l,
		   struct vq_err *err)
{
	memset(s, 0, sizeof(*s));
	s->o = o;
	s->l = l;
	s->small = l->weight_bytes <= VQ_SMALL_MODEL;
	s->workers = s->small ? (uint32_t)omp_get_max_threads() : 1;
	s->kv = vq_calloc(s->workers, sizeof(*s->kv), err);
	return s->kv ? VQ_OK : VQ_E_SYS;
}

void vq_scorer_close(struct vq_scorer *s)
{
	uint32_t i;

	for (i = 0; s->kv && i < s->workers; i++)
		vq_kv_free(&s->kv[i]);
	vq_free(s->kv);
	memset(s, 0, sizeof(*s));
}

/* Nothing follows what is scored: a cache of one layer serves all, for what sequences share. */
static struct vq_group_limits limits_of(const struct vq_scorer *s)
{
	return vq_batch_limits(&s->l->model, 1, 0, s->small);
}

/* Not by the number of workers: where batches are cut may depend on the round. */
uint32_t vq_scorer_rows(const struct vq_scorer *s)
{
	return limits_of(s).rows * (s->small ? SMALL_BATCHES : 1);
}

/* --- one batch --- */

struct batch {
	struct vq_scorer *s;
	struct vq_scored **v;
	uint32_t n, n_targets;
	uint32_t *shared; /* [n] */
	uint32_t *start;  /* [n + 1] rows of each sequence */
	uint32_t *row;    /* [n_targets] what each scored token follows */
	int32_t *target;  /* [n_targets] */
	double *log_prob; /* [n_targets] */
	float *h, *logits;
};

/* The row before a sequence's first scored token is its own, though the tokens so far may be another's too. */
static int batch_plan(struct batch *b, const uint32_t *shared, struct vq_err *err)
{
	size_t d = b->s->l->model.cfg.decoder.layer.hidden,
	       vocab = b->s->l->model.cfg.decoder.vocab;
	uint32_t i, k, at = 0;

	b->shared = vq_alloc(b->n, sizeof(*b->shared), err);
	b->start = vq_alloc((size_t)b->n + 1, sizeof(*b->start), err);
	if (!b->shared || !b->start)
		return VQ_E_SYS;
	for (i = 0, b->start[0] = 0; i < b->n; i++) {
		const struct vq_scored *v = b->v[i];

		b->shared[i] = shared[i] < v->from ? shared[i] : v->from - 1;
		b->start[i + 1] = b->start[i] + v->n - 1 - b->shared[i];
		b->n_targets += v->n - v->from;
	}
	b->row = vq_alloc(b->n_targets, sizeof(*b->row), err);
	b->target = vq_alloc(b->n_targets, sizeof(*b->target), err);
	b->log_prob = vq_alloc(b->n_targets, sizeof(*b->log_prob), err);
	b->h = vq_alloc(b->start[b->n], d * sizeof(float), err);
	b->logits = vq_alloc(b->n_targets < LOGIT_ROWS ? b->n_targets : LOGIT_ROWS,
			     vocab * sizeof(float), err);
	if (!b->row || !b->target || !b->log_prob || !b->h || !b->logits)
		return VQ_E_SYS;
	for (i = 0; i < b->n; i++)
		for (k = b->v[i]->from; k < b->v[i]->n; k++, at++) {
			b->row[at] = b->start[i] + k - 1 - b->shared[i];
			b->target[at] = b->v[i]->tokens[k];
		}
	return VQ_OK;
}

static void batch_free(struct batch *b)
{
	vq_free(b->v);
	vq_free(b->shared);
	vq_free(b->start);
	vq_free(b->row);
	vq_free(b->target);
	vq_free(b->log_prob);
	vq_free(b->h);
	vq_free(b->logits);
}

static int batch_cache(const struct batch *b, struct vq_kv *kv, struct vq_err *err)
{
	const struct vq_layer_config *c = &b->s->l->model.cfg.decoder.layer;
	uint32_t room = 0, i;
	int rc = VQ_OK;

	for (i = 0; i < b->n; i++)
		room = b->v[i]->n - 1 > room ? b->v[i]->n - 1 : room;
	if (b->n <= kv->n_seqs && room <= kv->room) {
		vq_kv_reset(kv);
	} else {
		vq_kv_free(kv);
		rc = vq_kv_new(kv, 1, b->n, room, c->n_kv_heads, c->head_dim, b->s->o->kv, err);
	}
	for (i = 1; rc >= 0 && i < b->n; i++)
		vq_kv_share(kv, i, b->shared[i]);
	return rc;
}

/* Hidden states after the last layer. */
static int batch_layers(struct batch *b, struct vq_kv *kv, struct vq_err *err)
{
	const struct vq_model *m = &b->s->l->model;
	size_t d = m->cfg.decoder.layer.hidden;
	uint32_t i;
	int rc = batch_cache(b, kv, err);

	for (i = 0; rc >= 0 && i < b->n; i++)
		rc = vq_decoder_embed(m, b->v[i]->tokens + b->shared[i],
				      b->start[i + 1] - b->start[i], NULL, 0,
				      b->h + b->start[i] * d, err);
	if (rc >= 0)
		rc = vq_decoder_layers(m, b->h, &(struct vq_batch){b->n, b->start}, kv, err);
	return rc;
}

/* n rows of logits, which the scored tokens from `first` on follow. */
static int some_logits(struct batch *b, uint32_t first, uint32_t n, struct vq_err *err)
{
	const struct vq_model *m = &b->s->l->model;
	uint32_t vocab = m->cfg.decoder.vocab;
	struct vq_err bad = {0};
	long long i;
	int rc = vq_decoder_logits(m, b->h, b->row + first, n, b->logits, err);

	for (i = 0; rc >= 0 && i < n; i++)
		if (vq_logits_check(b->logits + (size_t)i * vocab, vocab, &bad) < 0) {
			rc = vq_loaded_check(b->s->l, err);
			return rc < 0 ? rc : vq_fail(err, VQ_E_DATA, "%s", bad.text);
		}
	if (rc < 0)
		return rc;
#pragma omp parallel for schedule(static) if (n > 16)
	for (i = 0; i < n; i++)
		b->log_prob[first + i] =
			vq_log_prob(b->logits + (size_t)i * vocab, vocab, b->target[first + i]);
	if (b->s->on_logits)
		rc = b->s->on_logits(b->s->ctx, b->v[0], first, n, b->logits, err);
	return rc;
}

static int batch_run(struct batch *b, const uint32_t *shared, struct vq_kv *kv, struct vq_err *err)
{
	uint32_t at, n, i, k;
	int rc = batch_plan(b, shared, err);

	if (rc >= 0)
		rc = batch_layers(b, kv, err);
	for (at = 0; rc >= 0 && at < b->n_targets; at += n) {
		n = b->n_targets - at < LOGIT_ROWS ? b->n_targets - at : LOGIT_ROWS;
		rc = some_logits(b, at, n, err);
	}
	if (rc < 0)
		return rc;
	for (i = 0, at = 0; i < b->n; i++) {
		b->v[i]->log_prob = 0;
		for (k = b->v[i]->from; k < b->v[i]->n; k++)
			b->v[i]->log_prob += b->log_prob[at++];
	}
	return VQ_OK;
}

/* --- all of them --- */

static int run_group(struct vq_scorer *s, struct vq_scored *v, const struct vq_groups *p,
		     uint32_t k, struct vq_kv *kv, struct vq_err *err)
{
	uint32_t first = p->start[k], i;
	struct batch b = {.s = s, .n = p->start[k + 1] - first};
	int rc;

	b.v = vq_alloc(b.n, sizeof(*b.v), err);
	for (i = 0; b.v && i < b.n; i++)
		b.v[i] = &v[p->order[first + i]];
	rc = b.v ? batch_run(&b, p->shared + first, kv, err) : VQ_E_SYS;
	batch_free(&b);
	return rc;
}

static int run_groups(struct vq_scorer *s, struct vq_scored *v, const struct vq_groups *p,
		      struct vq_err *err)
{
	int rc = VQ_OK;
	long long k;

#pragma omp parallel for schedule(dynamic, 1) if (s->workers > 1 && p->n_batches > 1)
	for (k = 0; k < (long long)p->n_batches; k++) {
		struct vq_err own = {0};
		int got = run_group(s, v, p, (uint32_t)k,
				    &s->kv[s->workers > 1 ? omp_get_thread_num() : 0], &own);

		if (got < 0) {
#pragma omp critical
			if (rc >= 0) {
				rc = got;
				*err = own;
			}
		}
	}
	return rc;
}

int vq_score_run(struct vq_scorer *s, struct vq_scored *v, uint32_t n, struct vq_err *err)
{
	struct vq_group_limits limits = limits_of(s);
	struct vq_lead *leads = vq_alloc(n, sizeof(*leads), err);
	struct vq_groups p = {0};
	uint32_t i;
	int rc = leads ? VQ_OK : VQ_E_SYS;

	for (i = 0; leads && i < n; i++)
		leads[i] = (struct vq_lead){v[i].tokens, v[i].n - 1, {0, 0}};
	if (rc >= 0)
		rc = vq_groups_make(&p, leads, n, &limits, err);
	if (rc >= 0)
		rc = run_groups(s, v, &p, err);
	vq_groups_free(&p);
	vq_free(leads);
	return rc;
}
