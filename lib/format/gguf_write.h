/* GGUF files, version 3: https://github.com/ggml-org/ggml, docs/gguf.md.  Keys and tensors are collected, the head is
 * written, then the data of each tensor in order: nothing is held but the head. */
#ifndef VQ_FORMAT_GGUF_WRITE_H
#define VQ_FORMAT_GGUF_WRITE_H

#include "base/str.h"
#include "format/ggml_block.h"

#define VQ_GGUF_ALIGN    32u
#define VQ_GGUF_NAME_MAX 63u /* bytes of a tensor's name */

/* Zero-initialise; a failed append shows when the head is written. */
struct vq_gguf {
	struct vq_str keys, tensors;
	uint64_t n_keys, n_tensors;
	uint64_t end;        /* of the tensors so far, from the start of the data */
	uint64_t done;       /* bytes of data written */
	const char *refused; /* a name that is too long; borrowed */
	int fd;
	const char *label; /* borrowed */
};

void vq_gguf_u32(struct vq_gguf *g, const char *key, uint32_t v);
void vq_gguf_f32(struct vq_gguf *g, const char *key, float v);
void vq_gguf_bool(struct vq_gguf *g, const char *key, int v);
void vq_gguf_text(struct vq_gguf *g, const char *key, const char *v);
/* Arrays; an array of strings is begun with its length and the strings follow. */
void vq_gguf_i32s(struct vq_gguf *g, const char *key, const int32_t *v, size_t n);
void vq_gguf_f32s(struct vq_gguf *g, const char *key, const float *v, size_t n);
void vq_gguf_texts(struct vq_gguf *g, const char *key, size_t n);
void vq_gguf_texts_add(struct vq_gguf *g, const char *s, size_t n);

/* dims: slowest first, as in safetensors; the file has them the other way.  name is borrowed until the head is written. */
void vq_gguf_tensor(struct vq_gguf *g, const char *name, enum vq_ggml_type type, uint32_t n_dims,
		    const uint64_t *dims);

VQ_MUST_CHECK int vq_gguf_head(struct vq_gguf *g, int fd, const char *label, struct vq_err *err);
VQ_MUST_CHECK int vq_gguf_data(struct vq_gguf *g, const void *data, size_t n, struct vq_err *err);
/* After the last byte of each tensor: fills up to the next. */
VQ_MUST_CHECK int vq_gguf_pad(struct vq_gguf *g, struct vq_err *err);
/* VQ_E_SYS unless as many bytes were written as were announced. */
VQ_MUST_CHECK int vq_gguf_end(struct vq_gguf *g, struct vq_err *err);
void vq_gguf_free(struct vq_gguf *g);

#endif
