/* tiktoken's files of ranks: tokens in base64 and their ranks, a line each.  tiktoken merges the two neighbours whose
 * joined bytes have the lowest rank, the first of equals, however these bytes are cut in two; so every cut of a token into
 * two others is a merge here, in the order of the token's rank and then of the parts'. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/parse.h"
#include "format/token_files.h"
#include "format/token_vocab.h"

#define LIMIT (1u << 20) /* tokens */

struct token {
	const uint8_t *s;
	uint32_t n, rank;
};

struct ranks {
	uint8_t *bytes;  /* all tokens' */
	struct token *v; /* in the file's order, then by rank */
	uint32_t *slots; /* open addressing; index + 1, 0 empty */
	uint32_t n, n_slots;
};

static uint32_t hash(const uint8_t *s, size_t n)
{
	uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
	size_t i;

	for (i = 0; i < n; i++)
		h = (h ^ s[i]) * 0x100000001b3u;
	return (uint32_t)(h ^ h >> 32);
}

/* The slot of s, or the empty one where it would be. */
static uint32_t *slot(const struct ranks *r, const uint8_t *s, size_t n)
{
	uint32_t at = hash(s, n) & (r->n_slots - 1);

	for (; r->slots[at]; at = (at + 1) & (r->n_slots - 1)) {
		const struct token *t = &r->v[r->slots[at] - 1];

		if (t->n == n && memcmp(t->s, s, n) == 0)
			break;
	}
	return &r->slots[at];
}

static const struct token *find(const struct ranks *r, const uint8_t *s, size_t n)
{
	uint32_t i = *slot(r, s, n);

	return i ? &r->v[i - 1] : NULL;
}

static int digit(int c)
{
	static const char all[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *p = c ? strchr(all, c) : NULL;

	return p ? (int)(p - all) : -1;
}

/* Bytes of n characters of base64, padded; -1 for what is none. */
static long decode(const char *s, size_t n, uint8_t *out)
{
	size_t pad = 0, i, o = 0;
	uint32_t bits = 0;

	if (n == 0 || n % 4 != 0)
		return -1;
	while (pad < 2 && s[n - 1 - pad] == '=')
		pad++;
	for (i = 0; i < n - pad; i++) {
		int d = digit((uint8_t)s[i]);

		if (d < 0)
			return -1;
		bits = bits << 6 | (uint32_t)d;
		if (i % 4 != 0)
			out[o++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
	}
	return (long)o;
}

static int put_line(struct ranks *r, const char *s, size_t n, uint8_t **to, size_t line,
		    const char *label, struct vq_err *err)
{
	const char *gap = memchr(s, ' ', n);
	size_t len = gap ? (size_t)(gap - s) : 0;
	struct token *t = &r->v[r->n];
	char number[16];
	long bytes = gap ? decode(s, len, *to) : -1;
	uint32_t rank = 0, *at;

	if (bytes < 1 || n - len - 1 >= sizeof(number))
		return vq_fail(err, VQ_E_DATA,
			       "%s: line %zu: want a token in base64, a space and its rank", label,
			       line);
	snprintf(number, sizeof(number), "%.*s", (int)(n - len - 1), gap + 1);
	if (vq_parse_u32(&rank, number, 0, LIMIT - 1) < 0)
		return vq_fail(err, VQ_E_DATA, "%s: line %zu: want a rank of 0..%u, got '%s'",
			       label, line, LIMIT - 1, number);
	*t = (struct token){*to, (uint32_t)bytes, rank};
	at = slot(r, t->s, t->n);
	if (*at)
		return vq_fail(err, VQ_E_DATA, "%s: line %zu: the token is that of rank %u", label,
			       line, r->v[*at - 1].rank);
	*at = ++r->n;
	*to += bytes;
	return VQ_OK;
}

static int by_rank(const void *a, const void *b)
{
	const struct token *x = a, *y = b;

	return x->rank < y->rank ? -1 : x->rank > y->rank;
}

/* Sorted, and found where they are then. */
static int settle(struct ranks *r, const char *label, struct vq_err *err)
{
	uint32_t i;

	qsort(r->v, r->n, sizeof(*r->v), by_rank);
	for (i = 1; i < r->n; i++)
		if (r->v[i].rank == r->v[i - 1].rank)
			return vq_fail(err, VQ_E_DATA, "%s: two tokens have the rank %u", label,
				       r->v[i].rank);
	memset(r->slots, 0, (size_t)r->n_slots * sizeof(*r->slots));
	for (i = 0; i < r->n; i++)
		*slot(r, r->v[i].s, r->v[i].n) = i + 1;
	for (i = 0; i < 256; i++) {
		const uint8_t byte = (uint8_t)i;

		if (!find(r, &byte, 1))
			return vq_fail(err, VQ_E_DATA, "%s: no token for the byte 0x%02x alone",
				       label, i);
	}
	return VQ_OK;
}

static int read(struct ranks *r, const char *data, size_t n, const char *label, struct vq_err *err)
{
	size_t at = 0, line, lines = 1, i;
	uint8_t *to;
	int rc = VQ_OK;

	for (i = 0; i < n; i++)
		lines += data[i] == '\n';
	if (lines > LIMIT)
		return vq_fail(err, VQ_E_DATA, "%s: want at most %u lines, got %zu", label, LIMIT,
			       lines);
	for (r->n_slots = 512; r->n_slots < 2 * lines; r->n_slots *= 2)
		;
	r->bytes = to = vq_alloc(n + 1, 1, err);
	r->v = vq_calloc(lines, sizeof(*r->v), err);
	r->slots = vq_calloc(r->n_slots, sizeof(*r->slots), err);
	if (!r->bytes || !r->v || !r->slots)
		return VQ_E_SYS;
	for (line = 1; rc == VQ_OK && at < n; line++) {
		const char *s = data + at, *end = memchr(s, '\n', n - at);
		size_t len = end ? (size_t)(end - s) : n - at;

		at += len + 1;
		len -= len && s[len - 1] == '\r';
		if (len)
			rc = put_line(r, s, len, &to, line, label, err);
	}
	return rc < 0 ? rc : settle(r, label, err);
}

/* --- JSON --- */

static json_t *mapped(const struct token *a, const struct token *b)
{
	char *s = malloc(2 * ((size_t)a->n + (b ? b->n : 0)) + 1);
	size_t n = 0;
	json_t *v;

	if (!s)
		return NULL;
	n = vq_bytes_map((const char *)a->s, a->n, s);
	if (b) {
		s[n++] = ' ';
		n += vq_bytes_map((const char *)b->s, b->n, s + n);
	}
	v = json_stringn(s, n);
	free(s);
	return v;
}

/* Two tokens that make a third, by rank. */
struct cut {
	const struct token *a, *b;
};

static int by_parts(const void *x, const void *y)
{
	const struct cut *a = x, *b = y;

	return a->a->rank != b->a->rank ? by_rank(a->a, b->a) : by_rank(a->b, b->b);
}

/* All cuts of t, room for t->n of them in c. */
static int put_cuts(json_t *merges, const struct ranks *r, const struct token *t, struct cut *c)
{
	uint32_t at, n = 0, i;

	for (at = 1; at < t->n; at++) {
		c[n].a = find(r, t->s, at);
		c[n].b = find(r, t->s + at, t->n - at);
		n += c[n].a && c[n].b;
	}
	qsort(c, n, sizeof(*c), by_parts);
	for (i = 0; i < n; i++)
		if (json_array_append_new(merges, mapped(c[i].a, c[i].b)) < 0)
			return -1;
	return 0;
}

static int put_vocab(struct vq_token_parts *p, const struct ranks *r, struct vq_err *err)
{
	uint32_t longest = 1, i;
	struct cut *cuts;
	int bad = !p->vocab || !p->merges || !p->added;

	for (i = 0; i < r->n; i++)
		longest = r->v[i].n > longest ? r->v[i].n : longest;
	cuts = vq_alloc(longest, sizeof(*cuts), err);
	bad |= !cuts;
	for (i = 0; !bad && i < r->n; i++) {
		json_t *text = mapped(&r->v[i], NULL);

		bad = !text ||
		      json_object_set_new(p->vocab, json_string_value(text),
					  json_integer(r->v[i].rank)) < 0 ||
		      put_cuts(p->merges, r, &r->v[i], cuts) < 0;
		json_decref(text);
	}
	vq_free(cuts);
	return bad ? vq_fail(err, VQ_E_SYS, "memory: cannot have a tokenizer") : VQ_OK;
}

/* The tokens that the authors' classes (QWenTokenizer, Arcade100kTokenizer) add by number. */
static int put_special(struct vq_token_parts *p, int qwen, uint32_t end, const char *label,
		       struct vq_err *err)
{
	static const char *const first[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
	static const char *const arcade[] = {
		"<|endoftext|>",   "<|fim_prefix|>",   "<|fim_middle|>",  "<|fim_suffix|>",
		"<|fim_pad|>",     "<gh_stars>",       "<filename>",      "<issue_start>",
		"<issue_comment>", "<issue_closed>",   "<jupyter_start>", "<jupyter_text>",
		"<jupyter_code>",  "<jupyter_output>", "<empty_output>",  "<commit_before>",
		"<commit_msg>",    "<commit_after>",   "<reponame>",      "<|endofprompt|>",
		"<|im_start|>",    "<|im_end|>",       "<|pause|>",       "<|reg0|>",
		"<|reg1|>",        "<|reg2|>",         "<|reg3|>",        "<|reg4|>",
		"<|reg5|>",        "<|reg6|>",         "<|reg7|>",        "<|extra0|>"};
	const uint32_t from = qwen ? 151643 : 100257;
	const uint32_t n = qwen ? 208 : (uint32_t)(sizeof(arcade) / sizeof(arcade[0]));
	char extra[32];
	uint32_t i;

	if (end > from)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want ranks below %u, where the special tokens begin, got %u",
			       label, from, end - 1);
	for (i = 0; i < n; i++) {
		const char *text = qwen ? i < 3 ? first[i] : extra : arcade[i];

		snprintf(extra, sizeof(extra), "<|extra_%u|>", i - 3);
		if (json_array_append_new(p->added, vq_token_added(from + i, text, 1)) < 0)
			return vq_fail(err, VQ_E_SYS, "memory: cannot have a tokenizer");
	}
	return VQ_OK;
}

int vq_tiktoken_json(char **text, const char *data, size_t n, int qwen, const char *label,
		     struct vq_err *err)
{
	struct vq_token_parts p = {vq_token_words_pattern, 1,           1, json_array(),
				   json_object(),          json_array()};
	struct ranks r = {0};
	int rc = read(&r, data, n, label, err);

	if (rc == VQ_OK)
		rc = put_special(&p, qwen, r.n ? r.v[r.n - 1].rank + 1 : 0, label, err);
	if (rc == VQ_OK)
		rc = put_vocab(&p, &r, err);
	if (rc == VQ_OK)
		rc = vq_token_parts_json(text, &p, err);
	json_decref(p.added);
	json_decref(p.vocab);
	json_decref(p.merges);
	vq_free(r.bytes);
	vq_free(r.v);
	vq_free(r.slots);
	return rc;
}
