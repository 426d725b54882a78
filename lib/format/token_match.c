/* Tokens that are looked for in running text: added ones, and pieces that the user defined. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "format/token_vocab.h"

#define MAX_MATCHES 16384 /* added tokens; real vocabularies have up to about a thousand */

int vq_matcher_put(struct vq_matcher *m, struct vq_match what, struct vq_err *err)
{
	uint32_t i;

	for (i = 0; i < m->n; i++)
		if (m->m[i].id == what.id) {
			m->m[i] = what;
			return VQ_OK;
		}
	if (m->n == MAX_MATCHES)
		return vq_fail(err, VQ_E_DATA, "want at most %d added tokens", MAX_MATCHES);
	if (m->n == m->room) {
		uint32_t room = m->room ? 2 * m->room : 16;

		if (vq_grow((void **)&m->m, m->room, room, sizeof(*m->m), err) < 0)
			return VQ_E_SYS;
		m->room = room;
	}
	m->m[m->n++] = what;
	return VQ_OK;
}

static int compare(const void *a, const void *b, void *vocab)
{
	const struct vq_tokenizer *t = vocab;
	const struct vq_piece *p = &t->pieces[((const struct vq_match *)a)->id];
	const struct vq_piece *q = &t->pieces[((const struct vq_match *)b)->id];

	if (p->text[0] != q->text[0])
		return (uint8_t)p->text[0] - (uint8_t)q->text[0];
	if (p->n != q->n)
		return p->n > q->n ? -1 : 1;
	return memcmp(p->text, q->text, p->n);
}

void vq_matcher_sort(struct vq_matcher *m, const struct vq_tokenizer *t)
{
	uint32_t i = 0, b;

	if (m->n)
		qsort_r(m->m, m->n, sizeof(*m->m), compare, (void *)(uintptr_t)t);
	for (b = 0; b < 256; b++) {
		m->first[b] = i;
		while (i < m->n && (uint8_t)t->pieces[m->m[i].id].text[0] == b)
			i++;
	}
	m->first[256] = m->n;
}

const struct vq_match *vq_matcher_at(const struct vq_matcher *m, const struct vq_tokenizer *t,
				     const char *text, size_t n, size_t at)
{
	uint8_t b = (uint8_t)text[at];
	uint32_t i;

	for (i = m->first[b]; i < m->first[b + 1]; i++) {
		const struct vq_piece *p = &t->pieces[m->m[i].id];

		if (p->n <= n - at && memcmp(p->text, text + at, p->n) == 0)
			return &m->m[i];
	}
	return NULL;
}

/* Where the character before text[at] begins; at > 0. */
static size_t back_one(const char *text, size_t at)
{
	for (at--; at > 0 && ((uint8_t)text[at] & 0xc0) == 0x80; at--)
		;
	return at;
}

/* Bytes of the white space character at text[at], 0 when there is another. */
static size_t space_at(const char *text, size_t n, size_t at)
{
	uint32_t c;
	int len = vq_utf8_next(text + at, n - at, &c);

	if (len < 1)
		return 0;
	if (c == ' ' || (c >= '\t' && c <= '\r') || c == 0x85)
		return (size_t)len;
	if (c < 0xa0)
		return 0;
	switch (utf8proc_category((utf8proc_int32_t)c)) {
	case UTF8PROC_CATEGORY_ZS:
	case UTF8PROC_CATEGORY_ZL:
	case UTF8PROC_CATEGORY_ZP: return (size_t)len;
	default: return 0;
	}
}

/* Is the character that ends (back) or begins at text[at] one of a word, as \w? */
static int is_word(const char *text, size_t n, size_t at, int back)
{
	uint32_t cp;

	if (back && at == 0)
		return 0;
	if (back)
		at = back_one(text, at);
	if (at >= n || vq_utf8_next(text + at, n - at, &cp) < 1)
		return 0;
	if (cp == 0x200c || cp == 0x200d) /* Join_Control */
		return 1;
	switch (utf8proc_category((utf8proc_int32_t)cp)) {
	case UTF8PROC_CATEGORY_LU:
	case UTF8PROC_CATEGORY_LL:
	case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_LO:
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME:
	case UTF8PROC_CATEGORY_ND:
	case UTF8PROC_CATEGORY_NL:
	case UTF8PROC_CATEGORY_PC: return 1;
	default: return 0;
	}
}

const struct vq_match *vq_matcher_next(const struct vq_matcher *a, const struct vq_tokenizer *t,
				       const char *text, size_t n, size_t done, size_t *from,
				       size_t *to)
{
	const struct vq_match *m;
	size_t at = done, end, len;

	for (; at < n; at++) {
		if (!(m = vq_matcher_at(a, t, text, n, at)))
			continue;
		end = at + t->pieces[m->id].n;
		if (m->single_word && (is_word(text, n, at, 1) || is_word(text, n, end, 0))) {
			at = end - 1; /* nor is anything inside it looked at */
			continue;
		}
		while (m->lstrip && at > done && space_at(text, n, back_one(text, at)))
			at = back_one(text, at);
		while (m->rstrip && end < n && (len = space_at(text, n, end)))
			end += len;
		*from = at;
		*to = end;
		return m;
	}
	*from = *to = n;
	return NULL;
}
