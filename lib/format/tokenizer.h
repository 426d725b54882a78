/* Tokenizers: SentencePiece BPE with byte fallback, from tokenizer.json or tokenizer.model, with added
 * tokens. */
#ifndef VQ_FORMAT_TOKENIZER_H
#define VQ_FORMAT_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct vq_tokenizer;

/* From the bytes of tokenizer.json or tokenizer.model (told apart by their first byte).  added_json: the
 * bytes of tokenizer_config.json, or of added_tokens.json, or NULL: added tokens that the first lacks. */
VQ_MUST_CHECK int vq_tokenizer_new(struct vq_tokenizer **out, const char *data, size_t n,
				   const char *label, const char *added_json, size_t added_n,
				   struct vq_err *err);
void vq_tokenizer_free(struct vq_tokenizer *t);

/* Token ids of UTF-8 text.  Added tokens are split out first; each stretch between them gets its own
 * dummy prefix (the legacy behaviour of LLaMA tokenizers, which llava-hf keeps).  bos: put the beginning
 * token first.  *ids is given. */
VQ_MUST_CHECK int vq_tokenizer_encode(const struct vq_tokenizer *t, const char *text, size_t n,
				      int bos, int32_t **ids, size_t *n_ids, struct vq_err *err);

/* Text of ids, special tokens left out; the leading space of the first piece is dropped.  Given. */
char *vq_tokenizer_decode(const struct vq_tokenizer *t, const int32_t *ids, size_t n,
			  struct vq_err *err);

/* Bytes of one token as it stands in a text ("▁A" -> " A", "<0x0A>" -> "\n", special -> ""), for printing
 * tokens as they come.  Borrowed; *n its length. */
const char *vq_tokenizer_piece(const struct vq_tokenizer *t, int32_t id, size_t *n);

/* Id of a token by its content in the vocabulary ("▁A", "<image>"), or -1. */
int32_t vq_tokenizer_id(const struct vq_tokenizer *t, const char *content);

uint32_t vq_tokenizer_size(const struct vq_tokenizer *t); /* largest id + 1 */
int32_t vq_tokenizer_bos(const struct vq_tokenizer *t);   /* -1 when there is none */
int32_t vq_tokenizer_eos(const struct vq_tokenizer *t);

#endif
