/* Byte-pair merging of one word with a heap of candidate pairs: O(n log n).
 *
 * SentencePiece merges the pair whose concatenation has the highest score, tokenizer.json the pair with the
 * lowest merge rank; of equals the leftmost.  Both are "smallest key first" here. */
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "format/token_vocab.h"

/* A run of the word: a character at first, then what it grew to.  n 0: swallowed by its left neighbour. */
struct symbol {
	uint32_t at, n;
	int32_t prev, next; /* -1 at the ends */
	int32_t id;         /* -1: not in the vocabulary */
	int frozen;         /* a piece that the user defined: never merged */
};

struct pair {
	float key; /* a rank, below 2^24, or a negated score */
	int32_t left, right, id;
	uint32_t n; /* bytes of both, to see whether one has changed since */
};

struct bpe {
	const struct vq_tokenizer *t;
	const char *word;
	struct symbol *s;
	int32_t n;
	struct pair *heap;
	size_t n_heap;
};

static int before(const struct pair *a, const struct pair *b)
{
	return a->key != b->key ? a->key < b->key : a->left < b->left;
}

static void heap_push(struct bpe *b, struct pair p)
{
	size_t i = b->n_heap++;

	for (; i > 0 && before(&p, &b->heap[(i - 1) / 2]); i = (i - 1) / 2)
		b->heap[i] = b->heap[(i - 1) / 2];
	b->heap[i] = p;
}

static struct pair heap_pop(struct bpe *b)
{
	struct pair top = b->heap[0], last = b->heap[--b->n_heap];
	size_t i = 0, c;

	while ((c = 2 * i + 1) < b->n_heap) {
		if (c + 1 < b->n_heap && before(&b->heap[c + 1], &b->heap[c]))
			c++;
		if (!before(&b->heap[c], &last))
			break;
		b->heap[i] = b->heap[c];
		i = c;
	}
	b->heap[i] = last;
	return top;
}

/* Offers the pair to the heap if the vocabulary can merge it. */
static void offer(struct bpe *b, int32_t left, int32_t right)
{
	const struct vq_tokenizer *t = b->t;
	const struct symbol *l, *r;
	struct pair p = {.left = left, .right = right};

	if (left < 0 || right < 0 || b->s[left].frozen || b->s[right].frozen)
		return;
	l = &b->s[left];
	r = &b->s[right];
	p.n = l->n + r->n;
	if (t->merges) {
		const struct vq_merge *m = vq_vocab_pair(t, l->id, r->id);

		if (!m)
			return;
		p.key = (float)m->rank;
		p.id = m->id;
	} else {
		p.id = p.n > VQ_TOKEN_MAX_BYTES ? -1 : vq_vocab_find_own(t, b->word + l->at, p.n);
		if (p.id < 0 || (t->pieces[p.id].type != VQ_PIECE_NORMAL &&
				 t->pieces[p.id].type != VQ_PIECE_USER))
			return;
		p.key = -t->pieces[p.id].score;
	}
	heap_push(b, p);
}

static void put_symbol(struct bpe *b, size_t at, size_t n, int32_t id, int frozen)
{
	b->s[b->n] = (struct symbol){.at = (uint32_t)at,
				     .n = (uint32_t)n,
				     .prev = b->n - 1,
				     .next = b->n + 1,
				     .id = id,
				     .frozen = frozen};
	b->n++;
}

/* Characters; for merges by id, a character that is no token becomes byte tokens at once. */
static void split(struct bpe *b, size_t n)
{
	const struct vq_tokenizer *t = b->t;
	size_t at = 0;

	while (at < n) {
		const struct vq_match *user = vq_matcher_at(&t->user, t, b->word, n, at);
		int len = vq_utf8_next(b->word + at, n - at, NULL);
		size_t i, c = len < 1 ? 1 : (size_t)len;
		int32_t id;

		if (user) {
			c = t->pieces[user->id].n;
			put_symbol(b, at, c, user->id, 1);
			at += c;
			continue;
		}
		id = vq_vocab_find_own(t, b->word + at, c);
		if (id < 0 && t->merges && t->byte_fallback)
			for (i = 0; i < c; i++)
				put_symbol(b, at + i, 1, t->byte_id[(uint8_t)b->word[at + i]], 0);
		else if (id >= 0 || t->unk >= 0 || t->byte_fallback)
			put_symbol(b, at, c, id, 0); /* else gone, as with the authors */
		at += c;
	}
	if (b->n)
		b->s[b->n - 1].next = -1;
}

static void merge(struct bpe *b)
{
	while (b->n_heap) {
		struct pair p = heap_pop(b);
		struct symbol *l = &b->s[p.left], *r = &b->s[p.right];

		if (!l->n || !r->n || l->n + r->n != p.n)
			continue; /* one of them has been merged elsewhere */
		l->n = p.n;
		l->id = p.id;
		l->next = r->next;
		r->n = 0;
		if (r->next >= 0)
			b->s[r->next].prev = p.left;
		offer(b, l->prev, p.left);
		offer(b, p.left, l->next);
	}
}

/* Ids of what is left; unknown runs as bytes, or as one unknown token. */
static int emit(const struct bpe *b, struct vq_ids *ids, struct vq_err *err)
{
	const struct vq_tokenizer *t = b->t;
	int32_t i;
	uint32_t k;
	int rc = VQ_OK, unknown = 0;

	for (i = b->n ? 0 : -1; i >= 0 && rc == VQ_OK; i = b->s[i].next) {
		const struct symbol *s = &b->s[i];

		if (s->id >= 0) {
			rc = vq_ids_put(ids, s->id, err);
			unknown = 0;
		} else if (t->byte_fallback) {
			for (k = 0; k < s->n && rc == VQ_OK; k++)
				rc = vq_ids_put(ids, t->byte_id[(uint8_t)b->word[s->at + k]], err);
		} else if (!unknown || !t->fuse_unk) {
			rc = vq_ids_put(ids, t->unk, err);
			unknown = 1;
		}
	}
	return rc;
}

int vq_bpe_encode(const struct vq_tokenizer *t, const char *word, size_t n, struct vq_ids *ids,
		  struct vq_err *err)
{
	struct bpe b = {.t = t, .word = word};
	int32_t i;
	int rc = VQ_OK;

	if (n == 0)
		return VQ_OK;
	if (t->whole_first && n <= VQ_TOKEN_MAX_BYTES && vq_vocab_find_own(t, word, n) >= 0)
		return vq_ids_put(ids, vq_vocab_find_own(t, word, n), err);
	b.s = vq_alloc(n, sizeof(*b.s), err);
	b.heap = vq_alloc(2 * n, sizeof(*b.heap),
			  err); /* n - 1 pairs; a merge takes one, gives two */
	if (!b.s || !b.heap) {
		rc = VQ_E_SYS;
		goto out;
	}
	split(&b, n);
	for (i = 1; i < b.n; i++)
		offer(&b, i - 1, i);
	merge(&b);
	rc = emit(&b, ids, err);
out:
	vq_free(b.heap);
	vq_free(b.s);
	return rc;
}
