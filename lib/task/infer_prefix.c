/* Prompts that begin alike stand side by side when they are sorted: what each shares with the one before it is all
 * that it shares with any before it. */
#include "task/infer_prefix.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* The first token that differs, or the end of the shorter one. */
static uint32_t alike(const struct vq_lead *a, const struct vq_lead *b, int32_t image_token)
{
	uint32_t n = a->n < b->n ? a->n : b->n, i;
	int same = memcmp(a->picture, b->picture, sizeof(a->picture)) == 0;

	for (i = 0; i < n && a->tokens[i] == b->tokens[i]; i++)
		if (!same && a->tokens[i] == image_token)
			break;
	return i;
}

uint32_t vq_lead_shared(const struct vq_lead *a, const struct vq_lead *b, int32_t image_token)
{
	uint32_t n = alike(a, b, image_token);

	return n < b->n ? n : b->n - 1;
}

struct sorting {
	const struct vq_lead *v;
	int32_t image_token;
};

/* By tokens, by picture where an image token is the first that differs, and equal prompts as they came. */
static int compare(const void *x, const void *y, void *ctx)
{
	const struct sorting *s = ctx;
	uint32_t i = *(const uint32_t *)x, j = *(const uint32_t *)y, at;
	const struct vq_lead *a = &s->v[i], *b = &s->v[j];

	at = alike(a, b, s->image_token);
	if (at == a->n || at == b->n)
		return a->n != b->n ? (a->n < b->n ? -1 : 1) : i < j ? -1 : i > j;
	if (a->tokens[at] != b->tokens[at])
		return a->tokens[at] < b->tokens[at] ? -1 : 1;
	return memcmp(a->picture, b->picture, sizeof(a->picture));
}

/* Rows of a batch so that all have about as many, the last one too: a cut costs what the next prompt shared, at most
 * the longest. */
static uint64_t rows_each(const struct vq_groups *p, const struct vq_lead *v, uint32_t limit)
{
	uint64_t rows = 0, parts;
	uint32_t i, longest = 0;

	for (i = 0; i < p->n; i++) {
		uint32_t n = v[p->order[i]].n;

		rows += n - p->shared[i];
		longest = n > longest ? n : longest;
	}
	if (rows <= limit)
		return limit;
	parts = limit > 2 * longest ? limit - longest : limit / 2 + 1;
	parts = (rows + parts - 1) / parts;
	rows = rows / parts + longest;
	return rows < limit ? rows : limit;
}

/* Batches of at most `most` rows. */
static void cut(struct vq_groups *p, const struct vq_lead *v, const struct vq_group_limits *l,
		uint64_t most)
{
	uint32_t i, longest = 0, in_batch = 0;
	uint64_t rows = 0;

	p->n_batches = 0;
	for (i = 0; i < p->n; i++) {
		uint32_t n = v[p->order[i]].n, longer = n > longest ? n : longest;
		uint64_t cells = (in_batch + 1) * ((uint64_t)longer + l->answer);

		if (in_batch == 0 || in_batch == l->prompts || rows + n - p->shared[i] > most ||
		    cells > l->cells) {
			p->start[p->n_batches++] = i;
			p->shared[i] = 0;
			longer = n;
			rows = in_batch = 0;
		}
		longest = longer;
		rows += n - p->shared[i];
		in_batch++;
	}
	p->start[p->n_batches] = p->n;
}

int vq_groups_make(struct vq_groups *p, const struct vq_lead *v, uint32_t n,
		   const struct vq_group_limits *limits, struct vq_err *err)
{
	struct sorting s = {v, limits->image_token};
	uint32_t i;

	memset(p, 0, sizeof(*p));
	p->order = vq_alloc(n, sizeof(*p->order), err);
	p->shared = vq_alloc(n, sizeof(*p->shared), err);
	p->start = vq_alloc((size_t)n + 1, sizeof(*p->start), err);
	if (!p->order || !p->shared || !p->start) {
		vq_groups_free(p);
		return VQ_E_SYS;
	}
	p->n = n;
	for (i = 0; i < n; i++)
		p->order[i] = i;
	qsort_r(p->order, n, sizeof(*p->order), compare, &s);
	for (i = 0; i < n; i++)
		p->shared[i] = i && !limits->whole
				       ? vq_lead_shared(&v[p->order[i - 1]], &v[p->order[i]],
							limits->image_token)
				       : 0;
	cut(p, v, limits, rows_each(p, v, limits->rows));
	return VQ_OK;
}

void vq_groups_free(struct vq_groups *p)
{
	vq_free(p->order);
	vq_free(p->shared);
	vq_free(p->start);
	memset(p, 0, sizeof(*p));
}
