/* The tokenizer in the keys of a GGUF file, as the files of a Hugging Face folder. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/str.h"
#include "format/ckpt_gguf.h"
#include "format/gguf_tok.h"
#include "format/spm_write.h"

struct spm {
	struct vq_gguf_vocab_keys v;
	const struct vq_gguf_key *scores;
};

/* --- what every kind has --- */

static int need_array(const struct vq_gguf_file *g, const char *name, enum vq_gguf_type item,
		      const struct vq_gguf_key **out, struct vq_err *err)
{
	int rc = vq_gguf_get_array(g, name, item, out, err);

	if (rc == 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: key '%s' is missing", g->path, name);
	return rc < 0 ? rc : VQ_OK;
}

int vq_gguf_token_array(const struct vq_gguf_vocab_keys *v, const char *name,
			enum vq_gguf_type item, const struct vq_gguf_key **out, struct vq_err *err)
{
	int rc = need_array(v->g, name, item, out, err);

	if (rc == VQ_OK && (*out)->n != v->n)
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: key '%s': want one for each of the %u tokens, got %llu",
			     v->g->path, name, v->n, (unsigned long long)(*out)->n);
	return rc;
}

static int open_vocab(struct vq_gguf_vocab_keys *v, const struct vq_gguf_file *g,
		      struct vq_err *err)
{
	static const char tokens[] = "tokenizer.ggml.tokens";
	int rc = need_array(g, tokens, VQ_GGUF_STRING, &v->tokens, err);

	v->g = g;
	if (rc == VQ_OK && (v->tokens->n < 1 || v->tokens->n > VQ_TOKEN_MAX_ID + 1ull))
		rc = vq_fail(err, VQ_E_DATA, "%s: key '%s': want 1..%u tokens, got %llu", g->path,
			     tokens, VQ_TOKEN_MAX_ID + 1u, (unsigned long long)v->tokens->n);
	if (rc < 0)
		return rc;
	v->n = (uint32_t)v->tokens->n;
	return vq_gguf_token_array(v, "tokenizer.ggml.token_type", VQ_GGUF_I32, &v->types, err);
}

int vq_gguf_token_type(const struct vq_gguf_vocab_keys *v, uint32_t id)
{
	int32_t type;

	memcpy(&type, v->types->p + id * sizeof(type), sizeof(type));
	return type;
}

int vq_gguf_token_id(const struct vq_gguf_vocab_keys *v, const char *key, int32_t *id,
		     struct vq_err *err)
{
	uint32_t got = UINT32_MAX;
	int rc = vq_gguf_get_u32(v->g, key, 0, UINT32_MAX, &got, err);

	*id = got < v->n ? (int32_t)got : -1;
	return rc < 0 ? rc : VQ_OK;
}

/* --- tokenizer.model --- */

static int read_spec(const struct vq_gguf_vocab_keys *v, struct vq_spm_spec *spec,
		     struct vq_err *err)
{
	int add_bos = 1, rc;

	spec->dummy_prefix = 1;
	rc = vq_gguf_token_id(v, "tokenizer.ggml.unknown_token_id", &spec->unk, err);
	if (rc == VQ_OK)
		rc = vq_gguf_token_id(v, "tokenizer.ggml.bos_token_id", &spec->bos, err);
	if (rc == VQ_OK)
		rc = vq_gguf_token_id(v, "tokenizer.ggml.eos_token_id", &spec->eos, err);
	if (rc >= 0)
		rc = vq_gguf_get_bool(v->g, "tokenizer.ggml.add_bos_token", &add_bos, err);
	if (rc >= 0)
		rc = vq_gguf_get_bool(v->g, "tokenizer.ggml.add_space_prefix", &spec->dummy_prefix,
				      err);
	if (!add_bos)
		spec->bos = -1;
	return rc < 0 ? rc : VQ_OK;
}

/* The text of tokens 0, 1, ...: call it in turn.  What a converter put where no token is becomes a special one, which
 * running text does not make. */
static int put_token(struct vq_str *model, const struct spm *m, uint32_t id, const uint8_t **p,
		     struct vq_err *err)
{
	const struct vq_gguf_vocab_keys *v = &m->v;
	int32_t type = vq_gguf_token_type(v, id);
	uint32_t bits;
	char hole[32];
	float score;
	size_t n;
	const char *s = vq_gguf_next_text(p, &n);

	memcpy(&bits, m->scores->p + id * sizeof(bits), sizeof(bits));
	score = vq_bits_f32(bits);
	if (type < VQ_PIECE_NORMAL || type > VQ_PIECE_BYTE || !isfinite(score))
		return vq_fail(err, VQ_E_DATA,
			       "%s: key 'tokenizer.ggml.%s': token %u: want %s, got %d", v->g->path,
			       isfinite(score) ? "token_type" : "scores", id,
			       isfinite(score) ? "a type of 1..6" : "a finite score", type);
	if (type == VQ_PIECE_UNUSED) {
		type = VQ_PIECE_CONTROL;
		if (n == 0)
			s = hole, n = (size_t)snprintf(hole, sizeof(hole), "<unused%u>", id);
	}
	if (n < 1 || n > VQ_TOKEN_MAX_BYTES || memchr(s, '\0', n))
		return vq_fail(
			err, VQ_E_DATA,
			"%s: key 'tokenizer.ggml.tokens': token %u: want a text of 1..%u bytes, "
			"got %zu%s",
			v->g->path, id, VQ_TOKEN_MAX_BYTES, n,
			n && n <= VQ_TOKEN_MAX_BYTES ? " with a zero byte" : "");
	vq_spm_piece(model, s, n, score, (enum vq_piece_type)type);
	return VQ_OK;
}

/* Embeddings have more rows than there are tokens; converters fill the list up with unused ones. */
static uint32_t used(const struct vq_gguf_vocab_keys *v)
{
	uint32_t n = v->n;

	while (n > 0 && vq_gguf_token_type(v, n - 1) == VQ_PIECE_UNUSED)
		n--;
	return n;
}

static int make_spm(struct vq_str *model, const struct vq_gguf_vocab_keys *v, struct vq_err *err)
{
	struct spm m = {.v = *v};
	struct vq_spm_spec spec = {0};
	const uint8_t *p = v->tokens->p;
	uint32_t n = used(v), id, bytes = 0;
	int rc = vq_gguf_token_array(v, "tokenizer.ggml.scores", VQ_GGUF_F32, &m.scores, err);

	if (rc == VQ_OK)
		rc = read_spec(v, &spec, err);

	for (id = 0; rc == VQ_OK && id < n; id++) {
		bytes += vq_gguf_token_type(v, id) == VQ_PIECE_BYTE;
		rc = put_token(model, &m, id, &p, err);
	}
	spec.byte_fallback = bytes >= 256;
	vq_spm_end(model, &spec);
	return rc;
}

/* --- tokenizer_config.json --- */

/* Tokens that the user defined are found in running text, as the engine does, and printed. */
static int put_added(json_t *o, const struct vq_gguf_vocab_keys *v, struct vq_err *err)
{
	json_t *added = json_object(), *e;
	const uint8_t *p = v->tokens->p;
	char key[16];
	uint32_t id;
	int rc = added ? VQ_OK : VQ_E_SYS;

	for (id = 0; rc == VQ_OK && id < v->n; id++) {
		size_t n;
		const char *s = vq_gguf_next_text(&p, &n);

		if (vq_gguf_token_type(v, id) != VQ_PIECE_USER)
			continue;
		snprintf(key, sizeof(key), "%u", id);
		e = json_pack("{s:o, s:b}", "content", json_stringn(s, n), "special", 0);
		if (!e || json_object_set_new(added, key, e) < 0)
			rc = vq_fail(err, VQ_E_DATA,
				     "%s: key 'tokenizer.ggml.tokens': token %u is no UTF-8",
				     v->g->path, id);
	}
	if (rc == VQ_OK && json_object_set(o, "added_tokens_decoder", added) < 0)
		rc = VQ_E_SYS;
	json_decref(added);
	return rc;
}

static int put_template(json_t *o, const struct vq_gguf_file *g, struct vq_err *err)
{
	static const char key[] = "tokenizer.chat_template";
	char *text = NULL;
	int rc = vq_gguf_get_text(g, key, &text, err);

	if (rc > 0 && json_object_set_new(o, "chat_template", json_string(text)) < 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: key '%s' is no UTF-8", g->path, key);
	vq_free(text);
	return rc < 0 ? rc : VQ_OK;
}

/* tokenizer.json has the added tokens itself. */
static int make_settings(struct vq_str *out, const struct vq_gguf_vocab_keys *v, int bytes,
			 struct vq_err *err)
{
	json_t *o = json_object();
	char *text = NULL;
	int rc = !o ? VQ_E_SYS : bytes ? VQ_OK : put_added(o, v, err);

	if (rc == VQ_OK)
		rc = put_template(o, v->g, err);
	if (rc == VQ_OK) {
		text = vq_json_text(o, err);
		rc = text ? VQ_OK : VQ_E_SYS;
	}
	if (text)
		vq_str_puts(out, text);
	vq_free(text);
	json_decref(o);
	return rc;
}

/* --- files --- */

/* Which kind it is: 1 for gpt2 (byte-level BPE), 0 for llama (SentencePiece). */
static int read_kind(const struct vq_gguf_file *g, struct vq_err *err)
{
	static const char key[] = "tokenizer.ggml.model";
	char *kind = NULL;
	int rc = vq_gguf_get_text(g, key, &kind, err), bytes = 0;

	if (rc == 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: key '%s' is missing; want a file with a tokenizer", g->path,
			       key);
	if (rc < 0)
		return rc;
	bytes = strcmp(kind, "gpt2") == 0;
	rc = bytes;
	if (!bytes && strcmp(kind, "llama") != 0)
		rc = vq_fail(
			err, VQ_E_DATA,
			"%s: key '%s': want llama (SentencePiece) or gpt2 (byte-level BPE), got "
			"'%.32s'",
			g->path, key, kind);
	vq_free(kind);
	return rc;
}

int vq_gguf_tokenizer_check(const struct vq_gguf_file *g, struct vq_err *err)
{
	int bytes = read_kind(g, err);

	return bytes > 0 ? vq_gguf_check_bpe(g, err) : bytes;
}

int vq_gguf_tokenizer_file(const struct vq_gguf_file *g, const char *name, char **data, size_t *n,
			   struct vq_err *err)
{
	int settings = strcmp(name, "tokenizer_config.json") == 0, bytes, rc;
	struct vq_gguf_vocab_keys v = {0};
	struct vq_str out = {0};

	if (!settings && strcmp(name, "tokenizer.model") != 0 &&
	    strcmp(name, "tokenizer.json") != 0)
		return 0;
	bytes = read_kind(g, err);
	if (bytes < 0 || (!settings && bytes != (strcmp(name, "tokenizer.json") == 0)))
		return bytes < 0 ? bytes : 0;
	rc = open_vocab(&v, g, err);
	if (rc == VQ_OK)
		rc = settings ? make_settings(&out, &v, bytes, err)
		     : bytes  ? vq_gguf_make_bpe(&out, &v, err)
			      : make_spm(&out, &v, err);
	if (rc < 0) {
		vq_str_free(&out);
		return rc;
	}
	return vq_gguf_give(&out, data, n, err);
}
