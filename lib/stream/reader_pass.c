/* Passing a record on to a writer as it comes, without unpacking what is packed. */
#include "base/mem.h"
#include "stream/reader_parts.h"
#include "stream/writer_raw.h"

/* Stored payloads are checked in full, since their hash costs less than their copy. */
static int pass_stored(struct vq_reader *r, struct vq_writer *w, struct vq_err *err)
{
	uint8_t *piece = vq_alloc(VQ_PIECE, 1, err);
	uint64_t left = r->rec.raw_bytes;
	size_t n;
	int rc = piece ? vq_reader_begin(r, err) : VQ_E_SYS;

	if (rc == VQ_OK)
		rc = vq_writer_head(w, &r->rec, r->frame, r->frame_n, err);
	do {
		n = left < VQ_PIECE ? (size_t)left : VQ_PIECE;
		if (rc == VQ_OK)
			rc = vq_payload_some(&r->payload, piece, n, err);
		if (rc == VQ_OK)
			rc = vq_writer_blocks(w, piece, n, n == left, err);
		left -= n;
	} while (rc == VQ_OK && left > 0);
	if (rc == VQ_OK)
		rc = vq_payload_end(&r->payload, err);
	vq_free(piece);
	return rc;
}

static int pass_frame(struct vq_reader *r, struct vq_writer *w, struct vq_err *err)
{
	uint64_t left = r->rec.stored_bytes;
	const uint8_t *p;
	uint8_t head[18];
	size_t n = left < sizeof(head) ? (size_t)left : sizeof(head);
	int rc = vq_source_read(&r->src, head, n, err);

	r->unread = 0;
	r->payload.src = &r->src;
	r->payload.rec = &r->rec;
	if (rc > 0 && ZSTD_getFrameContentSize(head, n) != r->rec.raw_bytes)
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: record %llu '%s': its frame does not state %llu bytes", r->label,
			     (unsigned long long)r->rec.index, r->rec.name,
			     (unsigned long long)r->rec.raw_bytes);
	if (rc <= 0)
		return rc < 0 ? rc : vq_payload_cut(&r->payload, err);
	rc = vq_writer_head(w, &r->rec, r->frame, r->frame_n, err);
	if (rc == VQ_OK)
		rc = vq_writer_bytes(w, head, n, err);
	for (left -= n; rc == VQ_OK && left > 0; left -= n) {
		rc = vq_source_some(&r->src, left, &p, &n, err);
		if (rc <= 0)
			return rc < 0 ? rc : vq_payload_cut(&r->payload, err);
		rc = vq_writer_bytes(w, p, n, err);
	}
	return rc;
}

/* A pipe carries stored payloads; a file that is written from it is to be small all the same. */
static int pass_packing(struct vq_reader *r, struct vq_writer *w, struct vq_err *err)
{
	void *buf = NULL;
	int rc = vq_reader_whole(r, &buf, err);

	if (rc == VQ_OK)
		rc = vq_writer_record(w, &r->rec, r->attrs, r->attr_n, buf, err);
	vq_free(buf);
	return rc;
}

int vq_reader_pass(struct vq_reader *r, struct vq_writer *w, struct vq_err *err)
{
	int rc;

	if (r->fetched || r->loaded)
		return vq_reader_no_payload(r, err);
	if (r->failed < 0 || !r->unread)
		return vq_reader_begin(r, err);
	if (r->rec.codec == VQ_CODEC_STORED && vq_writer_packs(w))
		rc = pass_packing(r, w, err);
	else if (r->rec.codec == VQ_CODEC_STORED)
		rc = pass_stored(r, w, err);
	else
		rc = pass_frame(r, w, err);
	if (rc < 0)
		r->failed = rc;
	return rc;
}
