/* How byte-level BPE cuts a text before it merges: a chain of steps, each of which cuts every piece that the step before
 * it left.  Patterns are those of the tokenizer's file, run as they stand by PCRE2 (Unicode 14; U+180E counts as white
 * space there, and nowhere else). */
#ifndef VQ_FORMAT_PRETOKEN_H
#define VQ_FORMAT_PRETOKEN_H

#include <stddef.h>

#include "base/err.h"

struct vq_pretoken;

/* What becomes of a match; the stretches between matches are pieces. */
enum vq_cut {
	VQ_CUT_ISOLATED,      /* a piece of its own */
	VQ_CUT_REMOVED,       /* dropped */
	VQ_CUT_WITH_PREVIOUS, /* the end of the stretch before it */
	VQ_CUT_WITH_NEXT,     /* the beginning of the stretch after it */
	VQ_CUT_CONTIGUOUS,    /* one piece with the matches that touch it */
};

/* Where the authors' engines differ: the tokenizers library runs Oniguruma with Ruby's syntax, whose ^ and $ stand at
 * every line; tiktoken the regex crate, whose $ stands at the end alone. */
enum vq_pattern { VQ_PATTERN_RUBY, VQ_PATTERN_RUST, VQ_PATTERN_LITERAL };

#define VQ_PRETOKEN_STEPS 16 /* at most */

struct vq_pretoken *vq_pretoken_new(struct vq_err *err); /* no steps yet; NULL: no memory */
void vq_pretoken_free(struct vq_pretoken *p);            /* NULL is fine */

/* Adds a step.  invert: matches and stretches between them change places.  VQ_E_DATA naming label: a pattern that PCRE2
 * refuses, or one step too many. */
VQ_MUST_CHECK int vq_pretoken_pattern(struct vq_pretoken *p, enum vq_pattern kind,
				      const char *pattern, size_t n, enum vq_cut cut, int invert,
				      const char *label, struct vq_err *err);
/* Adds a step that puts a space before every piece that begins with none. */
VQ_MUST_CHECK int vq_pretoken_prefix(struct vq_pretoken *p, const char *label, struct vq_err *err);

/* 1 when both cut every text alike because their steps are the same, patterns to the letter. */
int vq_pretoken_same(const struct vq_pretoken *a, const struct vq_pretoken *b);

/* Calls each() with every piece of text in order (never an empty one) until it returns below 0, and returns that.  text:
 * valid UTF-8, less than 4 GiB.  A pattern that backtracks without end is VQ_E_DATA.  p may be shared by threads. */
typedef int (*vq_pretoken_fn)(void *ctx, const char *piece, size_t n, struct vq_err *err);
VQ_MUST_CHECK int vq_pretoken_run(const struct vq_pretoken *p, const char *text, size_t n,
				  vq_pretoken_fn each, void *ctx, struct vq_err *err);

#endif
