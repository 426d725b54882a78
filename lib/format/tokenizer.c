/* Tokenizers: opening, and text to ids and back. */
#include "format/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "format/token_vocab.h"

#define MAX_TEXT ((size_t)1 << 28) /* bytes of a text; offsets into its threefold fit 32 bits */

void vq_tokenizer_free(struct vq_tokenizer *t)
{
	uint32_t i;

	if (!t)
		return;
	for (i = 0; i < t->size; i++) {
		vq_free(t->pieces[i].text);
		vq_free(t->pieces[i].out);
	}
	vq_free(t->pieces);
	vq_free(t->slots);
	vq_free(t->merges);
	vq_free(t->added.m);
	vq_free(t->user.m);
	vq_free(t->normalized.m);
	vq_pretoken_free(t->pretoken);
	vq_free(t);
}

/* The id of "bos_token" and the like: a string, or an object with the content. */
static int read_name(const struct vq_tokenizer *t, const json_t *j, const char *key, int32_t *id)
{
	const json_t *v = json_object_get(j, key);
	const char *s;

	if (json_is_object(v))
		v = json_object_get(v, "content");
	s = json_string_value(v);
	if (s && vq_vocab_find(t, s, strlen(s)) >= 0)
		*id = vq_vocab_find(t, s, strlen(s));
	return VQ_OK;
}

/* tokenizer_config.json: {"added_tokens_decoder": {"1022": {...}}, "bos_token": ...}. */
static int read_config(struct vq_tokenizer *t, json_t *j, const char *label, struct vq_err *err)
{
	const char *key;
	json_t *v;
	int legacy, rc;

	json_object_foreach(json_object_get(j, "added_tokens_decoder"), key, v)
	{
		char *end;
		long id = strtol(key, &end, 10);

		if (end == key || *end || !json_is_object(v))
			return vq_fail(err, VQ_E_DATA,
				       "%s: 'added_tokens_decoder': '%.32s' is no id", label, key);
		rc = vq_tokenizer_add(t, id, v, label, err);
		if (rc < 0)
			return rc;
	}
	/* The tokenizers library puts what the post-processor says, whatever name the configuration has for it. */
	if (!t->pretoken)
		read_name(t, j, "bos_token", &t->bos);
	read_name(t, j, "eos_token", &t->eos);
	if (vq_json_bool(j, "legacy", 1, &legacy, label, err) < 0)
		return VQ_E_DATA;
	if (!legacy && !t->merges && t->prefix == VQ_PREFIX_ALWAYS)
		t->prefix = VQ_PREFIX_FIRST;
	return VQ_OK;
}

/* added_tokens.json: {"<image>": 1022}. */
static int read_added(struct vq_tokenizer *t, json_t *j, const char *label, struct vq_err *err)
{
	const char *key;
	json_t *v;

	json_object_foreach(j, key, v)
	{
		json_t *e = json_pack("{s:s,s:b}", "content", key, "special", 1);
		int rc = e ? vq_tokenizer_add(t, json_integer_value(v), e, label, err)
			   : vq_fail(err, VQ_E_SYS, "memory: cannot have a JSON object");

		json_decref(e);
		if (rc < 0)
			return rc;
	}
	return VQ_OK;
}

static int read_side(struct vq_tokenizer *t, const char *text, size_t n, const char *label,
		     struct vq_err *err)
{
	json_t *j = vq_json_parse(text, n, label, err), *v;
	const char *key;
	int all_ids = 1, rc;

	if (!j)
		return vq_err_prefix(err, "tokenizer_config.json or added_tokens.json beside");
	json_object_foreach(j, key, v) all_ids &= json_is_integer(v);
	if (!json_is_object(j))
		rc = vq_fail(err, VQ_E_DATA, "%s: added tokens: want a JSON object", label);
	else
		rc = all_ids ? read_added(t, j, label, err) : read_config(t, j, label, err);
	json_decref(j);
	return rc;
}

/* Whatever a text holds must have a token. */
static int check(struct vq_tokenizer *t, const char *label, struct vq_err *err)
{
	int i;

	if (t->size == 0)
		return vq_fail(err, VQ_E_DATA, "%s: no tokens", label);
	for (i = 0; i < 256 && t->byte_fallback; i++)
		if (t->byte_id[i] < 0)
			return vq_fail(err, VQ_E_DATA,
				       "%s: byte fallback without the token <0x%02X>", label, i);
	if (t->bos < 0 || (uint32_t)t->bos >= t->size || !t->pieces[t->bos].text)
		t->bos = -1;
	if (t->eos < 0 || (uint32_t)t->eos >= t->size || !t->pieces[t->eos].text)
		t->eos = -1;
	if (t->unk < 0 || (uint32_t)t->unk >= t->size || !t->pieces[t->unk].text)
		t->unk = -1;
	if (!t->byte_fallback && t->unk < 0 && !t->pretoken)
		return vq_fail(err, VQ_E_DATA, "%s: neither byte fallback nor an unknown token",
			       label);
	return VQ_OK;
}

int vq_tokenizer_new(struct vq_tokenizer **out, const char *data, size_t n, const char *label,
		     const char *added_json, size_t added_n, struct vq_err *err)
{
	struct vq_tokenizer *t = vq_calloc(1, sizeof(*t), err);
	int i, rc;

	if (!t)
		return VQ_E_SYS;
	t->bos = t->eos = t->unk = -1;
	for (i = 0; i < 256; i++)
		t->byte_id[i] = -1;
	if (n && data[0] == '{')
		rc = vq_tokenizer_read_json(t, data, n, label, err);
	else if (n && data[0] == '\n')
		rc = vq_tokenizer_read_spm(t, data, n, label, err);
	else
		rc = vq_fail(err, VQ_E_DATA, "%s: want tokenizer.json or a SentencePiece model, %s",
			     label, n ? "got something else" : "got an empty file");
	if (rc == VQ_OK && added_json)
		rc = read_side(t, added_json, added_n, label, err);
	if (rc == VQ_OK)
		rc = check(t, label, err);
	if (rc < 0) {
		vq_tokenizer_free(t);
		return rc;
	}
	vq_matcher_sort(&t->added, t);
	vq_matcher_sort(&t->user, t);
	vq_matcher_sort(&t->normalized, t);
	*out = t;
	return VQ_OK;
}

int vq_ids_put(struct vq_ids *ids, int32_t id, struct vq_err *err)
{
	if (ids->n == ids->room) {
		size_t room = ids->room ? 2 * ids->room : 64;

		if (vq_grow((void **)&ids->v, ids->room, room, sizeof(*ids->v), err) < 0)
			return VQ_E_SYS;
		ids->room = room;
	}
	ids->v[ids->n++] = id;
	return VQ_OK;
}

/* The text of a stretch as the vocabulary writes it: ▁ for spaces, U+FFFD for bad bytes, the prefix. */
static void normalise(const struct vq_tokenizer *t, const char *text, size_t n, int prefix,
		      struct vq_str *b)
{
	size_t i, len;

	if (prefix && !(t->prefix_if_missing &&
			(text[0] == ' ' || (n >= 3 && memcmp(text, VQ_SPACE, 3) == 0))))
		vq_str_puts(b, VQ_SPACE);
	for (i = 0; i < n; i += len) {
		int c = vq_utf8_next(text + i, n - i, NULL);

		len = c < 1 ? 1 : (size_t)c;
		if (c < 1)
			vq_str_puts(b, "\xef\xbf\xbd");
		else if (text[i] == ' ' && t->escape_space)
			vq_str_puts(b, VQ_SPACE);
		else
			vq_str_add(b, text + i, len);
	}
}

/* Where the word that begins at `at` ends: before the next ▁ when words are split, else at the end. */
static size_t word_end(const struct vq_tokenizer *t, const char *s, size_t n, size_t at)
{
	const char *p = t->split_at_space ? memmem(s + at + 1, n - at - 1, VQ_SPACE, 3) : NULL;

	return p ? (size_t)(p - s) : n;
}

/* text[from..to), which holds no added token. */
static int encode_stretch(const struct vq_tokenizer *t, const char *text, size_t from, size_t to,
			  struct vq_ids *ids, struct vq_err *err)
{
	struct vq_str b = {0};
	size_t at = 0, end;
	int rc = VQ_OK;

	if (from == to)
		return VQ_OK;
	if (t->pretoken)
		return vq_bytes_encode(t, text + from, to - from, ids, err);
	normalise(t, text + from, to - from,
		  t->prefix == VQ_PREFIX_ALWAYS || (t->prefix == VQ_PREFIX_FIRST && from == 0), &b);
	if (b.failed)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot normalise %zu bytes of text",
			     to - from);
	for (; at < b.n && rc == VQ_OK; at = end) {
		end = word_end(t, b.s, b.n, at);
		rc = vq_bpe_encode(t, b.s + at, end - at, ids, err);
	}
	vq_str_free(&b);
	return rc;
}

int vq_tokenizer_encode(const struct vq_tokenizer *t, const char *text, size_t n, int bos,
			int32_t **ids, size_t *n_ids, struct vq_err *err)
{
	struct vq_ids v = {0};
	size_t at = 0, from, to;
	int rc;

	if (n > MAX_TEXT)
		return vq_fail(err, VQ_E_DATA, "text: want at most %zu bytes, got %zu", MAX_TEXT,
			       n);
	rc = vq_grow((void **)&v.v, 0, 64, sizeof(*v.v), err);
	v.room = 64;
	if (rc == VQ_OK && bos && t->bos >= 0)
		rc = vq_ids_put(&v, t->bos, err);
	while (rc == VQ_OK && at < n) {
		const struct vq_match *m = vq_matcher_next(&t->added, t, text, n, at, &from, &to);

		rc = encode_stretch(t, text, at, from, &v, err);
		if (rc == VQ_OK && m)
			rc = vq_ids_put(&v, m->id, err);
		at = to;
	}
	if (rc < 0) {
		vq_free(v.v);
		return rc;
	}
	*ids = v.v;
	*n_ids = v.n;
	return VQ_OK;
}

/* Moves whole characters from the held bytes to out; at the end of a text also what is cut.  Bytes that are no character
 * give a U+FFFD each with SentencePiece, and one for all that begin a character with byte-level BPE. */
static void flush(struct vq_token_stream *s, int at_end, struct vq_str *out)
{
	uint32_t i = 0;

	while (i < s->n_held) {
		int c = vq_utf8_next(s->held + i, s->n_held - i, NULL);

		if (c == VQ_UTF8_PARTIAL && !at_end)
			break;
		if (c < 1 && s->bytes && s->n_held - i > 1) {
			/* All but the last byte were good so far; that one is looked at again. */
			i = at_end ? s->n_held : s->n_held - 1;
			vq_str_puts(out, "\xef\xbf\xbd");
			continue;
		}
		if (c < 1 || s->held[i] == '\0') /* no zero byte either: texts end in one */
			vq_str_puts(out, "\xef\xbf\xbd");
		else
			vq_str_add(out, s->held + i, (size_t)c);
		i += c < 1 ? 1 : (uint32_t)c;
	}
	memmove(s->held, s->held + i, s->n_held - i);
	s->n_held -= i;
}

void vq_token_stream_push(struct vq_token_stream *s, const struct vq_tokenizer *t, int32_t id,
			  struct vq_str *out)
{
	size_t n, i;
	const char *p = vq_tokenizer_piece(t, id, &n);

	if (n == 0)
		return;
	i = !s->started && p[0] == ' ' && t->prefix != VQ_PREFIX_NEVER ? 1 : 0;
	s->started = 1;
	s->bytes = t->pretoken != NULL;
	for (; i < n; i++) {
		s->held[s->n_held++] = p[i];
		flush(s, 0, out);
	}
}

void vq_token_stream_end(struct vq_token_stream *s, struct vq_str *out)
{
	flush(s, 1, out);
}

char *vq_tokenizer_decode(const struct vq_tokenizer *t, const int32_t *ids, size_t n,
			  struct vq_err *err)
{
	struct vq_token_stream s = {0};
	struct vq_str b = {0};
	char *text = NULL;
	size_t i;

	for (i = 0; i < n; i++)
		vq_token_stream_push(&s, t, ids[i], &b);
	vq_token_stream_end(&s, &b);
	if (b.failed)
		vq_fail(err, VQ_E_SYS, "memory: cannot decode %zu tokens", n);
	else
		text = vq_strdup(b.s ? b.s : "", err);
	vq_str_free(&b);
	return text;
}

const char *vq_tokenizer_piece(const struct vq_tokenizer *t, int32_t id, size_t *n)
{
	if (id < 0 || (uint32_t)id >= t->size || !t->pieces[id].text) {
		*n = 0;
		return "";
	}
	*n = t->pieces[id].n_out;
	return t->pieces[id].out;
}

int32_t vq_tokenizer_id(const struct vq_tokenizer *t, const char *content)
{
	return vq_vocab_find(t, content, strlen(content));
}

uint32_t vq_tokenizer_size(const struct vq_tokenizer *t)
{
	return t->size;
}

int32_t vq_tokenizer_bos(const struct vq_tokenizer *t)
{
	return t->bos;
}

int32_t vq_tokenizer_eos(const struct vq_tokenizer *t)
{
	return t->eos;
}

int vq_tokenizer_prefixes(const struct vq_tokenizer *t)
{
	return t->prefix != VQ_PREFIX_NEVER;
}
