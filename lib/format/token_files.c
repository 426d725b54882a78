/* tokenizer.json from the files of other tokenizers. */
#include "format/token_files.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "format/checkpoint_back.h"

const char vq_token_words_pattern[] =
	"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
	"?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

json_t *vq_token_added(int64_t id, const char *content, int special)
{
	return json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)id, "content",
			 content, "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0,
			 "special", special);
}

int vq_token_parts_json(char **text, struct vq_token_parts *p, struct vq_err *err)
{
	json_t *cut = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
				"trim_offsets", 0, "use_regex", p->pattern == NULL);
	json_t *j;

	if (p->pattern)
		cut = json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence",
				"pretokenizers", "type", "Split", "pattern", "Regex", p->pattern,
				"behavior", "Isolated", "invert", 0, cut);
	j = json_pack("{s:s, s:o, s:o?, s:o, s:{s:s, s:b, s:b, s:b}, s:{s:s, s:b, s:b, s:o, s:o}}",
		      "version", "1.0", "added_tokens", p->added, "normalizer",
		      p->nfc ? json_pack("{s:s}", "type", "NFC") : NULL, "pre_tokenizer", cut,
		      "decoder", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 0,
		      "use_regex", 0, "model", "type", "BPE", "byte_fallback", 0, "ignore_merges",
		      p->whole_first, "vocab", p->vocab, "merges", p->merges);
	p->added = p->vocab = p->merges = NULL;
	if (!j)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have a tokenizer");
	*text = vq_json_text(j, err);
	json_decref(j);
	return *text ? VQ_OK : VQ_E_SYS;
}

/* --- vocab.json and merges.txt --- */

/* The class that the tokenizer's configuration names decides by what a text is cut. */
static int cut_of_class(struct vq_token_parts *p, const json_t *config, const char *label,
			struct vq_err *err)
{
	static const char *const gpt2[] = {"GPT2Tokenizer", "GPT2TokenizerFast", "CodeGenTokenizer",
					   "CodeGenTokenizerFast"};
	static const char *const qwen2[] = {"Qwen2Tokenizer", "Qwen2TokenizerFast"};
	const char *name;
	int prefix;
	size_t i;

	if (vq_json_str(config, "tokenizer_class", "GPT2Tokenizer", &name, label, err) < 0 ||
	    vq_json_bool(config, "add_prefix_space", 0, &prefix, label, err) < 0)
		return VQ_E_DATA;
	if (prefix)
		return vq_fail(err, VQ_E_DATA,
			       "%s: 'add_prefix_space': want false; save the model's tokenizer as "
			       "tokenizer.json",
			       label);
	for (i = 0; i < sizeof(gpt2) / sizeof(gpt2[0]); i++)
		if (strcmp(name, gpt2[i]) == 0)
			return VQ_OK;
	for (i = 0; i < sizeof(qwen2) / sizeof(qwen2[0]); i++)
		if (strcmp(name, qwen2[i]) == 0) {
			p->pattern = vq_token_words_pattern;
			p->nfc = 1;
			return VQ_OK;
		}
	return vq_fail(err, VQ_E_DATA,
		       "%s: 'tokenizer_class': vocab.json and merges.txt are read for GPT-2, "
		       "CodeGen and Qwen 2, not for '%.64s'; save the model's tokenizer as "
		       "tokenizer.json",
		       label, name);
}

/* Lines "a b" after a line of the version. */
static json_t *merges_of(const char *data, size_t n, const char *label, struct vq_err *err)
{
	json_t *list = json_array();
	size_t at = 0, line = 0;
	int bad = !list;

	while (!bad && at < n) {
		const char *s = data + at, *end = memchr(s, '\n', n - at), *gap;
		size_t len = end ? (size_t)(end - s) : n - at;

		at += len + 1;
		line++;
		len -= len && s[len - 1] == '\r';
		if (len == 0 || (line == 1 && s[0] == '#'))
			continue;
		gap = memchr(s, ' ', len);
		if (!gap || gap == s || gap == s + len - 1 ||
		    memchr(gap + 1, ' ', len - (size_t)(gap - s) - 1)) {
			vq_fail(err, VQ_E_DATA, "%s: line %zu: want two tokens and a space", label,
				line);
			json_decref(list);
			return NULL;
		}
		bad = json_array_append_new(list, json_stringn(s, len)) < 0;
	}
	if (bad) {
		/* jansson takes no other text than UTF-8 */
		vq_fail(err, VQ_E_DATA, "%s: line %zu: want UTF-8", label, line);
		json_decref(list);
		return NULL;
	}
	return list;
}

/* The end of a text is special wherever it has its usual name; so are tokens that added_tokens.json has, but for
 * those of white space alone. */
static int add_tokens(json_t *added, const json_t *vocab, json_t *more, const char *label,
		      struct vq_err *err)
{
	static const char end[] = "<|endoftext|>";
	const json_t *id = json_object_get(vocab, end);
	const char *text;
	json_t *v;
	int bad = json_is_integer(id) &&
		  json_array_append_new(added, vq_token_added(json_integer_value(id), end, 1)) < 0;

	json_object_foreach(more, text, v)
	{
		if (!json_is_integer(v))
			return vq_fail(err, VQ_E_DATA, "%s: '%.64s': want the id of a token", label,
				       text);
		if (strcmp(text, end) != 0)
			bad |= json_array_append_new(
				       added, vq_token_added(json_integer_value(v), text,
							     text[strspn(text, " \t\n\r")] != 0)) <
			       0;
	}
	return bad ? vq_fail(err, VQ_E_SYS, "memory: cannot have a tokenizer") : VQ_OK;
}

/* A JSON object in a side file: 1 and *out, 0 when there is no such file. */
static int side(const struct vq_ckpt *c, const char *name, json_t **out, char *label, size_t room,
		struct vq_err *err)
{
	char *data = NULL;
	size_t n;
	int rc = c->back->file(c, name, &data, &n, err);

	snprintf(label, room, "%s/%s", c->path, name);
	*out = NULL;
	if (rc <= 0)
		return rc;
	*out = vq_json_parse(data, n, label, err);
	vq_free(data);
	if (*out && json_is_object(*out))
		return 1;
	if (*out)
		vq_fail(err, VQ_E_DATA, "%s: want an object", label);
	json_decref(*out);
	*out = NULL;
	return VQ_E_DATA;
}

static int from_merges(const struct vq_ckpt *c, char **text, struct vq_err *err)
{
	struct vq_token_parts p = {.added = json_array()};
	json_t *config = NULL, *more = NULL;
	char label[512], *merges = NULL;
	size_t n = 0;
	int rc = side(c, "vocab.json", &p.vocab, label, sizeof(label), err);

	if (rc > 0) {
		rc = c->back->file(c, "merges.txt", &merges, &n, err);
		if (rc == 0)
			rc = vq_fail(err, VQ_E_DATA, "%s: want merges.txt beside it", label);
	}
	if (rc > 0)
		rc = side(c, "tokenizer_config.json", &config, label, sizeof(label), err);
	if (rc >= 0 && merges)
		rc = cut_of_class(&p, config, label, err);
	if (rc >= 0 && merges)
		rc = side(c, "added_tokens.json", &more, label, sizeof(label), err);
	if (rc >= 0 && merges)
		rc = add_tokens(p.added, p.vocab, more, label, err);
	if (rc >= 0 && merges) {
		snprintf(label, sizeof(label), "%s/merges.txt", c->path);
		p.merges = merges_of(merges, n, label, err);
		rc = p.merges ? vq_token_parts_json(text, &p, err) : VQ_E_DATA;
		rc = rc < 0 ? rc : 1;
	}
	json_decref(p.added);
	json_decref(p.vocab);
	json_decref(p.merges);
	json_decref(config);
	json_decref(more);
	vq_free(merges);
	return rc;
}

/* --- which --- */

static int from_ranks(const struct vq_ckpt *c, const char *name, int qwen, char **text,
		      struct vq_err *err)
{
	char label[512], *data = NULL;
	size_t n;
	int rc = c->back->file(c, name, &data, &n, err);

	if (rc > 0) {
		snprintf(label, sizeof(label), "%s/%s", c->path, name);
		rc = vq_tiktoken_json(text, data, n, qwen, label, err);
		rc = rc < 0 ? rc : 1;
	}
	vq_free(data);
	return rc;
}

int vq_token_files(const struct vq_ckpt *c, char **data, size_t *n, struct vq_err *err)
{
	char *text = NULL, *spm = NULL;
	size_t n_spm;
	int rc = c->back->file(c, "tokenizer.model", &spm, &n_spm, err);

	vq_free(spm);
	if (rc != 0)
		return rc < 0 ? rc : 0;
	rc = from_merges(c, &text, err);
	if (rc == 0)
		rc = from_ranks(c, "qwen.tiktoken", 1, &text, err);
	if (rc == 0)
		rc = from_ranks(c, "arcade100k.tiktoken", 0, &text, err);
	if (rc > 0) {
		*data = text;
		*n = strlen(text);
	}
	return rc;
}
