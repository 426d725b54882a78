/* What a stream is made of: a header, records, an end record.  vqlm-stream(5) is the format. */
#ifndef VQ_STREAM_RECORD_H
#define VQ_STREAM_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "stream/tensor.h"

#define VQ_STREAM_MAJOR 1
#define VQ_STREAM_MINOR 0
#define VQ_NAME_MAX     255 /* bytes of a record name */

/* Kinds are on the wire: never renumber.  A reader passes kinds on that it does not know. */
enum vq_kind {
	VQ_KIND_META = 1,  /* model configuration (JSON) and side files (tokenizer, ...) as bytes */
	VQ_KIND_INPUT = 2, /* calibration token ids and pixels */
	VQ_KIND_STAT = 3,  /* what calib measured */
	VQ_KIND_PLAN = 4,  /* the block partition (JSON) */
	VQ_KIND_TENSOR = 5, /* a weight: floating point, or integer codes (u8, one a byte) */
	VQ_KIND_GRID = 6,   /* scales and zero points of the codes */
};

const char *vq_kind_name(uint32_t kind); /* "TENSOR"; "?" for an unknown kind */

struct vq_record {
	uint32_t kind;
	char name[VQ_NAME_MAX + 1];
	enum vq_dtype dtype;
	uint32_t n_dims;
	uint64_t dims[VQ_MAX_DIMS];
	json_t *attrs; /* an object or NULL; from a reader: borrowed until the next vq_reader_next */

	/* Set by the reader, ignored by the writer. */
	uint32_t codec;
	uint64_t raw_bytes, stored_bytes, hash; /* XXH64 of the raw payload */
	uint64_t index;                         /* position in its segment, from 0 */
};

#endif
