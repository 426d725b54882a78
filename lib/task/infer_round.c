/* Questions that are looked at together: many for a small model, whose batches run one on a thread; for a large one
 * about as many as go through its layers at a time. */
#include <omp.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "kernel/cpu.h"
#include "task/infer_parts.h"

/* A round ends where it has so many questions, or they need so much memory; of a small model also, since answers come
 * out after a round, where they are so much work: questions times bytes of weights. */
#define MOST       4096u
#define MOST_BYTES ((uint64_t)128 << 20)
#define MOST_WORK  ((uint64_t)8 << 30) /* but LEAST questions may be more */
#define LEAST      512u

/* Questions whose prompts are built before what they need is counted. */
#define AT_A_TIME(small) ((small) ? 64u : 16u)

int vq_rounds_open(struct vq_rounds *r, const struct vq_infer *o, const struct vq_loaded *l,
		   struct vq_err *err)
{
	uint32_t i;

	memset(r, 0, sizeof(*r));
	r->o = o;
	r->l = l;
	r->small = l->weight_bytes <= VQ_SMALL_MODEL && !o->question;
	r->workers = r->small ? (uint32_t)omp_get_max_threads() : 1;
	vq_pictures_init(&r->pictures, &l->model.cfg);
	r->b = vq_calloc(r->workers, sizeof(*r->b), err);
	if (!r->b) {
		vq_rounds_close(r);
		return VQ_E_SYS;
	}
	for (i = 0; i < r->workers; i++)
		vq_batcher_init(&r->b[i], o, l, r->small);
	return VQ_OK;
}

/* Room for the questions of a round.  The first round has most of them still to come. */
static int make_room(struct vq_rounds *r, uint32_t n, struct vq_err *err)
{
	uint64_t most = r->small ? MOST_WORK / (r->l->weight_bytes + 1) : MOST;

	if (r->v)
		return VQ_OK;
	most = most < LEAST ? LEAST : most < MOST ? most : MOST;
	r->room = most < n ? (uint32_t)most : n;
	r->v = vq_calloc(r->room, sizeof(*r->v), err);
	return r->v ? VQ_OK : VQ_E_SYS;
}

/* The first n of the round's questions stay. */
static void keep(struct vq_rounds *r, uint32_t n)
{
	while (r->n > n)
		vq_answering_free(&r->v[--r->n]);
}

void vq_rounds_close(struct vq_rounds *r)
{
	uint32_t i;

	keep(r, 0);
	for (i = 0; r->b && i < r->workers; i++)
		vq_batcher_free(&r->b[i]);
	vq_pictures_free(&r->pictures);
	vq_free(r->b);
	vq_free(r->v);
	memset(r, 0, sizeof(*r));
}

/* --- prompts --- */

static void build(const struct vq_rounds *r, struct vq_answering *a)
{
	const struct vq_config *c = &r->l->model.cfg;
	const struct vq_ask *q = a->ask;
	struct vq_tiling t;
	int tiled = q->image && c->preproc.tiled;
	uint32_t w, h;

	a->rc = q->image ? vq_picture_read(&a->file, q->image, &a->err) : VQ_OK;
	if (a->rc >= 0 && tiled)
		a->rc = vq_image_size((const uint8_t *)a->file.data, a->file.n, &w, &h, q->image,
				      &a->err);
	if (a->rc >= 0 && tiled)
		a->rc = vq_preproc_tiling(&c->preproc, w, h, &t, &a->err);
	if (a->rc >= 0)
		a->rc = vq_prompt_tokens(&a->prompt, c, r->l->tok, q->text, q->image,
					 tiled ? &t : NULL, &a->err);
}

static struct vq_lead lead_of(const struct vq_answering *a)
{
	return (struct vq_lead){
		a->prompt.tokens, a->prompt.n_tokens, {a->file.key[0], a->file.key[1]}};
}

/* Rows that a question adds to those of the one before it. */
static uint32_t rows_of(const struct vq_rounds *r, uint32_t i)
{
	struct vq_lead a, b = lead_of(&r->v[i]);

	if (i == 0)
		return b.n;
	a = lead_of(&r->v[i - 1]);
	return b.n - vq_lead_shared(&a, &b, r->l->model.cfg.image_token);
}

/* Bytes that a question holds until the round ends. */
static uint64_t bytes_of(const struct vq_rounds *r, uint32_t i)
{
	const struct vq_answering *a = &r->v[i];
	int again = i && memcmp(a->file.key, a[-1].file.key, sizeof(a->file.key)) == 0;
	uint64_t logits = r->o->logits ? r->l->vocab : 0;

	return sizeof(*a) + (uint64_t)a->prompt.n_tokens * sizeof(int32_t) + a->file.n +
	       (logits + (again ? 0 : a->prompt.n_images * r->pictures.each)) * sizeof(float);
}

static void build_some(struct vq_rounds *r, struct vq_ask *q, uint32_t first, uint32_t end)
{
	long long k;

#pragma omp parallel for schedule(dynamic, 1)
	for (k = first; k < end; k++) {
		r->v[k].ask = &q[k];
		build(r, &r->v[k]);
	}
}

/* Prompts until a round is full or one cannot be built, which is the failure that is returned. */
static int gather(struct vq_rounds *r, struct vq_ask *q, uint32_t n, struct vq_err *err)
{
	uint32_t built = 0, rows = 0, i;
	uint64_t bytes = 0;
	int rc = VQ_OK, full = 0;

	for (i = 0; rc >= 0 && i < n && !full; i++) {
		if (i == built) {
			built = n - i > AT_A_TIME(r->small) ? i + AT_A_TIME(r->small) : n;
			build_some(r, q, i, built);
		}
		rc = r->v[i].rc;
		if (rc < 0) {
			vq_fail(err, rc, "question '%s': %s", q[i].id, r->v[i].err.text);
			break;
		}
		rows += rows_of(r, i);
		bytes += bytes_of(r, i);
		full = bytes > MOST_BYTES || (!r->small && rows > VQ_MAX_ROWS);
		if (full && i)
			break;
	}
	r->n = built;
	keep(r, i);
	return rc;
}

/* --- pictures --- */

static int look_up(struct vq_rounds *r, struct vq_err *err)
{
	uint32_t i;

	for (i = 0; i < r->n; i++) {
		struct vq_answering *a = &r->v[i];

		if (!a->ask->image)
			continue;
		a->picture = vq_pictures_get(&r->pictures, &a->file, a->ask->image,
					     a->prompt.n_images, err);
		vq_picture_file_free(&a->file);
		if (!a->picture)
			return VQ_E_SYS;
	}
	return vq_pictures_encode(&r->pictures, &r->l->model, r->workers, &r->b[0].times, err);
}

/* Questions from the first one on whose picture is bad are left out. */
static int see(struct vq_rounds *r, struct vq_err *err)
{
	int rc = look_up(r, err);
	uint32_t i;

	if (rc < 0) {
		keep(r, 0);
		return rc;
	}
	for (i = 0; i < r->n; i++) {
		const struct vq_picture *p = r->v[i].picture;

		if (p && p->rc < 0) {
			rc = vq_fail(err, p->rc, "question '%s': %s", r->v[i].ask->id, p->err.text);
			keep(r, i);
		}
	}
	return rc;
}

/* --- answers --- */

struct part {
	int rc;
	struct vq_err err;
};

/* One batch of a plan on batcher b; nothing when an earlier run has all of its answers. */
static void run_part(struct vq_rounds *r, const struct vq_groups *p, uint32_t k,
		     struct vq_batcher *b, struct part *part)
{
	uint32_t first = p->start[k], n = p->start[k + 1] - first, open = 0, i;
	struct vq_answering **v = vq_alloc(n, sizeof(struct vq_answering *), &part->err);
	double t0 = vq_now();

	part->rc = v ? VQ_OK : VQ_E_SYS;
	for (i = 0; v && i < n; i++) {
		v[i] = &r->v[p->order[first + i]];
		v[i]->shared = p->shared[first + i];
		open += !v[i]->ask->line;
	}
	if (open)
		part->rc = vq_batch_run(b, v, n, &part->err);
	for (i = 0; v && i < n; i++)
		v[i]->ms = (vq_now() - t0) * 1000 / n;
	vq_free(v);
}

/* What the failed batches hold was not answered, nor is what comes after it. */
static int settle(struct vq_rounds *r, const struct vq_groups *p, const struct part *parts,
		  struct vq_err *err)
{
	uint32_t first = r->n, k, i;
	const struct part *bad = NULL;

	for (k = 0; k < p->n_batches; k++)
		for (i = p->start[k]; parts[k].rc < 0 && i < p->start[k + 1]; i++)
			if (p->order[i] < first) {
				first = p->order[i];
				bad = &parts[k];
			}
	if (!bad)
		return VQ_OK;
	keep(r, first);
	return vq_fail(err, bad->rc, "%s", bad->err.text);
}

static int answer(struct vq_rounds *r, struct vq_err *err)
{
	struct vq_group_limits limits = vq_batcher_limits(&r->b[0]);
	struct vq_lead *leads = vq_alloc(r->n, sizeof(*leads), err);
	struct part *parts = vq_calloc(r->n, sizeof(*parts), err);
	struct vq_groups p = {0};
	int rc = leads && parts ? VQ_OK : VQ_E_SYS;
	uint32_t i;
	long long k;

	for (i = 0; rc >= 0 && i < r->n; i++)
		leads[i] = lead_of(&r->v[i]);
	if (rc >= 0)
		rc = vq_groups_make(&p, leads, r->n, &limits, err);
	if (rc >= 0) {
#pragma omp parallel for schedule(dynamic, 1) if (r->workers > 1 && p.n_batches > 1)
		for (k = 0; k < (long long)p.n_batches; k++)
			run_part(r, &p, (uint32_t)k,
				 &r->b[r->workers > 1 ? omp_get_thread_num() : 0], &parts[k]);
		rc = settle(r, &p, parts, err);
	}
	if (rc < 0 && p.n_batches == 0)
		keep(r, 0);
	vq_groups_free(&p);
	vq_free(parts);
	vq_free(leads);
	return rc;
}

int vq_round(struct vq_rounds *r, struct vq_ask *q, uint32_t n, struct vq_err *err)
{
	uint32_t i, open = 0;
	int built, rc = VQ_OK;

	keep(r, 0);
	if (make_room(r, n, err) < 0)
		return VQ_E_SYS;
	vq_pictures_next(&r->pictures);
	built = gather(r, q, n < r->room ? n : r->room, err);
	for (i = 0; i < r->n; i++)
		open += !q[i].line;
	if (open) {
		struct vq_err first = {0};

		rc = see(r, &first);
		if (r->n) {
			int ran = answer(r, &first);

			rc = rc < 0 ? rc : ran;
		}
		if (rc < 0)
			*err = first; /* it came before what could not be built */
	}
	return rc < 0 ? rc : built;
}
