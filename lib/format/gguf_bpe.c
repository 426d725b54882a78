/* A byte-level BPE tokenizer in the keys of a GGUF file, as tokenizer.json.  The file names its pattern, tokenizer.ggml.pre, and
 * llama.cpp has the table (src/llama-vocab.cpp); the patterns here are those of the models' own tokenizer.json. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "format/ckpt_gguf.h"
#include "format/gguf_tok.h"
#include "format/pretoken.h"
#include "format/token_vocab.h"

/* What Qwen's and Llama 3's patterns begin and end with. */
#define WORDS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define REST  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct kind {
	const char *pre;
	const char *pattern; /* NULL: GPT-2's, which ByteLevel has */
	int digits;          /* each a word of its own, before that */
	int nfc;
	int bos;   /* without tokenizer.ggml.add_bos_token */
	int whole; /* a word that is a token stays one */
} kinds[] = {
	{"llama-bpe", WORDS "\\p{N}{1,3}" REST, 0, 0, 1, 1},
	{"llama3", WORDS "\\p{N}{1,3}" REST, 0, 0, 1, 1},
	{"llama-v3", WORDS "\\p{N}{1,3}" REST, 0, 0, 1, 1},
	{"qwen2", WORDS "\\p{N}" REST, 0, 1, 0, 0},
	{"deepseek-r1-qwen", WORDS "\\p{N}" REST, 0, 1, 0, 0},
	{"stablelm2", WORDS "\\p{N}" REST, 0, 0, 0, 0},
	{"smollm", NULL, 1, 0, 0, 0},
	{"gpt-2", NULL, 0, 0, 0, 0},
	{"phi-2", NULL, 0, 0, 0, 0},
};

#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static int choose(const struct kind **out, const struct vq_gguf_file *g, struct vq_err *err)
{
	static const char key[] = "tokenizer.ggml.pre";
	struct vq_str known = {0};
	char *pre = NULL;
	size_t i;
	int rc = vq_gguf_get_text(g, key, &pre, err);

	for (*out = NULL, i = 0; i < N_KINDS; i++) {
		vq_str_printf(&known, "%s%s", i ? ", " : "", kinds[i].pre);
		if (rc > 0 && strcmp(pre, kinds[i].pre) == 0)
			*out = &kinds[i];
	}
	if (rc >= 0 && !*out)
		rc = vq_fail(
			err, VQ_E_DATA,
			"%s: key '%s': want one of %s, got %s%.32s%s, whose pattern is not known",
			g->path, key, known.s ? known.s : "those known", pre ? "'" : "nothing",
			pre ? pre : "", pre ? "'" : "");
	vq_str_free(&known);
	vq_free(pre);
	return rc < 0 ? rc : VQ_OK;
}

int vq_gguf_check_bpe(const struct vq_gguf_file *g, struct vq_err *err)
{
	const struct kind *k;

	return choose(&k, g, err);
}

/* --- the parts of tokenizer.json --- */

static json_t *pre_tokenizer(const struct kind *k)
{
	json_t *steps = json_array();

	if (k->digits)
		(void)!json_array_append_new(
			steps, json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1));
	if (k->pattern)
		(void)!json_array_append_new(
			steps, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern",
					 "Regex", k->pattern, "behavior", "Isolated", "invert", 0));
	(void)!json_array_append_new(steps, json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel",
						      "add_prefix_space", 0, "trim_offsets", 1,
						      "use_regex", k->pattern == NULL));
	return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", steps);
}

/* Whether a tokenizer of this kind cuts texts as t does, and merges words as t does. */
static int is_kind(const struct kind *k, const struct vq_tokenizer *t, int *same,
		   struct vq_err *err)
{
	struct vq_tokenizer own = {0};
	json_t *j = json_pack("{s:o}", "pre_tokenizer", pre_tokenizer(k));
	int rc = j ? vq_tokenizer_read_bytes(&own, j, k->pre, err)
		   : vq_fail(err, VQ_E_SYS, "memory: cannot describe a tokenizer");

	*same = rc == VQ_OK && vq_pretoken_same(own.pretoken, t->pretoken) && k->nfc == t->nfc &&
		k->whole == t->whole_first;
	vq_pretoken_free(own.pretoken);
	json_decref(j);
	return rc;
}

int vq_gguf_pre_name(const char **out, const struct vq_tokenizer *t, const char *label,
		     struct vq_err *err)
{
	struct vq_str known = {0};
	size_t i;
	int rc = VQ_OK, same = 0;

	for (i = 0; rc == VQ_OK && !same && i < N_KINDS; i++) {
		rc = is_kind(&kinds[i], t, &same, err);
		vq_str_printf(&known, "%s%s", i ? ", " : "", kinds[i].pre);
		*out = kinds[i].pre;
	}
	if (rc == VQ_OK && !same)
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: tokenizer.json cuts texts in a way that GGUF has no name for (it "
			     "has %s); export to another format",
			     label, known.s ? known.s : "some");
	vq_str_free(&known);
	return rc;
}

/* {"token": id} of those that merges make, and the list of the others; types tell. */
static int put_tokens(json_t *vocab, json_t *added, const struct vq_gguf_vocab_keys *v,
		      struct vq_err *err)
{
	const uint8_t *p = v->tokens->p;
	uint32_t id;

	for (id = 0; id < v->n; id++) {
		int type = vq_gguf_token_type(v, id), rc;
		size_t n;
		const char *s = vq_gguf_next_text(&p, &n);
		json_t *text;

		if (type == VQ_PIECE_UNUSED)
			continue;
		text = memchr(s, '\0', n) ? NULL : json_stringn(s, n);
		if (!text || n == 0) {
			json_decref(text);
			return vq_fail(err, VQ_E_DATA,
				       "%s: key 'tokenizer.ggml.tokens': token %u: want a text in "
				       "UTF-8, got %s",
				       v->g->path, id, n ? "other bytes" : "nothing");
		}
		if (type == VQ_PIECE_NORMAL || type == VQ_PIECE_BYTE)
			rc = json_object_get(vocab, json_string_value(text))
				     ? -2
				     : json_object_set_new(vocab, json_string_value(text),
							   json_integer(id));
		else
			rc = json_array_append_new(
				added,
				json_pack("{s:I, s:O, s:b, s:b}", "id", (json_int_t)id, "content",
					  text, "special", type != VQ_PIECE_USER, "normalized", 0));
		json_decref(text);
		if (rc == -2)
			return vq_fail(
				err, VQ_E_DATA,
				"%s: key 'tokenizer.ggml.tokens': token %u '%.*s' is there twice",
				v->g->path, id, n < 64 ? (int)n : 64, s);
		if (rc < 0)
			return vq_fail(err, VQ_E_SYS, "memory: cannot have a tokenizer");
	}
	return VQ_OK;
}

static int put_merges(json_t *merges, const struct vq_gguf_file *g, struct vq_err *err)
{
	static const char key[] = "tokenizer.ggml.merges";
	const struct vq_gguf_key *k = NULL;
	const uint8_t *p;
	uint64_t i;
	size_t n;
	int rc = vq_gguf_get_array(g, key, VQ_GGUF_STRING, &k, err);

	if (rc == 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: key '%s' is missing", g->path, key);
	if (rc < 0)
		return rc;
	for (i = 0, p = k->p; i < k->n; i++) {
		const char *s = vq_gguf_next_text(&p, &n);

		if (memchr(s, '\0', n) || json_array_append_new(merges, json_stringn(s, n)) < 0)
			return vq_fail(err, VQ_E_DATA,
				       "%s: key '%s': merge %llu is no text in UTF-8", g->path, key,
				       (unsigned long long)i);
	}
	return VQ_OK;
}

/* TemplateProcessing, where texts begin with a token; else null. */
static int post_processor(json_t **out, const struct vq_gguf_vocab_keys *v, const struct kind *k,
			  struct vq_err *err)
{
	int add = k->bos, rc;
	int32_t bos = -1;
	const uint8_t *p = v->tokens->p;
	const char *s = "";
	size_t n = 0;

	rc = vq_gguf_get_bool(v->g, "tokenizer.ggml.add_bos_token", &add, err);
	if (rc >= 0)
		rc = vq_gguf_token_id(v, "tokenizer.ggml.bos_token_id", &bos, err);
	if (rc < 0)
		return rc;
	if (!add || bos < 0) {
		*out = json_null();
		return VQ_OK;
	}
	for (; bos >= 0; bos--)
		s = vq_gguf_next_text(&p, &n);
	*out = json_pack("{s:s, s:[{s:{s:o}}]}", "type", "TemplateProcessing", "single",
			 "SpecialToken", "id", json_stringn(s, n));
	return *out ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot have a tokenizer");
}

int vq_gguf_make_bpe(struct vq_str *out, const struct vq_gguf_vocab_keys *v, struct vq_err *err)
{
	json_t *vocab = json_object(), *merges = json_array(), *added = json_array();
	json_t *post = NULL, *o = NULL;
	const struct kind *k = NULL;
	int rc = choose(&k, v->g, err);

	if (rc == VQ_OK)
		rc = put_tokens(vocab, added, v, err);
	if (rc == VQ_OK)
		rc = put_merges(merges, v->g, err);
	if (rc == VQ_OK)
		rc = post_processor(&post, v, k, err);
	if (rc == VQ_OK) {
		o = json_pack("{s:O, s:o, s:o, s:o, s:{s:s}, s:{s:s, s:b, s:O, s:O}}",
			      "added_tokens", added, "normalizer",
			      k->nfc ? json_pack("{s:s}", "type", "NFC") : json_null(),
			      "pre_tokenizer", pre_tokenizer(k), "post_processor", post, "decoder",
			      "type", "ByteLevel", "model", "type", "BPE", "ignore_merges",
			      k->whole, "vocab", vocab, "merges", merges);
		rc = vq_json_puts(out, o, err);
	}
	json_decref(vocab);
	json_decref(merges);
	json_decref(added);
	return rc;
}
