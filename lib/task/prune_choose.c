/* Which blocks go: order, the rule of what is kept, how many. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/parse.h"
#include "model/names.h"
#include "task/prune.h"

#define KEEP_FIRST 4u
#define KEEP_LAST  2u

void vq_blocks_free(struct vq_blocks *b)
{
	vq_free(b->v);
	memset(b, 0, sizeof(*b));
}

/* Of the whole configuration, and of its blocks alone. */
static int count_params(const struct vq_config *c, uint64_t *all, uint64_t *blocks,
			struct vq_err *err)
{
	struct vq_name *names = NULL;
	size_t n_names, i, k;
	int rc = vq_names_list(c, &names, &n_names, err);

	if (rc < 0)
		return rc;
	*all = *blocks = 0;
	for (i = 0; i < n_names; i++) {
		uint64_t elements = 1;

		for (k = 0; k < names[i].n_dims; k++)
			elements *= names[i].dims[k];
		*all += elements;
		*blocks += vq_names_in_layer(names[i].name) ? elements : 0;
	}
	vq_free(names);
	return VQ_OK;
}

int vq_prune_params(const struct vq_config *c, const uint32_t *kept, uint32_t n, uint64_t *params,
		    struct vq_err *err)
{
	struct vq_config cut;
	uint64_t blocks;
	int rc;

	if (kept) {
		cut = vq_config_cut(c, kept, n);
		return count_params(&cut, params, &blocks, err);
	}
	rc = count_params(c, params, &blocks, err);
	if (rc == VQ_OK)
		*params = *params - blocks + blocks / c->decoder.n_layers * n;
	return rc;
}

/* A score that is no number says that a block cannot be judged: it stays longest. */
static int goes_before(double a, double b)
{
	return isnan(b) ? !isnan(a) : a < b;
}

void vq_prune_order(const double *score, uint32_t n, uint32_t *order)
{
	uint32_t i, k;

	for (i = 0; i < n; i++) {
		for (k = i; k > 0 && goes_before(score[i], score[order[k - 1]]); k--)
			order[k] = order[k - 1];
		order[k] = i;
	}
}

int vq_prune_keeps(uint32_t i, uint32_t n)
{
	return i < KEEP_FIRST || i + KEEP_LAST >= n;
}

/* At most so many can go. */
static uint32_t most(const struct vq_prune_opts *o, uint32_t n_blocks)
{
	if (o->no_keep)
		return n_blocks - 1;
	return n_blocks > KEEP_FIRST + KEEP_LAST ? n_blocks - KEEP_FIRST - KEEP_LAST : 0;
}

static const char rule[] = " (the first four and the last two stay without --no-keep)";

static int check_count(const struct vq_prune_opts *o, uint32_t n_blocks, uint64_t n,
		       const char *option, struct vq_err *err)
{
	uint32_t room = most(o, n_blocks);

	if (n >= 1 && n <= room)
		return VQ_OK;
	if (room == 0)
		return vq_fail(err, VQ_E_USAGE, "%s: none of the model's %u blocks can go%s",
			       option, n_blocks, o->no_keep ? "" : rule);
	return vq_fail(err, VQ_E_USAGE,
		       "%s: want 1..%u of the model's %u blocks removed, got %llu%s", option, room,
		       n_blocks, (unsigned long long)n, o->no_keep ? "" : rule);
}

/* The number of blocks with which the model comes nearest to `want` weights; of two, the smaller model. */
static int count_by_params(const struct vq_config *c, uint64_t want, uint32_t *n,
			   struct vq_err *err)
{
	uint32_t all = c->decoder.n_layers, left;
	uint64_t nearest = UINT64_MAX;

	for (left = 1; left <= all; left++) {
		uint64_t params, off;
		int rc = vq_prune_params(c, NULL, left, &params, err);

		if (rc < 0)
			return rc;
		off = params > want ? params - want : want - params;
		if (off < nearest) {
			nearest = off;
			*n = all - left;
		}
	}
	return VQ_OK;
}

int vq_prune_count(const struct vq_prune_opts *o, const struct vq_config *c, uint32_t *n,
		   struct vq_err *err)
{
	uint32_t all = c->decoder.n_layers;
	int rc = VQ_OK;

	*n = o->n;
	if (o->ratio > 0)
		*n = (uint32_t)(o->ratio * all);
	else if (o->params)
		rc = count_by_params(c, o->params, n, err);
	if (rc < 0)
		return rc;
	return check_count(o, all, *n, o->n ? "-n" : o->ratio > 0 ? "--ratio" : "--params", err);
}

/* kept: the blocks of `from` [n], ascending, whose mark is 0; from NULL: 0..n-1. */
static int take_unmarked(const unsigned char *gone, const uint32_t *from, uint32_t n,
			 struct vq_blocks *kept, struct vq_err *err)
{
	uint32_t i;

	kept->v = vq_alloc(n, sizeof(*kept->v), err);
	kept->n = 0;
	if (!kept->v)
		return VQ_E_SYS;
	for (i = 0; i < n; i++)
		if (!gone[i])
			kept->v[kept->n++] = from ? from[i] : i;
	return VQ_OK;
}

int vq_prune_choose(const struct vq_prune_opts *o, const struct vq_blocks *alive,
		    const uint32_t *order, uint32_t n_blocks, uint32_t n, struct vq_blocks *kept,
		    struct vq_err *err)
{
	unsigned char *gone = vq_calloc(alive->n, 1, err);
	uint32_t i;
	int rc = gone ? VQ_OK : VQ_E_SYS;

	for (i = 0; rc == VQ_OK && i < alive->n && n > 0; i++) {
		if (!o->no_keep && vq_prune_keeps(alive->v[order[i]], n_blocks))
			continue;
		gone[order[i]] = 1;
		n--;
	}
	if (rc == VQ_OK)
		rc = take_unmarked(gone, alive->v, alive->n, kept, err);
	vq_free(gone);
	return rc;
}

/* "24-26" or "20" to its ends. */
static int parse_range(const char *word, uint32_t n_blocks, uint32_t *first, uint32_t *last)
{
	char buf[32], *dash;

	if (strlen(word) >= sizeof(buf))
		return VQ_E_USAGE;
	memcpy(buf, word, strlen(word) + 1);
	dash = strchr(buf, '-');
	if (dash)
		*dash = '\0';
	if (vq_parse_u32(first, buf, 0, n_blocks - 1) < 0)
		return VQ_E_USAGE;
	*last = *first;
	return dash ? vq_parse_u32(last, dash + 1, *first, n_blocks - 1) : VQ_OK;
}

/* Marks the blocks of one word of the list. */
static int mark(const char *text, size_t len, unsigned char *gone, uint32_t n_blocks)
{
	char word[32];
	uint32_t first, last;

	if (len >= sizeof(word))
		return VQ_E_USAGE;
	memcpy(word, text, len);
	word[len] = '\0';
	if (parse_range(word, n_blocks, &first, &last) < 0)
		return VQ_E_USAGE;
	for (; first <= last; first++) {
		if (gone[first])
			return VQ_E_USAGE;
		gone[first] = 1;
	}
	return VQ_OK;
}

int vq_prune_by_hand(const struct vq_prune_opts *o, uint32_t n_blocks, struct vq_blocks *kept,
		     struct vq_err *err)
{
	unsigned char *gone = vq_calloc(n_blocks, 1, err);
	const char *p = o->blocks;
	int rc = gone ? VQ_OK : VQ_E_SYS, bad = 0, more = 1;

	while (rc == VQ_OK && more && !bad) {
		size_t len = strcspn(p, ",");

		bad = mark(p, len, gone, n_blocks) < 0;
		more = p[len] == ',';
		p += len + (more ? 1 : 0);
	}
	if (rc == VQ_OK && (bad || !memchr(gone, 0, n_blocks)))
		rc = vq_fail(err, VQ_E_USAGE,
			     "--blocks wants blocks of 0..%u, each once and not all of them, as in "
			     "20,24-26; got '%s'",
			     n_blocks - 1, o->blocks);
	if (rc == VQ_OK)
		rc = take_unmarked(gone, NULL, n_blocks, kept, err);
	vq_free(gone);
	return rc;
}
