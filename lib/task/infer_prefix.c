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

/* Rows that prompt i of the order adds to those before it. */
static uint32_t own_rows(const struct vq_groups *p, const struct vq_lead *v, uint32_t i)
{
	return v[p->order[i]].n - p->shared[i];
}

/* Rows of a batch so that all have about as many, the last one too: a cut costs what the next prompt shared, at most
 * the longest. */
static uint64_t rows_each(const struct vq_groups *p, const struct vq_lead *v, uint64_t rows,
			  uint32_t limit)
{
	uint64_t parts;
	uint32_t i, longest = 0;

	if (rows <= limit)
		return limit;
	for (i = 0; i < p->n; i++)
		longest = v[i].n > longest ? v[i].n : longest;
	parts = limit > 2 * longest ? limit - longest : limit / 2 + 1;
	parts = (rows + parts - 1) / parts;
	rows = rows / parts + longest;
	return rows < limit ? rows : limit;
}

/* Where a batch from `first` on has to end: at most `most` rows, or one prompt. */
static uint32_t latest_end(const struct vq_groups *p, const struct vq_lead *v,
			   const struct vq_group_limits *l, uint64_t most, uint32_t first)
{
	uint32_t longest = 0, i;
	uint64_t rows = p->shared[first];

	for (i = first; i < p->n && i - first < l->prompts; i++) {
		uint32_t n = v[p->order[i]].n;

		longest = n > longest ? n : longest;
		rows += own_rows(p, v, i);
		if (i > first &&
		    (rows > most || (i - first + 1) * ((uint64_t)longest + l->answer) > l->cells))
			break;
	}
	return i;
}

/* A batch of first.. end may end earlier, by a quarter of its prompts: where the next one shares least, and goes through
 * once more in the least rows. */
static uint32_t best_end(const struct vq_groups *p, uint32_t first, uint32_t end)
{
	uint32_t least = end - (end - first) / 4, best = end, i;

	for (i = end; end < p->n && i-- > least;)
		if (p->shared[i] < p->shared[best])
			best = i;
	return best;
}

/* Of a batch with `left` rows to go: the last ones are smaller, so that threads that take one after the other end at
 * about the same time; but no batch is a few prompts that were left over. */
static uint64_t tapered(uint64_t most, uint64_t left)
{
	uint64_t rows = left / 8;

	if (left <= most / 4 * 3)
		return most;
	rows = rows > most / 2 ? rows : most / 2;
	return rows < most ? rows : most;
}

static void cut(struct vq_groups *p, const struct vq_lead *v, const struct vq_group_limits *l)
{
	uint64_t left = 0, most;
	uint32_t i, first, end;

	for (i = 0; i < p->n; i++)
		left += own_rows(p, v, i);
	most = rows_each(p, v, left, l->rows);
	for (first = 0; first < p->n; first = end) {
		end = latest_end(p, v, l, l->taper ? tapered(most, left) : most, first);
		end = l->taper ? best_end(p, first, end) : end;
		for (i = first; i < end; i++)
			left -= own_rows(p, v, i);
		p->start[p->n_batches++] = first;
		p->shared[first] = 0;
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
	cut(p, v, limits);
	return VQ_OK;
}

void vq_groups_free(struct vq_groups *p)
{
	vq_free(p->order);
	vq_free(p->shared);
	vq_free(p->start);
	memset(p, 0, sizeof(*p));
}
