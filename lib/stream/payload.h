/* Decoding the payload of a record, piece by piece. */
#ifndef VQ_STREAM_PAYLOAD_H
#define VQ_STREAM_PAYLOAD_H

#include <xxhash.h>
#include <zstd.h>

#include "stream/frame.h"
#include "stream/source.h"

#define VQ_PIECE ((size_t)1 << 20) /* a multiple of every block and plane group */

struct vq_payload {
	struct vq_source *src;       /* borrowed */
	const struct vq_record *rec; /* borrowed */
	uint64_t raw_left, stored_left;
	size_t width; /* of byte planes, 0 without */
	int done;     /* the zstd frame is at its end */
	XXH64_state_t *hash;
	ZSTD_DCtx *dctx;
	uint8_t *scratch; /* a group of planes */
};

void vq_payload_free(struct vq_payload *p);

/* The three steps of a payload.  some: the next n raw bytes, n a multiple of VQ_PIECE or all that is left.
 * end: the frame ends here and the hash is right.  Errors name the record. */
VQ_MUST_CHECK int vq_payload_begin(struct vq_payload *p, struct vq_source *src,
				   const struct vq_record *rec, struct vq_err *err);
VQ_MUST_CHECK int vq_payload_some(struct vq_payload *p, uint8_t *dst, size_t n, struct vq_err *err);
VQ_MUST_CHECK int vq_payload_end(struct vq_payload *p, struct vq_err *err);

/* "LABEL: record 7 'NAME': the input ends within its payload", VQ_E_DATA. */
int vq_payload_cut(const struct vq_payload *p, struct vq_err *err);

#endif
