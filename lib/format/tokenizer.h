/* Tokenizers, with added tokens: SentencePiece BPE with byte fallback, from tokenizer.json or tokenizer.model, and
 * byte-level BPE from tokenizer.json. */
#ifndef VQ_FORMAT_TOKENIZER_H
#define VQ_FORMAT_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct vq_tokenizer;

/* From the bytes of tokenizer.json or tokenizer.model (told apart by their first byte).  added_json: the
 * bytes of tokenizer_config.json, or of added_tokens.json, or NULL: added tokens that the first lacks, the
 * names of the beginning and end tokens, and for tokenizer.model whether it is used the legacy way.  A byte-level
 * tokenizer has a beginning token only where its post-processor puts one.
 * Other kinds (Unigram, WordPiece) are VQ_E_DATA naming the kind. */
VQ_MUST_CHECK int vq_tokenizer_new(struct vq_tokenizer **out, const char *data, size_t n,
				   const char *label, const char *added_json, size_t added_n,
				   struct vq_err *err);
void vq_tokenizer_free(struct vq_tokenizer *t);

/* Token ids of UTF-8 text; a byte that is no UTF-8 counts as U+FFFD.  Added tokens are split out first,
 * the longest first; each stretch between them gets its own dummy prefix (the legacy behaviour of LLaMA
 * tokenizers, which llava-hf keeps) unless the file says otherwise.  bos: put the beginning token first,
 * when there is one.  *ids is given.  O(n log n); a byte-level tokenizer's pattern that backtracks without end is
 * VQ_E_DATA. */
VQ_MUST_CHECK int vq_tokenizer_encode(const struct vq_tokenizer *t, const char *text, size_t n,
				      int bos, int32_t **ids, size_t *n_ids, struct vq_err *err);

/* Text of ids, special tokens left out; the leading space of the first piece is dropped.  Always valid
 * UTF-8: byte tokens that make no character become U+FFFD.  Ids out of range are left out.  Given. */
char *vq_tokenizer_decode(const struct vq_tokenizer *t, const int32_t *ids, size_t n,
			  struct vq_err *err);

/* Bytes of one token as it stands in a text ("▁A" -> " A", "<0x0A>" -> "\n", special -> ""), for printing
 * tokens as they come; of a byte-level token perhaps part of a character.  Borrowed; *n its length. */
const char *vq_tokenizer_piece(const struct vq_tokenizer *t, int32_t id, size_t *n);

/* The same text as it comes: zero-initialise, push each token, end.  A character that is still incomplete
 * is held back, so what was appended to out so far is always valid UTF-8. */
struct vq_token_stream {
	char held[4];
	uint32_t n_held;
	int started; /* the first piece has gone out */
	int bytes;   /* the tokenizer is byte-level */
};

void vq_token_stream_push(struct vq_token_stream *s, const struct vq_tokenizer *t, int32_t id,
			  struct vq_str *out);
void vq_token_stream_end(struct vq_token_stream *s, struct vq_str *out);

/* Id of a token by its content in the vocabulary ("▁A", "<image>"), or -1. */
int32_t vq_tokenizer_id(const struct vq_tokenizer *t, const char *content);

uint32_t vq_tokenizer_size(const struct vq_tokenizer *t); /* largest id + 1 */
int32_t vq_tokenizer_bos(const struct vq_tokenizer *t);   /* -1 when there is none */
int32_t vq_tokenizer_eos(const struct vq_tokenizer *t);
int vq_tokenizer_prefixes(
	const struct vq_tokenizer *t); /* 1: a text gets a space of its own in front */

#endif
