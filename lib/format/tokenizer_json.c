/* tokenizer.json of the tokenizers library, where it is BPE: SentencePiece-style, spaces as U+2581 by a Prepend + Replace
 * normalizer or a Metaspace pre-tokenizer, byte fallback; or byte-level (tokenizer_bytes.c). */
#include <string.h>

#include "base/json.h"
#include "format/token_vocab.h"

static const char *type_of(const json_t *o)
{
	const char *s = json_string_value(json_object_get(o, "type"));

	return s ? s : "none";
}

static int is_string(const json_t *v, const char *want)
{
	return json_is_string(v) && strcmp(json_string_value(v), want) == 0;
}

static int unsupported(const char *label, const char *what, const json_t *o, struct vq_err *err)
{
	return vq_fail(err, VQ_E_DATA,
		       "%s: want SentencePiece-style or byte-level BPE, got %s '%.64s'", label,
		       what, type_of(o));
}

static int read_normalizer(struct vq_tokenizer *t, const json_t *o, int depth, const char *label,
			   struct vq_err *err)
{
	const char *type = type_of(o);
	json_t *list = json_object_get(o, "normalizers");
	size_t i;
	int rc = VQ_OK;

	if (!o || json_is_null(o))
		return VQ_OK;
	if (strcmp(type, "Sequence") == 0 && json_is_array(list) && depth < 4) {
		for (i = 0; i < json_array_size(list) && rc == VQ_OK; i++)
			rc = read_normalizer(t, json_array_get(list, i), depth + 1, label, err);
		return rc;
	}
	if (strcmp(type, "Prepend") == 0 && is_string(json_object_get(o, "prepend"), VQ_SPACE)) {
		t->prefix = VQ_PREFIX_ALWAYS;
		return VQ_OK;
	}
	if (strcmp(type, "Replace") == 0 &&
	    is_string(json_object_get(json_object_get(o, "pattern"), "String"), " ") &&
	    is_string(json_object_get(o, "content"), VQ_SPACE)) {
		t->escape_space = 1;
		return VQ_OK;
	}
	return unsupported(label, "normalizer", o, err);
}

static int read_pre_tokenizer(struct vq_tokenizer *t, const json_t *o, const char *label,
			      struct vq_err *err)
{
	const char *scheme;
	int add, split;

	if (!o || json_is_null(o))
		return VQ_OK;
	if (strcmp(type_of(o), "Metaspace") != 0 ||
	    !is_string(json_object_get(o, "replacement"), VQ_SPACE))
		return unsupported(label, "pre-tokenizer", o, err);
	if (vq_json_bool(o, "add_prefix_space", 1, &add, label, err) < 0 ||
	    vq_json_bool(o, "split", 1, &split, label, err) < 0 ||
	    vq_json_str(o, "prepend_scheme", add ? "always" : "never", &scheme, label, err) < 0)
		return VQ_E_DATA;
	t->escape_space = 1;
	t->split_at_space = split;
	t->prefix_if_missing = 1;
	t->prefix = strcmp(scheme, "always") == 0  ? VQ_PREFIX_ALWAYS
		    : strcmp(scheme, "first") == 0 ? VQ_PREFIX_FIRST
						   : VQ_PREFIX_NEVER;
	return VQ_OK;
}

static int read_vocab(struct vq_tokenizer *t, json_t *vocab, const char *label, struct vq_err *err)
{
	const char *text;
	size_t n;
	json_t *id;
	int rc;

	json_object_keylen_foreach(vocab, text, n, id)
	{
		int byte = n == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>' &&
			   strspn(text + 3, "0123456789ABCDEF") == 2;

		if (!json_is_integer(id))
			return vq_fail(err, VQ_E_DATA, "%s: token '%.64s': its id is no integer",
				       label, text);
		rc = vq_vocab_put(t, json_integer_value(id), text, n,
				  byte ? VQ_PIECE_BYTE : VQ_PIECE_NORMAL, 0, label, err);
		if (rc < 0)
			return rc;
	}
	return VQ_OK;
}

/* One merge: "a b", or ["a", "b"]. */
static int read_merge(struct vq_tokenizer *t, uint32_t rank, const json_t *v, const char *label,
		      struct vq_err *err)
{
	const json_t *a = json_array_get(v, 0), *b = json_array_get(v, 1);
	const char *s = json_string_value(v), *gap = s ? strchr(s, ' ') : NULL;

	if (json_is_string(a) && json_is_string(b) && json_array_size(v) == 2)
		return vq_vocab_merge(t, rank, json_string_value(a), json_string_length(a),
				      json_string_value(b), json_string_length(b), label, err);
	if (!gap || strchr(gap + 1, ' '))
		return vq_fail(err, VQ_E_DATA,
			       "%s: merge %u: want \"a b\" or [\"a\", \"b\"], got something else",
			       label, rank);
	return vq_vocab_merge(t, rank, s, (size_t)(gap - s), gap + 1, strlen(gap + 1), label, err);
}

static int read_model(struct vq_tokenizer *t, const json_t *m, const char *label,
		      struct vq_err *err)
{
	json_t *vocab = json_object_get(m, "vocab"), *merges = json_object_get(m, "merges");
	const char *unk, *prefix, *suffix;
	size_t i;
	int rc;

	if (strcmp(type_of(m), "BPE") != 0 &&
	    !(strcmp(type_of(m), "none") == 0 && json_is_array(merges)))
		return unsupported(label, "model", m, err);
	if (!json_is_object(vocab) || !json_is_array(merges) ||
	    json_array_size(merges) > VQ_TOKEN_MAX_ID)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want a model with 'vocab' (an object) and 'merges' (an array)",
			       label);
	if (vq_json_str(m, "unk_token", NULL, &unk, label, err) < 0 ||
	    vq_json_str(m, "continuing_subword_prefix", "", &prefix, label, err) < 0 ||
	    vq_json_str(m, "end_of_word_suffix", "", &suffix, label, err) < 0 ||
	    vq_json_bool(m, "byte_fallback", 0, &t->byte_fallback, label, err) < 0 ||
	    vq_json_bool(m, "fuse_unk", 0, &t->fuse_unk, label, err) < 0 ||
	    vq_json_bool(m, "ignore_merges", 0, &t->whole_first, label, err) < 0)
		return VQ_E_DATA;
	if (*prefix || *suffix)
		return vq_fail(err, VQ_E_DATA,
			       "%s: a BPE model with subword prefix or suffix is not supported",
			       label);
	rc = read_vocab(t, vocab, label, err);
	if (rc == VQ_OK)
		rc = vq_vocab_merges(t, (uint32_t)json_array_size(merges), err);
	for (i = 0; i < json_array_size(merges) && rc == VQ_OK; i++)
		rc = read_merge(t, (uint32_t)i, json_array_get(merges, i), label, err);
	t->unk = unk ? vq_vocab_find(t, unk, strlen(unk)) : -1;
	return rc;
}

int vq_tokenizer_add(struct vq_tokenizer *t, int64_t id, const json_t *entry, const char *label,
		     struct vq_err *err)
{
	struct vq_match m = {0};
	const char *text;
	int special, lstrip, rstrip, word, normalized, own, rc;

	if (vq_json_str(entry, "content", NULL, &text, label, err) < 0 ||
	    vq_json_bool(entry, "special", 0, &special, label, err) < 0 ||
	    vq_json_bool(entry, "lstrip", 0, &lstrip, label, err) < 0 ||
	    vq_json_bool(entry, "rstrip", 0, &rstrip, label, err) < 0 ||
	    vq_json_bool(entry, "single_word", 0, &word, label, err) < 0 ||
	    vq_json_bool(entry, "normalized", !special, &normalized, label, err) < 0)
		return VQ_E_DATA;
	if (!text || !*text)
		return vq_fail(err, VQ_E_DATA, "%s: added token %lld has no content", label,
			       (long long)id);
	own = vq_vocab_find_own(t, text, strlen(text)) >= 0;
	rc = vq_vocab_put(t, id, text, strlen(text), special ? VQ_PIECE_CONTROL : VQ_PIECE_USER, 0,
			  label, err);
	if (rc < 0)
		return rc;
	t->pieces[id].added = !own;
	m.id = (int32_t)id;
	m.lstrip = (uint8_t)lstrip;
	m.rstrip = (uint8_t)rstrip;
	m.single_word = (uint8_t)word;
	return vq_matcher_put(t->pretoken && normalized ? &t->normalized : &t->added, m, err);
}

/* The beginning token that the post-processor puts first, by name; NULL when it puts none. */
static const char *template_bos(const json_t *root)
{
	const json_t *post = json_object_get(root, "post_processor");
	const json_t *list = json_object_get(post, "processors");
	size_t i;

	for (i = 0; i < json_array_size(list); i++)
		if (strcmp(type_of(json_array_get(list, i)), "TemplateProcessing") == 0)
			post = json_array_get(list, i);
	return json_string_value(json_object_get(
		json_object_get(json_array_get(json_object_get(post, "single"), 0), "SpecialToken"),
		"id"));
}

int vq_tokenizer_read_json(struct vq_tokenizer *t, const char *data, size_t n, const char *label,
			   struct vq_err *err)
{
	json_t *root = vq_json_parse(data, n, label, err), *added, *e;
	const char *bos;
	size_t i;
	int bytes, rc = VQ_OK;

	if (!root)
		return VQ_E_DATA;
	t->prefix = VQ_PREFIX_NEVER;
	bytes = vq_tokenizer_is_bytes(root);
	if (bytes)
		rc = vq_tokenizer_read_bytes(t, root, label, err);
	if (rc == VQ_OK)
		rc = read_model(t, json_object_get(root, "model"), label, err);
	if (rc == VQ_OK && !bytes)
		rc = read_normalizer(t, json_object_get(root, "normalizer"), 0, label, err);
	if (rc == VQ_OK && !bytes)
		rc = read_pre_tokenizer(t, json_object_get(root, "pre_tokenizer"), label, err);
	added = json_object_get(root, "added_tokens");
	for (i = 0; i < json_array_size(added) && rc == VQ_OK; i++) {
		e = json_array_get(added, i);
		if (json_is_integer(json_object_get(e, "id")))
			rc = vq_tokenizer_add(t, json_integer_value(json_object_get(e, "id")), e,
					      label, err);
		else
			rc = vq_fail(err, VQ_E_DATA, "%s: added token %zu has no id", label, i);
	}
	bos = template_bos(root);
	if (bos)
		t->bos = vq_vocab_find(t, bos, strlen(bos));
	else if (!bytes)
		t->bos = vq_vocab_find(t, "<s>", 3);
	t->eos = vq_vocab_find(t, "</s>", 4);
	json_decref(root);
	return rc;
}
