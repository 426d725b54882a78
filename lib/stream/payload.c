/* Decoding payloads. */
#include "stream/payload.h"

#include <string.h>

#include "base/mem.h"
#include "stream/planes.h"

#define BATCH 8 /* blocks read at once: 1 MiB stays in the cache until it is hashed */

void vq_payload_free(struct vq_payload *p)
{
	ZSTD_freeDCtx(p->dctx);
	XXH64_freeState(p->hash);
	vq_free(p->scratch);
	memset(p, 0, sizeof(*p));
}

static int bad(const struct vq_payload *p, struct vq_err *err, const char *what, const char *more)
{
	return vq_fail(err, VQ_E_DATA, "%s: record %llu '%s': %s%s", p->src->label,
		       (unsigned long long)p->rec->index, p->rec->name, what, more);
}

int vq_payload_cut(const struct vq_payload *p, struct vq_err *err)
{
	return bad(p, err, "the input ends within its payload", "");
}

int vq_payload_begin(struct vq_payload *p, struct vq_source *src, const struct vq_record *rec,
		     struct vq_err *err)
{
	uint8_t want[VQ_STORED_HEAD], got[VQ_STORED_HEAD];
	int rc;

	p->src = src;
	p->rec = rec;
	p->raw_left = rec->raw_bytes;
	p->stored_left = rec->stored_bytes;
	p->width = rec->codec == VQ_CODEC_PLANES ? vq_planes_width(rec->dtype) : 0;
	p->done = 0;
	if (!p->hash)
		p->hash = XXH64_createState();
	if (!p->hash || XXH64_reset(p->hash, 0) != XXH_OK)
		return vq_fail(err, VQ_E_SYS, "memory: cannot hash");
	if (rec->codec >= VQ_N_CODECS || (rec->codec == VQ_CODEC_PLANES && !p->width))
		return bad(p, err, "unknown codec", ": written by a newer program?");
	if (rec->codec == VQ_CODEC_STORED) {
		rc = vq_source_read(src, got, sizeof(got), err);
		if (rc <= 0)
			return rc < 0 ? rc : vq_payload_cut(p, err);
		vq_stored_head(want, rec->raw_bytes);
		p->stored_left -= sizeof(got);
		return memcmp(want, got, sizeof(got)) == 0
			       ? VQ_OK
			       : bad(p, err, "its stored frame has a wrong header", "");
	}
	if (!p->dctx)
		p->dctx = ZSTD_createDCtx();
	if (p->width && !p->scratch)
		p->scratch = vq_alloc(VQ_PLANE_GROUP, 4, err);
	if (!p->dctx || (p->width && !p->scratch))
		return vq_fail(err, VQ_E_SYS, "memory: cannot decompress");
	ZSTD_DCtx_reset(p->dctx, ZSTD_reset_session_only);
	return VQ_OK;
}

/* Up to BATCH raw blocks straight into dst; their headers are known beforehand. */
static int stored_batch(struct vq_payload *p, uint8_t *dst, size_t n, struct vq_err *err)
{
	uint8_t want[VQ_BLOCK_HEAD], got[BATCH][VQ_BLOCK_HEAD];
	struct iovec iov[2 * BATCH];
	size_t at = 0, m;
	int k = 0, i, rc;

	do {
		m = n - at < VQ_BLOCK ? n - at : VQ_BLOCK;
		iov[2 * k] = (struct iovec){got[k], VQ_BLOCK_HEAD};
		iov[2 * k + 1] = (struct iovec){dst + at, m};
		at += m;
		k++;
	} while (at < n);
	rc = vq_source_scatter(p->src, iov, 2 * k, err);
	if (rc <= 0)
		return rc < 0 ? rc : vq_payload_cut(p, err);
	for (i = 0; i < k; i++) {
		int last = i == k - 1 && p->raw_left == n;

		m = i == k - 1 ? n - (size_t)i * VQ_BLOCK : VQ_BLOCK;
		vq_block_head(want, (uint32_t)m, last);
		if (memcmp(want, got[i], VQ_BLOCK_HEAD) != 0)
			return bad(p, err, "its stored frame is damaged", " (block header)");
	}
	p->stored_left -= n + (size_t)k * VQ_BLOCK_HEAD;
	p->done = p->raw_left == n;
	return VQ_OK;
}

/* Decompresses until dst is full, or with n = 0 to the end of the frame. */
static int inflate(struct vq_payload *p, uint8_t *dst, size_t n, struct vq_err *err)
{
	ZSTD_outBuffer out = {dst, n, 0};
	const uint8_t *b;
	size_t m, r;
	int rc;

	while (n == 0 ? !p->done : out.pos < n) {
		ZSTD_inBuffer in = {NULL, 0, 0};

		if (p->done)
			return bad(p, err, "its frame ends before its payload", "");
		if (p->stored_left > 0) {
			rc = vq_source_some(p->src, p->stored_left, &b, &m, err);
			if (rc <= 0)
				return rc < 0 ? rc : vq_payload_cut(p, err);
			in = (ZSTD_inBuffer){b, m, 0};
		}
		r = ZSTD_decompressStream(p->dctx, &out, &in);
		if (ZSTD_isError(r))
			return bad(p, err, "its frame is damaged: ", ZSTD_getErrorName(r));
		p->done = r == 0;
		if (in.pos == 0 && p->stored_left == 0 && !p->done && out.pos < (n ? n : 1))
			return bad(p, err, "its frame is longer than its header says", "");
		p->stored_left -= in.pos;
		p->src->at -= in.size - in.pos; /* what it did not take is still unread */
	}
	return VQ_OK;
}

static int planes(struct vq_payload *p, uint8_t *dst, size_t n, struct vq_err *err)
{
	size_t group = VQ_PLANE_GROUP * p->width, m;
	int rc = VQ_OK;

	for (; n > 0 && rc == VQ_OK; dst += m, n -= m) {
		m = n < group ? n : group;
		rc = inflate(p, p->scratch, m, err);
		if (rc == VQ_OK)
			vq_planes_merge(dst, p->scratch, m / p->width, p->width);
	}
	return rc;
}

int vq_payload_some(struct vq_payload *p, uint8_t *dst, size_t n, struct vq_err *err)
{
	size_t m;
	int rc;

	for (; n > 0; dst += m, n -= m) {
		m = n < BATCH * VQ_BLOCK ? n : BATCH * VQ_BLOCK;
		if (p->rec->codec == VQ_CODEC_STORED)
			rc = stored_batch(p, dst, m, err);
		else
			rc = p->width ? planes(p, dst, m, err) : inflate(p, dst, m, err);
		if (rc < 0)
			return rc;
		(void)XXH64_update(p->hash, dst, m); /* fails for NULL only */
		p->raw_left -= m;
	}
	return VQ_OK;
}

int vq_payload_end(struct vq_payload *p, struct vq_err *err)
{
	uint8_t none[1];
	int rc = VQ_OK;

	if (!p->done && p->rec->codec == VQ_CODEC_STORED)
		rc = stored_batch(p, none, 0, err); /* the one empty block of an empty payload */
	else if (!p->done)
		rc = inflate(p, none, 0, err);
	if (rc < 0)
		return rc;
	if (p->stored_left != 0)
		return bad(p, err, "its frame is shorter than its header says", "");
	if (XXH64_digest(p->hash) != p->rec->hash)
		return bad(p, err, "its payload is damaged (hash differs)", "");
	return VQ_OK;
}
