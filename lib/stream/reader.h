/* Reading a stream: segments of records, in order, from a pipe or a file. */
#ifndef VQ_STREAM_READER_H
#define VQ_STREAM_READER_H

#include "stream/record.h"

struct vq_reader;
struct vq_writer;

/* fd is kept (not closed by the reader); label names it in messages ("stdin", a path). */
VQ_MUST_CHECK int vq_reader_open(struct vq_reader **out, int fd, const char *label,
				 struct vq_err *err);
void vq_reader_close(struct vq_reader *r); /* NULL is fine */

/* The same when the caller has read the first n bytes of the input already (head, borrowed). */
VQ_MUST_CHECK int vq_reader_open_head(struct vq_reader **out, int fd, const char *label,
				      const void *head, size_t n, struct vq_err *err);

/* Goes to the next segment and reads its header: 1 = there is one, 0 = clean end of input, < 0 error.
 * The first call on empty input is an error (VQ_E_DATA), since an upstream tool that died leaves nothing. */
VQ_MUST_CHECK int vq_reader_segment(struct vq_reader *r, struct vq_err *err);

/* From now on, once a payload has been read or loaded, a thread of the reader's own goes to the next record, and loads its
 * payload when it is of one of these kinds (a mask of 1 << VQ_KIND_...) and of at most VQ_READER_AHEAD bytes; the
 * caller computes meanwhile.  What is reported is what would be without, except that damage to a payload that was
 * loaded ahead is reported even when the caller leaves it out.  Such a record cannot be passed on.  So many bytes more
 * are held, at most. */
#define VQ_READER_AHEAD \
	((uint64_t)160 << 20) /* the largest layer of 13B in 16 bits has 142 million */
VQ_MUST_CHECK int vq_reader_ahead(struct vq_reader *r, uint32_t kinds, struct vq_err *err);

/* The header of the current segment: {"producer", "model", "history", ...}.  Borrowed. */
const json_t *vq_reader_header(const struct vq_reader *r);

/* The next record of the segment: 1 = rec is filled, 0 = the segment's end record was seen and is right,
 * < 0 error.  Input that ends without an end record is VQ_E_DATA.  An unread payload is skipped (its
 * checksum is then not looked at). */
VQ_MUST_CHECK int vq_reader_next(struct vq_reader *r, struct vq_record *rec, struct vq_err *err);

/* The payload of the current record, decompressed and checked: into buf of exactly raw_bytes, or into a
 * new block (given; one zero byte follows the payload).  Once a record. */
VQ_MUST_CHECK int vq_reader_read(struct vq_reader *r, void *buf, struct vq_err *err);
VQ_MUST_CHECK int vq_reader_load(struct vq_reader *r, void **buf, struct vq_err *err);

/* Copies the current record to w as it is stored, without decompressing; a stored (level 0) payload's hash
 * is checked, a compressed one's frame header.  A level 0 payload that goes to a writer of a higher level
 * (a file) is compressed for it.  This is how a filter passes on what it does not know. */
VQ_MUST_CHECK int vq_reader_pass(struct vq_reader *r, struct vq_writer *w, struct vq_err *err);

const char *vq_reader_label(const struct vq_reader *r);

#endif
