/* Cutting a text by patterns.  Pieces go through the steps depth first, so nothing is kept but the span that the next
 * match may still lengthen. */
#include "format/pretoken.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

#define MAX_PATTERN 65536
#define MATCH_LIMIT (1u << 20) /* backtracks of one match, and these for each byte of the piece: */
#define BYTE_LIMIT  16         /* a run of white space is tried once for each of its bytes */

struct step {
	pcre2_code *code; /* NULL: the step that puts spaces */
	char *pattern;    /* [n] that code is of */
	size_t n;
	uint32_t options;
	enum vq_cut cut;
	int invert;
};

struct vq_pretoken {
	struct step step[VQ_PRETOKEN_STEPS];
	uint32_t n;
};

struct run {
	const struct vq_pretoken *p;
	pcre2_match_data *data;
	pcre2_match_context *limits;
	vq_pretoken_fn each;
	void *ctx;
};

struct vq_pretoken *vq_pretoken_new(struct vq_err *err)
{
	return vq_calloc(1, sizeof(struct vq_pretoken), err);
}

static void free_step(struct step *s)
{
	pcre2_code_free(s->code);
	vq_free(s->pattern);
}

void vq_pretoken_free(struct vq_pretoken *p)
{
	uint32_t i;

	for (i = 0; p && i < p->n; i++)
		free_step(&p->step[i]);
	vq_free(p);
}

static int add(struct vq_pretoken *p, struct step s, const char *label, struct vq_err *err)
{
	if (p->n == VQ_PRETOKEN_STEPS) {
		free_step(&s);
		return vq_fail(err, VQ_E_DATA, "%s: want at most %d pre-tokenizers, got more",
			       label, VQ_PRETOKEN_STEPS);
	}
	p->step[p->n++] = s;
	return VQ_OK;
}

int vq_pretoken_prefix(struct vq_pretoken *p, const char *label, struct vq_err *err)
{
	return add(p, (struct step){0}, label, err);
}

int vq_pretoken_pattern(struct vq_pretoken *p, enum vq_pattern kind, const char *pattern, size_t n,
			enum vq_cut cut, int invert, const char *label, struct vq_err *err)
{
	/* \C could match half a character. */
	uint32_t options =
		PCRE2_UTF |
		(kind == VQ_PATTERN_LITERAL ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C);
	struct step s = {.cut = cut, .invert = invert};
	int show = n < 200 ? (int)n : 200, code;
	PCRE2_UCHAR why[128];
	PCRE2_SIZE at;

	if (kind == VQ_PATTERN_RUBY)
		options |= PCRE2_MULTILINE;
	if (kind == VQ_PATTERN_RUST)
		options |= PCRE2_DOLLAR_ENDONLY;
	if (n == 0 || n > MAX_PATTERN)
		return vq_fail(err, VQ_E_DATA, "%s: want a pattern of 1..%d bytes, got %zu", label,
			       MAX_PATTERN, n);
	s.code = pcre2_compile((PCRE2_SPTR)pattern, n, options, &code, &at, NULL);
	if (!s.code) {
		pcre2_get_error_message(code, why, sizeof(why));
		return vq_fail(err, VQ_E_DATA, "%s: pattern '%.*s': %s (at byte %zu)", label, show,
			       pattern, (const char *)why, at);
	}
	s.pattern = vq_alloc(n, 1, err);
	if (!s.pattern) {
		free_step(&s);
		return VQ_E_SYS;
	}
	memcpy(s.pattern, pattern, n);
	s.n = n;
	s.options = options;
	/* Without a compiler for this machine, or without memory for its code, the pattern is interpreted. */
	(void)pcre2_jit_compile(s.code, PCRE2_JIT_COMPLETE);
	return add(p, s, label, err);
}

int vq_pretoken_same(const struct vq_pretoken *a, const struct vq_pretoken *b)
{
	uint32_t i;

	for (i = 0; i < a->n && i < b->n; i++) {
		const struct step *s = &a->step[i], *t = &b->step[i];

		if (!s->code != !t->code || s->cut != t->cut || s->invert != t->invert ||
		    s->options != t->options || s->n != t->n ||
		    (s->n && memcmp(s->pattern, t->pattern, s->n) != 0))
			return 0;
	}
	return a->n == b->n;
}

/* The first match in s[at..n): 1 and its span, 0 when there is none. */
static int find(struct run *r, const struct step *st, const char *s, size_t n, size_t at,
		size_t *from, size_t *to, struct vq_err *err)
{
	uint64_t limit = MATCH_LIMIT + BYTE_LIMIT * (uint64_t)n;
	const PCRE2_SIZE *span = pcre2_get_ovector_pointer(r->data);
	PCRE2_UCHAR why[128];
	int rc;

	pcre2_set_match_limit(r->limits, limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX);
	rc = pcre2_match(st->code, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK, r->data, r->limits);
	if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its stack on the heap */
		rc = pcre2_match(st->code, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
				 r->data, r->limits);
	if (rc == PCRE2_ERROR_NOMATCH)
		return 0;
	if (rc < 0) {
		pcre2_get_error_message(rc, why, sizeof(why));
		return vq_fail(err, VQ_E_DATA,
			       "the tokenizer's pattern cannot cut a text of %zu bytes: %s", n,
			       (const char *)why);
	}
	*from = span[0];
	*to = span[1];
	if (*from < at || *to < *from)
		return vq_fail(err, VQ_E_DATA, "the tokenizer's pattern matches backwards");
	return 1;
}

static int walk(struct run *r, uint32_t k, const char *s, size_t n, struct vq_err *err);

/* The span that the next match may still lengthen. */
struct open_span {
	size_t from, to;
	int is_match, any;
};

static int close_span(struct run *r, uint32_t k, const char *s, struct open_span *o,
		      struct vq_err *err)
{
	int drop = o->is_match && r->p->step[k].cut == VQ_CUT_REMOVED;

	return o->any && !drop ? walk(r, k + 1, s + o->from, o->to - o->from, err) : VQ_OK;
}

/* One match, or what lies between two. */
static int take(struct run *r, uint32_t k, const char *s, size_t from, size_t to, int is_match,
		struct open_span *o, struct vq_err *err)
{
	enum vq_cut cut = r->p->step[k].cut;
	int join, rc = VQ_OK;

	is_match ^= r->p->step[k].invert;
	join = (cut == VQ_CUT_WITH_PREVIOUS && is_match && !o->is_match) ||
	       (cut == VQ_CUT_WITH_NEXT && !is_match && o->is_match) ||
	       (cut == VQ_CUT_CONTIGUOUS && is_match == o->is_match);
	if (!o->any || !join) {
		rc = close_span(r, k, s, o, err);
		o->from = from;
		o->any = 1;
	}
	o->to = to;
	o->is_match = is_match;
	return rc;
}

static int cut(struct run *r, uint32_t k, const char *s, size_t n, struct vq_err *err)
{
	struct open_span o = {0};
	size_t at = 0, done = 0, from = 0, to = 0;
	int rc = 0, some = 0; /* whether a match ended at `done` */

	while (at <= n && (rc = find(r, &r->p->step[k], s, n, at, &from, &to, err)) > 0) {
		if (from == to && some && from == done) { /* an empty match behind another */
			at = n + 1;
			if (done < n)
				at = done + (size_t)vq_utf8_next(s + done, n - done, NULL);
			some = 0;
			continue;
		}
		rc = from > done ? take(r, k, s, done, from, 0, &o, err) : VQ_OK;
		if (rc >= 0)
			rc = take(r, k, s, from, to, 1, &o, err);
		if (rc < 0)
			return rc;
		at = done = to;
		some = 1;
	}
	if (at <= n && rc < 0)
		return rc;
	rc = done < n ? take(r, k, s, done, n, 0, &o, err) : VQ_OK;
	return rc < 0 ? rc : close_span(r, k, s, &o, err);
}

static int prefix(struct run *r, uint32_t k, const char *s, size_t n, struct vq_err *err)
{
	char *own;
	int rc;

	if (s[0] == ' ')
		return walk(r, k + 1, s, n, err);
	own = vq_alloc(n + 1, 1, err);
	if (!own)
		return VQ_E_SYS;
	own[0] = ' ';
	memcpy(own + 1, s, n);
	rc = walk(r, k + 1, own, n + 1, err);
	vq_free(own);
	return rc;
}

/* The piece through step k and those after it. */
static int walk(struct run *r, uint32_t k, const char *s, size_t n, struct vq_err *err)
{
	if (n == 0)
		return VQ_OK;
	if (k == r->p->n)
		return r->each(r->ctx, s, n, err);
	return r->p->step[k].code ? cut(r, k, s, n, err) : prefix(r, k, s, n, err);
}

int vq_pretoken_run(const struct vq_pretoken *p, const char *text, size_t n, vq_pretoken_fn each,
		    void *ctx, struct vq_err *err)
{
	struct run r = {.p = p, .each = each, .ctx = ctx};
	int rc;

	r.data = pcre2_match_data_create(1, NULL);
	r.limits = pcre2_match_context_create(NULL);
	if (r.data && r.limits)
		rc = walk(&r, 0, text, n, err);
	else
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot match a pattern");
	pcre2_match_context_free(r.limits);
	pcre2_match_data_free(r.data);
	return rc < 0 ? rc : VQ_OK;
}
