/* Byte-level BPE (GPT-2's, and that of most models since): a text is cut by patterns, its bytes are written as one
 * character each, and what BPE merges are those characters.  https://github.com/openai/gpt-2, encoder.py */
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "format/nfc.h"
#include "format/token_vocab.h"

#define SHIFTED 0x100 /* where the bytes that have no character of their own begin */

static const char gpt2_pattern[] =
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* 33..126, 161..172 and 174..255 stand for themselves. */
static int is_own(uint32_t byte)
{
	return (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
}

static uint32_t point_of(uint8_t byte)
{
	if (is_own(byte))
		return byte;
	if (byte <= 32)
		return SHIFTED + byte;
	return byte == 173 ? SHIFTED + 67 : SHIFTED + 33 + (byte - 127u);
}

static int byte_of(uint32_t point)
{
	if (point < SHIFTED)
		return is_own(point) ? (int)point : -1;
	point -= SHIFTED;
	if (point > 67)
		return -1;
	return point <= 32 ? (int)point : point == 67 ? 173 : (int)point - 33 + 127;
}

size_t vq_bytes_map(const char *bytes, size_t n, char *out)
{
	size_t i, o = 0;

	for (i = 0; i < n; i++) {
		uint32_t p = point_of((uint8_t)bytes[i]);

		if (p < 0x80) {
			out[o++] = (char)p;
		} else {
			out[o++] = (char)(0xc0 | p >> 6);
			out[o++] = (char)(0x80 | (p & 0x3f));
		}
	}
	return o;
}

size_t vq_bytes_unmap(const char *text, size_t n, char *out)
{
	size_t i, o = 0;
	uint32_t c;
	int len;

	for (i = 0; i < n; i += (size_t)len) {
		len = vq_utf8_next(text + i, n - i, &c);
		if (len < 1 || byte_of(c) < 0) {
			memcpy(out, text, n);
			return n;
		}
		out[o++] = (char)byte_of(c);
	}
	return o;
}

struct bytes {
	const struct vq_tokenizer *t;
	struct vq_ids *ids;
	char *mapped; /* scratch */
	size_t room;
};

static int encode_piece(void *ctx, const char *piece, size_t n, struct vq_err *err)
{
	struct bytes *b = ctx;

	if (2 * n > b->room) {
		vq_free(b->mapped);
		b->room = 4 * n;
		b->mapped = vq_alloc(b->room, 1, err);
		if (!b->mapped) {
			b->room = 0;
			return VQ_E_SYS;
		}
	}
	return vq_bpe_encode(b->t, b->mapped, vq_bytes_map(piece, n, b->mapped), b->ids, err);
}

/* Valid UTF-8, U+FFFD for bad bytes; in form C where the file asks for that. */
static int normalise(const struct vq_tokenizer *t, const char *text, size_t n, struct vq_str *out,
		     struct vq_err *err)
{
	struct vq_str valid = {0};
	size_t i;
	int rc = VQ_OK, c;

	for (i = 0; i < n; i += c < 1 ? 1 : (size_t)c) {
		c = vq_utf8_next(text + i, n - i, NULL);
		if (c < 1)
			vq_str_puts(&valid, "\xef\xbf\xbd");
		else
			vq_str_add(&valid, text + i, (size_t)c);
	}
	if (valid.failed)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot normalise %zu bytes of text", n);
	if (rc == VQ_OK && t->nfc) {
		rc = vq_nfc(valid.s, valid.n, out, err);
	} else {
		*out = valid;
		return rc;
	}
	vq_str_free(&valid);
	return rc;
}

int vq_bytes_encode(const struct vq_tokenizer *t, const char *text, size_t n, struct vq_ids *ids,
		    struct vq_err *err)
{
	struct bytes b = {.t = t, .ids = ids};
	struct vq_str s = {0};
	size_t at = 0, from, to;
	int rc = normalise(t, text, n, &s, err);

	while (rc == VQ_OK && at < s.n) {
		const struct vq_match *m =
			vq_matcher_next(&t->normalized, t, s.s, s.n, at, &from, &to);

		rc = vq_pretoken_run(t->pretoken, s.s + at, from - at, encode_piece, &b, err);
		if (rc == VQ_OK && m)
			rc = vq_ids_put(ids, m->id, err);
		at = to;
	}
	vq_free(b.mapped);
	vq_str_free(&s);
	return rc;
}

static const char *type_of(const json_t *o)
{
	const char *s = json_string_value(json_object_get(o, "type"));

	return s ? s : "none";
}

/* Whether o, or a member of the sequence o, has the type. */
static int has_type(const json_t *o, const char *members, const char *type)
{
	json_t *list = json_object_get(o, members);
	size_t i;

	for (i = 0; i < json_array_size(list); i++)
		if (strcmp(type_of(json_array_get(list, i)), type) == 0)
			return 1;
	return strcmp(type_of(o), type) == 0;
}

int vq_tokenizer_is_bytes(const json_t *root)
{
	return has_type(json_object_get(root, "pre_tokenizer"), "pretokenizers", "ByteLevel") ||
	       has_type(json_object_get(root, "decoder"), "decoders", "ByteLevel");
}

static int read_normalizer(struct vq_tokenizer *t, const json_t *o, int depth, const char *label,
			   struct vq_err *err)
{
	json_t *list = json_object_get(o, "normalizers");
	int rc = VQ_OK;
	size_t i;

	if (!o || json_is_null(o))
		return VQ_OK;
	if (strcmp(type_of(o), "Sequence") == 0 && json_is_array(list) && depth < 4) {
		for (i = 0; i < json_array_size(list) && rc == VQ_OK; i++)
			rc = read_normalizer(t, json_array_get(list, i), depth + 1, label, err);
		return rc;
	}
	if (strcmp(type_of(o), "NFC") != 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: byte-level BPE: want no normalizer or NFC, got '%.64s'", label,
			       type_of(o));
	t->nfc = 1;
	return VQ_OK;
}

static int read_split(struct vq_pretoken *p, const json_t *o, const char *label, struct vq_err *err)
{
	static const char *const cuts[] = {"Isolated", "Removed", "MergedWithPrevious",
					   "MergedWithNext", "Contiguous"};
	json_t *pattern = json_object_get(o, "pattern"), *regex, *text;
	const char *behavior;
	uint32_t cut = 0;
	int invert;

	regex = json_object_get(pattern, "Regex");
	text = regex ? regex : json_object_get(pattern, "String");
	if (vq_json_str(o, "behavior", "Isolated", &behavior, label, err) < 0 ||
	    vq_json_bool(o, "invert", 0, &invert, label, err) < 0)
		return VQ_E_DATA;
	while (cut < 5 && strcmp(cuts[cut], behavior) != 0)
		cut++;
	if (cut == 5 || !json_is_string(text))
		return vq_fail(err, VQ_E_DATA,
			       "%s: pre-tokenizer 'Split': want a pattern and a known behavior, "
			       "got behavior '%.64s'",
			       label, behavior);
	return vq_pretoken_pattern(p, regex ? VQ_PATTERN_RUBY : VQ_PATTERN_LITERAL,
				   json_string_value(text), json_string_length(text),
				   (enum vq_cut)cut, invert, label, err);
}

static int read_byte_level(struct vq_pretoken *p, const json_t *o, const char *label,
			   struct vq_err *err)
{
	int prefix, regex, rc = VQ_OK;

	if (vq_json_bool(o, "add_prefix_space", 1, &prefix, label, err) < 0 ||
	    vq_json_bool(o, "use_regex", 1, &regex, label, err) < 0)
		return VQ_E_DATA;
	if (prefix)
		rc = vq_pretoken_prefix(p, label, err);
	if (rc == VQ_OK && regex)
		rc = vq_pretoken_pattern(p, VQ_PATTERN_RUBY, gpt2_pattern, strlen(gpt2_pattern),
					 VQ_CUT_ISOLATED, 0, label, err);
	return rc;
}

static int read_step(struct vq_pretoken *p, const json_t *o, int depth, const char *label,
		     struct vq_err *err)
{
	json_t *list = json_object_get(o, "pretokenizers");
	const char *type = type_of(o);
	int single, rc = VQ_OK;
	size_t i;

	if (!o || json_is_null(o))
		return VQ_OK;
	if (strcmp(type, "Sequence") == 0 && json_is_array(list) && depth < 4) {
		for (i = 0; i < json_array_size(list) && rc == VQ_OK; i++)
			rc = read_step(p, json_array_get(list, i), depth + 1, label, err);
		return rc;
	}
	if (strcmp(type, "Split") == 0)
		return read_split(p, o, label, err);
	if (strcmp(type, "ByteLevel") == 0)
		return read_byte_level(p, o, label, err);
	if (strcmp(type, "Digits") != 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: byte-level BPE: want pre-tokenizers Digits, Split or "
			       "ByteLevel, got '%.64s'",
			       label, type);
	if (vq_json_bool(o, "individual_digits", 0, &single, label, err) < 0)
		return VQ_E_DATA;
	return vq_pretoken_pattern(p, VQ_PATTERN_RUBY, "\\p{N}", 5,
				   single ? VQ_CUT_ISOLATED : VQ_CUT_CONTIGUOUS, 0, label, err);
}

int vq_tokenizer_read_bytes(struct vq_tokenizer *t, const json_t *root, const char *label,
			    struct vq_err *err)
{
	int rc;

	t->pretoken = vq_pretoken_new(err);
	if (!t->pretoken)
		return VQ_E_SYS;
	rc = read_normalizer(t, json_object_get(root, "normalizer"), 0, label, err);
	if (rc == VQ_OK)
		rc = read_step(t->pretoken, json_object_get(root, "pre_tokenizer"), 0, label, err);
	return rc;
}
