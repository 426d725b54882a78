/* Reading exported folders back, from the descriptions of the formats and without any of the code that wrote them. */
#ifndef VQ_TASK_EXPORT_READ_H
#define VQ_TASK_EXPORT_READ_H

#include "task/export_parts.h"

struct vq_export_read;

VQ_MUST_CHECK int vq_export_read_open(struct vq_export_read **r, const struct vq_export *x,
				      struct vq_err *err);
void vq_export_read_close(struct vq_export_read *r); /* NULL is fine */

/* A tensor as the folder has it: row() makes row o of the model, [n_in], and sets what each of its values may differ by
 * where the format's promise is not 0.  What else it holds is for row(). */
struct vq_export_seen {
	void (*row)(const struct vq_export_seen *s, uint32_t o, double *out, double *bound);
	uint32_t n_out, n_in, bits, n_groups, version, heads;
	const struct vq_tensor *floats;
	const uint32_t *w, *z;
	const int8_t *b, *bz;
	const uint16_t *s;
	const int32_t *g;
	const uint8_t *nf, *absmax;
	const float *map, *nested, *nested_map;
	double offset;
};

/* The tensor of an item; what is missing or of another type or shape: VQ_E_NO. */
VQ_MUST_CHECK int vq_export_read_find(struct vq_export_read *r, const struct vq_export_item *i,
				      struct vq_export_seen *s, struct vq_err *err);

/* The same of GGUF files (export_read_gguf.c). */
struct vq_read_gguf;
VQ_MUST_CHECK int vq_read_gguf_open(struct vq_read_gguf **r, const struct vq_export *x,
				    struct vq_err *err);
void vq_read_gguf_close(struct vq_read_gguf *r); /* NULL is fine */
VQ_MUST_CHECK int vq_read_gguf_find(struct vq_read_gguf *r, const struct vq_export_item *i,
				    struct vq_export_seen *s, struct vq_err *err);

#endif
