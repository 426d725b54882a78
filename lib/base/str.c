/* A growing string. */
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void vq_str_add(struct vq_str *b, const char *s, size_t n)
{
	if (b->failed)
		return;
	if (b->n + n + 1 > b->room) {
		size_t room = (b->n + n + 1) * 2 + 64;
		char *p = realloc(b->s, room);

		if (!p) {
			b->failed = 1;
			return;
		}
		b->s = p;
		b->room = room;
	}
	memcpy(b->s + b->n, s, n);
	b->n += n;
	b->s[b->n] = '\0';
}

void vq_str_puts(struct vq_str *b, const char *s)
{
	vq_str_add(b, s, strlen(s));
}

void vq_str_printf(struct vq_str *b, const char *fmt, ...)
{
	char *line = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&line, fmt, ap);
	va_end(ap);
	if (n < 0)
		b->failed = 1;
	else
		vq_str_add(b, line, (size_t)n);
	free(n < 0 ? NULL : line);
}

void vq_str_free(struct vq_str *b)
{
	free(b->s);
	memset(b, 0, sizeof(*b));
}
