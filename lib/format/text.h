/* Whole texts: as they are in a file, or a data set's rows, a line each, joined as published perplexities join them. */
#ifndef VQ_FORMAT_TEXT_H
#define VQ_FORMAT_TEXT_H

#include <stddef.h>

#include "base/err.h"
#include "base/sha256.h"

enum vq_text_rows {
	VQ_ROWS_TEXT, /* no rows: the bytes of the file */
	/* Hugging Face's wikitext: a line with its line feed is a row, a blank line an empty one; two line feeds between. */
	VQ_ROWS_WIKITEXT,
	/* Hugging Face's ptb_text_only: a line without the blanks around it is a row; two line feeds between. */
	VQ_ROWS_PTB,
};

#define VQ_TEXT_ROWS "text|wikitext|ptb"

struct vq_text {
	char *s; /* [n] and a zero byte */
	size_t n;
	char sha256[VQ_SHA256_HEX]; /* of the file */
};

/* path "-": standard input.  Nothing but blanks, or bytes that are no UTF-8: VQ_E_DATA naming line and byte.  A path
 * that cannot be opened: VQ_E_SYS. */
VQ_MUST_CHECK int vq_text_open(struct vq_text *t, const char *path, enum vq_text_rows rows,
			       struct vq_err *err);
void vq_text_close(struct vq_text *t); /* fine on zeroes */

/* VQ_E_DATA naming label, line and byte (from 1) of the first of s[0..n) that is no UTF-8. */
VQ_MUST_CHECK int vq_text_check(const char *s, size_t n, const char *label, struct vq_err *err);

#endif
