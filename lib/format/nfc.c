/* Normalization form C: decompose, order the marks of each base by their class, compose. */
#include "format/nfc.h"

#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "base/utf8.h"

#define ROOM 8 /* code points that one may become; canonical ones: 4 at most */

struct points {
	utf8proc_int32_t *c, *sorted;
	size_t n, room;
};

/* Everything below U+0300 stands in form C by itself, and so does what holds nothing else. */
static int is_plain(const char *s, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if ((unsigned char)s[i] >= 0xcc)
			return 0;
	return 1;
}

static uint32_t class_of(utf8proc_int32_t c)
{
	return c < 0x300 ? 0 : (uint8_t)utf8proc_get_property(c)->combining_class;
}

static int decompose(struct points *p, const char *s, size_t n, struct vq_err *err)
{
	utf8proc_ssize_t got;
	int last = 0;
	uint32_t c;
	size_t i;

	for (i = 0; i < n; i += (size_t)vq_utf8_next(s + i, n - i, NULL)) {
		if (p->n + ROOM > p->room) {
			size_t room = p->room ? 2 * p->room : 256;

			if (vq_grow((void **)&p->c, p->n, room, sizeof(*p->c), err) < 0)
				return VQ_E_SYS;
			p->room = room;
		}
		if (vq_utf8_next(s + i, n - i, &c) < 1)
			return vq_fail(err, VQ_E_DATA, "text: byte %zu is no UTF-8", i);
		got = utf8proc_decompose_char((utf8proc_int32_t)c, p->c + p->n,
					      (utf8proc_ssize_t)(p->room - p->n),
					      UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &last);
		if (got < 0 || (size_t)got > p->room - p->n)
			return vq_fail(err, VQ_E_DATA, "text: U+%04X: %s", c, utf8proc_errmsg(got));
		p->n += (size_t)got;
	}
	return VQ_OK;
}

/* A run of marks by class, equals in their order: one counting sort. */
static void sort_marks(utf8proc_int32_t *c, utf8proc_int32_t *sorted, size_t n)
{
	size_t first[257] = {0}, i;

	for (i = 0; i < n; i++)
		first[class_of(c[i]) + 1]++;
	for (i = 1; i < 257; i++)
		first[i] += first[i - 1];
	for (i = 0; i < n; i++)
		sorted[first[class_of(c[i])]++] = c[i];
	memcpy(c, sorted, n * sizeof(*c));
}

static void order(struct points *p)
{
	size_t i, from;

	for (i = 0; i < p->n; i++) {
		int sorted = 1;

		for (from = i; i < p->n && class_of(p->c[i]); i++)
			sorted &= i == from || class_of(p->c[i - 1]) <= class_of(p->c[i]);
		if (!sorted)
			sort_marks(p->c + from, p->sorted, i - from);
	}
}

int vq_nfc(const char *text, size_t n, struct vq_str *out, struct vq_err *err)
{
	struct points p = {0};
	utf8proc_ssize_t left, i;
	char c[4];
	int rc;

	if (is_plain(text, n)) {
		vq_str_add(out, text, n);
		return out->failed ? vq_fail(err, VQ_E_SYS, "memory: cannot hold %zu bytes", n)
				   : VQ_OK;
	}
	rc = decompose(&p, text, n, err);
	if (rc == VQ_OK && !(p.sorted = vq_alloc(p.n, sizeof(*p.sorted), err)))
		rc = VQ_E_SYS;
	if (rc == VQ_OK) {
		order(&p);
		left = utf8proc_normalize_utf32(p.c, (utf8proc_ssize_t)p.n,
						UTF8PROC_STABLE | UTF8PROC_COMPOSE);
		for (i = 0; i < left; i++)
			vq_str_add(out, c,
				   (size_t)utf8proc_encode_char(p.c[i], (utf8proc_uint8_t *)c));
		if (left < 0)
			rc = vq_fail(err, VQ_E_DATA, "text: %s", utf8proc_errmsg(left));
		else if (out->failed)
			rc = vq_fail(err, VQ_E_SYS, "memory: cannot hold %zu characters", p.n);
	}
	vq_free(p.sorted);
	vq_free(p.c);
	return rc;
}
