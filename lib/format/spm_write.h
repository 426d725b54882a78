/* A SentencePiece model (sentencepiece_model.proto) of a BPE vocabulary that another format has: what
 * vq_tokenizer_new reads. */
#ifndef VQ_FORMAT_SPM_WRITE_H
#define VQ_FORMAT_SPM_WRITE_H

#include "base/str.h"
#include "format/token_vocab.h"

/* The next piece, by id from 0, appended to the model. */
void vq_spm_piece(struct vq_str *model, const char *s, size_t n, float score,
		  enum vq_piece_type type);

struct vq_spm_spec {
	int byte_fallback, dummy_prefix;
	int32_t unk, bos, eos; /* -1: none */
};

/* After the last piece: how it is used, and that text is taken as it comes. */
void vq_spm_end(struct vq_str *model, const struct vq_spm_spec *spec);

#endif
