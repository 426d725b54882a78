/* Writing a stream. */
#ifndef VQ_STREAM_WRITER_H
#define VQ_STREAM_WRITER_H

#include "stream/record.h"

struct vq_writer;

#define VQ_LEVEL_STORE 0  /* stored frames: inside pipes */
#define VQ_LEVEL_AUTO  -1 /* 0 into a pipe, 1 (with byte planes) into a file */

/* fd is kept (not closed).  Refuses a terminal with VQ_E_USAGE.  level 0..19 or VQ_LEVEL_AUTO. */
VQ_MUST_CHECK int vq_writer_open(struct vq_writer **out, int fd, const char *label, int level,
				 struct vq_err *err);
void vq_writer_close(struct vq_writer *w); /* does not write the end record; NULL is fine */

/* Opens a segment. header is borrowed. */
VQ_MUST_CHECK int vq_writer_begin(struct vq_writer *w, const json_t *header, struct vq_err *err);

/* One record: kind, name, dtype, dims and attrs of rec; data of exactly the size that they say. */
VQ_MUST_CHECK int vq_writer_put(struct vq_writer *w, const struct vq_record *rec, const void *data,
				struct vq_err *err);

/* Short forms.  attrs may be NULL and is borrowed. */
VQ_MUST_CHECK int vq_writer_put_tensor(struct vq_writer *w, uint32_t kind, const char *name,
				       const struct vq_tensor *t, json_t *attrs,
				       struct vq_err *err);
VQ_MUST_CHECK int vq_writer_put_json(struct vq_writer *w, uint32_t kind, const char *name,
				     const json_t *j, struct vq_err *err);
VQ_MUST_CHECK int vq_writer_put_bytes(struct vq_writer *w, uint32_t kind, const char *name,
				      const void *data, size_t n, struct vq_err *err);

/* The end record; only after success. */
VQ_MUST_CHECK int vq_writer_end(struct vq_writer *w, struct vq_err *err);

#endif
