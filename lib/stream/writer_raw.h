/* The writer below the level of payloads, for the reader that passes records on. */
#ifndef VQ_STREAM_WRITER_RAW_H
#define VQ_STREAM_WRITER_RAW_H

#include "stream/writer.h"

int vq_writer_packs(const struct vq_writer *w); /* 1 when its level is above 0 */

/* Writes a record header whose content is given, and counts it.  Then exactly rec->stored_bytes follow
 * through vq_writer_bytes, or the payload through vq_writer_blocks. */
VQ_MUST_CHECK int vq_writer_head(struct vq_writer *w, const struct vq_record *rec,
				 const uint8_t *content, size_t n, struct vq_err *err);
VQ_MUST_CHECK int vq_writer_bytes(struct vq_writer *w, const void *p, size_t n, struct vq_err *err);

/* The raw blocks of a stored payload, after its frame header (which vq_writer_head wrote); n is a multiple
 * of VQ_BLOCK but for the last. */
VQ_MUST_CHECK int vq_writer_blocks(struct vq_writer *w, const uint8_t *p, size_t n, int last,
				   struct vq_err *err);

/* A whole record whose attributes are text already. */
VQ_MUST_CHECK int vq_writer_record(struct vq_writer *w, const struct vq_record *rec,
				   const char *attrs, size_t attr_n, const void *data,
				   struct vq_err *err);

#endif
