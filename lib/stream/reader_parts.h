/* What reader.c and reader_pass.c share. */
#ifndef VQ_STREAM_READER_PARTS_H
#define VQ_STREAM_READER_PARTS_H

#include "base/worker.h"
#include "stream/nameset.h"
#include "stream/payload.h"
#include "stream/reader.h"

struct vq_reader {
	struct vq_source src;
	char *label;
	json_t *header;
	int in_segment, any; /* within a segment; one was opened */
	int failed;          /* the first error; nothing is read after it */
	struct vq_nameset names;
	XXH64_state_t *hash; /* over the record headers of the segment */
	uint64_t n_records, raw_bytes;

	struct vq_record rec;
	int unread;     /* rec's payload is still in the input */
	uint8_t *frame; /* content of the frame read last */
	size_t frame_n, frame_room;
	const char *attrs; /* text of rec's attributes, in frame */
	size_t attr_n;
	struct vq_payload payload;

	/* While the worker is at work, all that is above is its own, but for label and header. */
	struct vq_worker *ahead; /* NULL: nothing is read ahead */
	uint32_t kinds;          /* whose payloads are loaded */
	int fetched;             /* rec is the next record, not yet given out: next_rc, next_err */
	int next_rc, load_rc;
	struct vq_err next_err, load_err;
	int loaded; /* rec's payload has been loaded into data: load_rc, load_err */
	void *data;
	json_t *lent; /* attributes of the record given out, when rec is the next one */
};

/* Opens the payload of the current record, once. */
VQ_MUST_CHECK int vq_reader_begin(struct vq_reader *r, struct vq_err *err);

/* The whole payload from the input, not from what was loaded ahead.  *buf is given. */
VQ_MUST_CHECK int vq_reader_whole(struct vq_reader *r, void **buf, struct vq_err *err);

/* Fails: there is no payload to be read here. */
VQ_MUST_CHECK int vq_reader_no_payload(const struct vq_reader *r, struct vq_err *err);

#endif
