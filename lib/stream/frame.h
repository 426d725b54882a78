/* Bytes of a stream's frames, for the reader and the writer only.  vqlm-stream(5) is the format; all
 * numbers are little-endian, all hashes XXH64 with seed 0. */
#ifndef VQ_STREAM_FRAME_H
#define VQ_STREAM_FRAME_H

#include "stream/record.h"

#define VQ_SKIP_MAGIC   0x184D2A56u /* of a zstd skippable frame */
#define VQ_TAG_BYTES    8
#define VQ_TAG_HEAD     "VQLMHEAD"
#define VQ_TAG_RECORD   "VQLMRECD"
#define VQ_TAG_END      "VQLMEND."
#define VQ_SKIP_BYTES   8  /* magic and size before a skippable frame's content */
#define VQ_HEAD_BYTES   16 /* content of a stream header before its JSON */
#define VQ_RECORD_BYTES 56 /* content of a record header before its dimensions */
#define VQ_END_BYTES    40 /* content of an end record */

#define VQ_JSON_MAX    (1u << 20) /* bytes of the stream header's JSON, and of attributes */
#define VQ_RAW_MAX     ((uint64_t)1 << 40) /* bytes of a payload */
#define VQ_RECORDS_MAX ((uint64_t)1 << 20) /* records of a segment */

enum vq_codec {
	VQ_CODEC_STORED = 0, /* a zstd frame of raw blocks laid out as below */
	VQ_CODEC_ZSTD = 1,   /* any zstd frame */
	VQ_CODEC_PLANES = 2, /* a zstd frame of the byte planes (planes.h) */
	VQ_N_CODECS
};

/* A stored payload: VQ_STORED_HEAD bytes of zstd frame header, then raw blocks of VQ_BLOCK bytes (the last
 * one shorter, or empty), each after VQ_BLOCK_HEAD bytes of block header.  RFC 8878, 3.1.1. */
#define VQ_BLOCK       131072u
#define VQ_BLOCK_HEAD  3
#define VQ_STORED_HEAD 14

void vq_put_u32(uint8_t *p, uint32_t v);
void vq_put_u64(uint8_t *p, uint64_t v);
uint32_t vq_get_u32(const uint8_t *p);
uint64_t vq_get_u64(const uint8_t *p);

uint64_t vq_stored_bytes(uint64_t raw_bytes);
void vq_stored_head(uint8_t out[VQ_STORED_HEAD], uint64_t raw_bytes);
void vq_block_head(uint8_t out[VQ_BLOCK_HEAD], uint32_t n, int last);

/* Is a name one that may stand in a stream: 1..VQ_NAME_MAX bytes of printable ASCII without blanks? */
int vq_name_ok(const char *name, size_t n);

/* Payload bytes that the type and dimensions say; VQ_E_DATA when they are over the limits. */
VQ_MUST_CHECK int vq_record_raw(const struct vq_record *rec, uint64_t *raw_bytes);

/* Whole skippable frames.  Given: vq_free(*out).  The record's attributes come as text (attr_n 0: none);
 * codec, sizes and hash are taken from rec. */
VQ_MUST_CHECK int vq_head_encode(const json_t *header, uint8_t **out, size_t *n,
				 struct vq_err *err);
VQ_MUST_CHECK int vq_record_encode(const struct vq_record *rec, const char *attrs, size_t attr_n,
				   uint8_t **out, size_t *n, struct vq_err *err);
void vq_end_encode(uint8_t out[VQ_SKIP_BYTES + VQ_END_BYTES], uint64_t n_records,
		   uint64_t raw_bytes, uint64_t hash);

/* The content of a record header, checked against every limit; rec->attrs is given (json_decref).
 * *attrs points into p.  where: "stdin: record 7". */
VQ_MUST_CHECK int vq_record_decode(struct vq_record *rec, const uint8_t *p, size_t n,
				   const char **attrs, size_t *attr_n, const char *where,
				   struct vq_err *err);

/* The largest content that a frame with this tag may have; 0 for an unknown tag. */
size_t vq_frame_limit(const uint8_t *tag);

#endif
