/* Inside the tokenizers of GGUF files: the keys that every kind has, and the kinds. */
#ifndef VQ_FORMAT_GGUF_TOK_H
#define VQ_FORMAT_GGUF_TOK_H

#include "base/str.h"
#include "format/gguf_read.h"

struct vq_gguf_vocab_keys {
	const struct vq_gguf_file *g;
	const struct vq_gguf_key *tokens, *types; /* strings and i32, n each */
	uint32_t n;
};

int vq_gguf_token_type(const struct vq_gguf_vocab_keys *v,
		       uint32_t id); /* enum vq_piece_type, or any number */

/* *id from a key; -1 when there is none, or it is none of the tokens. */
VQ_MUST_CHECK int vq_gguf_token_id(const struct vq_gguf_vocab_keys *v, const char *key, int32_t *id,
				   struct vq_err *err);

/* An array that has one number for each token. */
VQ_MUST_CHECK int vq_gguf_token_array(const struct vq_gguf_vocab_keys *v, const char *name,
				      enum vq_gguf_type item, const struct vq_gguf_key **out,
				      struct vq_err *err);

/* VQ_E_DATA unless the pattern that the kind gpt2 names is known. */
VQ_MUST_CHECK int vq_gguf_check_bpe(const struct vq_gguf_file *g, struct vq_err *err);

struct vq_tokenizer;

/* What tokenizer.ggml.pre calls the way in which a byte-level tokenizer cuts texts: VQ_E_DATA, naming label and the names
 * that there are, where it has none. */
VQ_MUST_CHECK int vq_gguf_pre_name(const char **out, const struct vq_tokenizer *t,
				   const char *label, struct vq_err *err);

/* tokenizer.json of the kind gpt2, appended to *out.  format/gguf_bpe.c */
VQ_MUST_CHECK int vq_gguf_make_bpe(struct vq_str *out, const struct vq_gguf_vocab_keys *v,
				   struct vq_err *err);

#endif
