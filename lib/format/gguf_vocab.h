/* A tokenizer as the keys of a GGUF file: tokens with types, and with scores as the engine's SentencePiece tokenizer reads
 * them or, of byte-level BPE, with merges and the name of the pattern that cuts texts. */
#ifndef VQ_FORMAT_GGUF_VOCAB_H
#define VQ_FORMAT_GGUF_VOCAB_H

#include "format/gguf_write.h"
#include "format/tokenizer.h"

/* Adds tokenizer.ggml.*: n tokens, the rows of the embedding; ids that the tokenizer lacks are unused ones.  Without scores
 * of its own (tokenizer.json) a piece has that of the earliest merge that makes it: -rank.  pad -1: none.  VQ_E_DATA when
 * the tokenizer has more ids than n, or a pattern without a name. */
VQ_MUST_CHECK int vq_gguf_vocab(struct vq_gguf *g, const struct vq_tokenizer *t, uint32_t n,
				int32_t bos, int32_t eos, int32_t pad, const char *label,
				struct vq_err *err);

#endif
