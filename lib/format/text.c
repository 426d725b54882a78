/* Reading a text, joining its rows. */
#include "format/text.h"

#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/utf8.h"

#define MAX_TEXT ((size_t)1 << 30)

static const char blanks[] = " \t\r\n\v\f";

int vq_text_check(const char *s, size_t n, const char *label, struct vq_err *err)
{
	size_t i, line = 1;
	int len;

	for (i = 0; i < n; i += (size_t)len) {
		len = vq_utf8_next(s + i, n - i, NULL);
		if (len < 1 || s[i] == '\0')
			return vq_fail(err, VQ_E_DATA,
				       "%s: line %zu, byte %zu: want UTF-8, got 0x%02x%s", label,
				       line, i + 1, (unsigned char)s[i],
				       len == VQ_UTF8_PARTIAL ? ", a character cut short" : "");
		line += s[i] == '\n';
	}
	return VQ_OK;
}

static int is_blank(char c)
{
	return memchr(blanks, c, sizeof(blanks) - 1) != NULL;
}

/* One line, its line feed with it, as a row. */
static void add_row(struct vq_str *out, const char *s, size_t n, enum vq_text_rows rows)
{
	size_t lead = 0, end = n;

	while (end > 0 && is_blank(s[end - 1]))
		end--;
	while (lead < end && is_blank(s[lead]))
		lead++;
	if (rows == VQ_ROWS_PTB)
		vq_str_add(out, s + lead, end - lead);
	else if (end > 0 && n > 1 && s[n - 1] == '\n' && s[n - 2] == '\r') {
		/* As Python reads lines; the file that is passed around ends them so. */
		vq_str_add(out, s, n - 2);
		vq_str_puts(out, "\n");
	} else if (end > 0)
		vq_str_add(out, s, n);
}

/* The rows of a text in its place. */
static int join(struct vq_text *t, enum vq_text_rows rows, struct vq_err *err)
{
	struct vq_str out = {0};
	size_t at, n;

	for (at = 0; at < t->n; at += n) {
		const char *end = memchr(t->s + at, '\n', t->n - at);

		n = end ? (size_t)(end - t->s) + 1 - at : t->n - at;
		if (at)
			vq_str_puts(&out, "\n\n");
		add_row(&out, t->s + at, n, rows);
	}
	if (out.failed) {
		vq_str_free(&out);
		return vq_fail(err, VQ_E_SYS, "memory: cannot join a text's rows");
	}
	vq_free(t->s);
	t->s = out.s;
	t->n = out.n;
	return VQ_OK;
}

int vq_text_open(struct vq_text *t, const char *path, enum vq_text_rows rows, struct vq_err *err)
{
	int in = strcmp(path, "-") == 0, rc;
	const char *label = in ? "stdin" : path;

	memset(t, 0, sizeof(*t));
	rc = in ? vq_fd_read(STDIN_FILENO, MAX_TEXT, label, &t->s, &t->n, err)
		: vq_file_read(path, MAX_TEXT, VQ_E_SYS, &t->s, &t->n, err);
	if (rc < 0)
		return rc;
	vq_sha256_of(t->s, t->n, t->sha256);
	rc = vq_text_check(t->s, t->n, label, err);
	if (rc >= 0 && strspn(t->s, blanks) == t->n)
		rc = vq_fail(err, VQ_E_DATA, "%s: want a text, got nothing%s", label,
			     t->n ? " but blanks" : "");
	if (rc >= 0 && rows != VQ_ROWS_TEXT)
		rc = join(t, rows, err);
	if (rc < 0)
		vq_text_close(t);
	return rc;
}

void vq_text_close(struct vq_text *t)
{
	vq_free(t->s);
	memset(t, 0, sizeof(*t));
}
