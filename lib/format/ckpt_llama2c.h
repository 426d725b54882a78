/* The tokenizer of a checkpoint of llama2.c, which lies beside it. */
#ifndef VQ_FORMAT_CKPT_LLAMA2C_H
#define VQ_FORMAT_CKPT_LLAMA2C_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define VQ_LLAMA2C_BOS 1
#define VQ_LLAMA2C_EOS 2

/* A side file (vq_ckpt_file) for the checkpoint at path: 1 and its bytes (given), 0 when there is none, < 0 error.
 * tokenizer.json, tokenizer.model and their side files are those in the checkpoint's folder.  Without the first two,
 * tokenizer.model is made of llama2.c's own tokV.bin, V the size of the vocabulary, or tokenizer.bin. */
VQ_MUST_CHECK int vq_llama2c_file(const char *path, uint32_t vocab, const char *name, char **data,
				  size_t *n, struct vq_err *err);

#endif
