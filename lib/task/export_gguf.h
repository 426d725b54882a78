/* Parts of vqlm-export --to gguf. */
#ifndef VQ_TASK_EXPORT_GGUF_H
#define VQ_TASK_EXPORT_GGUF_H

#include "format/gguf_write.h"
#include "task/export_parts.h"

#define VQ_EXPORT_GGUF_TEXT   "model.gguf"
#define VQ_EXPORT_GGUF_VISION "mmproj.gguf"

/* The name of a tensor there; *vision: in the second file.  *heads: rows of so many heads are permuted, 0: none are. */
VQ_MUST_CHECK int vq_export_gguf_name(const struct vq_export *x, const char *canonical, char *buf,
				      size_t room, int *vision, uint32_t *heads);

/* Keys of both files (export_gguf_keys.c). */
VQ_MUST_CHECK int vq_export_gguf_text(struct vq_gguf *g, const struct vq_export *x,
				      struct vq_err *err);
VQ_MUST_CHECK int vq_export_gguf_vision(struct vq_gguf *g, const struct vq_export *x,
					struct vq_err *err);

/* Rows of a tensor in the order and type of the file. */
struct vq_export_rows {
	const struct vq_export_item *item;
	struct vq_export_tensor *t;
	enum vq_ggml_type type;
	uint32_t n_rows, n_cols, heads;
	uint8_t *codes; /* [n_rows, n_cols], and the grid [n_rows, n_cols / 32]; NULL for floats */
	uint16_t *scale;
	uint8_t *zero;
};

VQ_MUST_CHECK int vq_export_rows_open(struct vq_export_rows *r, const struct vq_export_item *item,
				      struct vq_export_tensor *t, uint32_t heads,
				      struct vq_err *err);
void vq_export_rows_close(struct vq_export_rows *r);
/* The type of an item in the file; t: its floats' type. */
enum vq_ggml_type vq_export_rows_type(const struct vq_export_item *i, enum vq_dtype t);
/* Row o of the file into out. */
VQ_MUST_CHECK int vq_export_rows_make(const struct vq_export_rows *r, uint32_t o, uint8_t *out,
				      float *tmp /* [n_cols] */, struct vq_err *err);

/* Both files (export_gguf.c). */
VQ_MUST_CHECK int vq_export_gguf(struct vq_export *x, struct vq_err *err);

#endif
