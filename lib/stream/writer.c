/* Writing a stream. */
#include "stream/writer.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/io.h"
#include "base/mem.h"
#include "stream/frame.h"
#include "stream/nameset.h"
#include "stream/planes.h"
#include "stream/source.h"
#include "stream/writer_raw.h"

#define BATCH 32 /* blocks a system call */

struct vq_writer {
	int fd, level, in_segment;
	char *label;
	struct vq_nameset names;
	XXH64_state_t *hash; /* over the record headers of the segment */
	uint64_t n_records, raw_bytes;
	ZSTD_CCtx *cctx;
	uint8_t *packed, *group; /* a compressed payload; a group of byte planes */
	size_t packed_room;
};

static int open_level(struct vq_writer *w, int level, struct vq_err *err)
{
	struct stat st;

	if (level == VQ_LEVEL_AUTO)
		level = fstat(w->fd, &st) == 0 && S_ISREG(st.st_mode);
	w->level = level;
	if (level == 0)
		return VQ_OK;
	w->cctx = ZSTD_createCCtx();
	w->group = vq_alloc(VQ_PLANE_GROUP, 4, err);
	if (!w->cctx || !w->group)
		return vq_fail(err, VQ_E_SYS, "memory: cannot compress");
	ZSTD_CCtx_setParameter(w->cctx, ZSTD_c_compressionLevel, level);
	ZSTD_CCtx_setParameter(w->cctx, ZSTD_c_checksumFlag, 1);
	return VQ_OK;
}

int vq_writer_open(struct vq_writer **out, int fd, const char *label, int level, struct vq_err *err)
{
	struct vq_writer *w;

	if (vq_not_a_terminal(fd, "a tensor stream", label, err) < 0)
		return VQ_E_USAGE;
	w = vq_calloc(1, sizeof(*w), err);
	if (!w)
		return VQ_E_SYS;
	w->fd = fd;
	w->label = vq_strdup(label, err);
	w->hash = XXH64_createState();
	if (!w->label || !w->hash || open_level(w, level, err) < 0) {
		vq_writer_close(w);
		return vq_fail(err, VQ_E_SYS, "memory: cannot open %s", label);
	}
	vq_pipe_widen(fd);
	*out = w;
	return VQ_OK;
}

void vq_writer_close(struct vq_writer *w)
{
	if (!w)
		return;
	vq_nameset_clear(&w->names);
	XXH64_freeState(w->hash);
	ZSTD_freeCCtx(w->cctx);
	vq_free(w->packed);
	vq_free(w->group);
	vq_free(w->label);
	vq_free(w);
}

int vq_writer_packs(const struct vq_writer *w)
{
	return w->level > 0;
}

int vq_writer_bytes(struct vq_writer *w, const void *p, size_t n, struct vq_err *err)
{
	return vq_write_full(w->fd, p, n, w->label, err);
}

int vq_writer_begin(struct vq_writer *w, const json_t *header, struct vq_err *err)
{
	uint8_t *p;
	size_t n;
	int rc;

	if (w->in_segment)
		return vq_fail(err, VQ_E_SYS, "%s: a segment is open already", w->label);
	rc = vq_head_encode(header, &p, &n, err);
	if (rc < 0)
		return rc;
	rc = vq_writer_bytes(w, p, n, err);
	vq_free(p);
	w->in_segment = 1;
	w->n_records = w->raw_bytes = 0;
	vq_nameset_clear(&w->names);
	(void)XXH64_reset(w->hash, 0); /* fails for NULL only */
	return rc;
}

int vq_writer_end(struct vq_writer *w, struct vq_err *err)
{
	uint8_t p[VQ_SKIP_BYTES + VQ_END_BYTES];

	if (!w->in_segment)
		return vq_fail(err, VQ_E_SYS, "%s: no segment is open", w->label);
	w->in_segment = 0;
	vq_end_encode(p, w->n_records, w->raw_bytes, XXH64_digest(w->hash));
	return vq_writer_bytes(w, p, sizeof(p), err);
}

/* Counts a record, refusing what a reader would refuse. */
static int admit(struct vq_writer *w, const struct vq_record *rec, const uint8_t *content, size_t n,
		 struct vq_err *err)
{
	int rc;

	if (!w->in_segment)
		return vq_fail(err, VQ_E_SYS, "%s: no segment is open", w->label);
	if (w->n_records >= VQ_RECORDS_MAX)
		return vq_fail(err, VQ_E_DATA, "%s: want at most %llu records a segment", w->label,
			       (unsigned long long)VQ_RECORDS_MAX);
	rc = vq_nameset_add(&w->names, rec->name, err);
	if (rc == 0)
		return vq_fail(err, VQ_E_DATA, "%s: record '%s' comes twice", w->label, rec->name);
	if (rc < 0)
		return rc;
	(void)XXH64_update(w->hash, content, n); /* fails for NULL only */
	w->n_records++;
	w->raw_bytes += rec->raw_bytes;
	return VQ_OK;
}

static int writev_full(struct vq_writer *w, struct iovec *iov, int n, struct vq_err *err)
{
	while (n > 0) {
		ssize_t r = writev(w->fd, iov, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return vq_fail_errno(err, VQ_E_SYS, "%s: cannot write", w->label);
		while (n > 0 && (size_t)r >= iov->iov_len) {
			r -= (ssize_t)iov->iov_len;
			iov++;
			n--;
		}
		if (n > 0) {
			iov->iov_base = (uint8_t *)iov->iov_base + r;
			iov->iov_len -= (size_t)r;
		}
	}
	return VQ_OK;
}

int vq_writer_blocks(struct vq_writer *w, const uint8_t *p, size_t n, int last, struct vq_err *err)
{
	uint8_t head[BATCH][VQ_BLOCK_HEAD];
	struct iovec iov[2 * BATCH];
	size_t m;
	int k = 0, rc = VQ_OK, more = 1;

	while (rc == VQ_OK && more) {
		m = n < VQ_BLOCK ? n : VQ_BLOCK;
		n -= m;
		more = n > 0;
		vq_block_head(head[k], (uint32_t)m, last && !more);
		iov[2 * k] = (struct iovec){head[k], VQ_BLOCK_HEAD};
		iov[2 * k + 1] = (struct iovec){(void *)(uintptr_t)p, m};
		p += m;
		if (++k == BATCH || !more) {
			rc = writev_full(w, iov, 2 * k, err);
			k = 0;
		}
	}
	return rc;
}

int vq_writer_head(struct vq_writer *w, const struct vq_record *rec, const uint8_t *content,
		   size_t n, struct vq_err *err)
{
	uint8_t skip[VQ_SKIP_BYTES], stored[VQ_STORED_HEAD];
	struct iovec iov[3] = {{skip, sizeof(skip)}, {(void *)(uintptr_t)content, n}, {stored, 0}};
	int rc = admit(w, rec, content, n, err);

	if (rc < 0)
		return rc;
	vq_put_u32(skip, VQ_SKIP_MAGIC);
	vq_put_u32(skip + 4, (uint32_t)n);
	if (rec->codec == VQ_CODEC_STORED) {
		vq_stored_head(stored, rec->raw_bytes);
		iov[2].iov_len = sizeof(stored);
	}
	return writev_full(w, iov, 3, err);
}

/* --- compressing --- */

static int zstd_fail(const struct vq_writer *w, const struct vq_record *rec, size_t code,
		     struct vq_err *err)
{
	return vq_fail(err, VQ_E_SYS, "%s: record '%s': cannot compress: %s", w->label, rec->name,
		       ZSTD_getErrorName(code));
}

/* data as one zstd frame into w->packed; sets codec and stored_bytes of rec. */
static int pack(struct vq_writer *w, struct vq_record *rec, const uint8_t *data, struct vq_err *err)
{
	size_t raw = (size_t)rec->raw_bytes, width = vq_planes_width(rec->dtype), at = 0, m, r;
	size_t room = ZSTD_compressBound(raw) + 1024, group = VQ_PLANE_GROUP * width;
	ZSTD_outBuffer out;

	if (room > w->packed_room) {
		vq_free(w->packed);
		w->packed_room = 0;
		w->packed = vq_alloc(room, 1, err);
		if (!w->packed)
			return VQ_E_SYS;
		w->packed_room = room;
	}
	ZSTD_CCtx_reset(w->cctx, ZSTD_reset_session_only);
	rec->codec = width ? VQ_CODEC_PLANES : VQ_CODEC_ZSTD;
	if (!width) {
		r = ZSTD_compress2(w->cctx, w->packed, w->packed_room, data, raw);
		if (ZSTD_isError(r))
			return zstd_fail(w, rec, r, err);
		rec->stored_bytes = r;
		return VQ_OK;
	}
	out = (ZSTD_outBuffer){w->packed, w->packed_room, 0};
	r = ZSTD_CCtx_setPledgedSrcSize(w->cctx, raw);
	do {
		ZSTD_inBuffer in = {w->group, 0, 0};

		m = raw - at < group ? raw - at : group;
		vq_planes_split(w->group, data + at, m / width, width);
		at += m;
		in.size = m;
		while (!ZSTD_isError(r) && (in.pos < in.size || (at == raw && r != 0) || m == 0)) {
			r = ZSTD_compressStream2(w->cctx, &out, &in,
						 at == raw ? ZSTD_e_end : ZSTD_e_continue);
			if (r == 0 && at == raw)
				break;
			if (!ZSTD_isError(r) && out.pos == out.size)
				return vq_fail(err, VQ_E_SYS,
					       "%s: record '%s': zstd passed its bound", w->label,
					       rec->name);
		}
	} while (!ZSTD_isError(r) && at < raw);
	if (ZSTD_isError(r))
		return zstd_fail(w, rec, r, err);
	rec->stored_bytes = out.pos;
	return VQ_OK;
}

int vq_writer_record(struct vq_writer *w, const struct vq_record *given, const char *attrs,
		     size_t attr_n, const void *data, struct vq_err *err)
{
	struct vq_record rec = *given;
	uint8_t *frame = NULL;
	size_t n;
	int rc;

	rec.hash = XXH64(data ? data : "", (size_t)rec.raw_bytes, 0);
	rec.codec = VQ_CODEC_STORED;
	rec.stored_bytes = vq_stored_bytes(rec.raw_bytes);
	rc = w->level > 0 ? pack(w, &rec, data, err) : VQ_OK;
	if (rc == VQ_OK)
		rc = vq_record_encode(&rec, attrs, attr_n, &frame, &n, err);
	if (rc == VQ_OK)
		rc = vq_writer_head(w, &rec, frame + VQ_SKIP_BYTES, n - VQ_SKIP_BYTES, err);
	if (rc == VQ_OK && rec.codec == VQ_CODEC_STORED)
		rc = vq_writer_blocks(w, data, (size_t)rec.raw_bytes, 1, err);
	else if (rc == VQ_OK)
		rc = vq_writer_bytes(w, w->packed, (size_t)rec.stored_bytes, err);
	vq_free(frame);
	return rc;
}

int vq_writer_put(struct vq_writer *w, const struct vq_record *given, const void *data,
		  struct vq_err *err)
{
	struct vq_record rec = *given;
	char *attrs = NULL, shape[256];
	size_t n = 0;
	int rc;

	if (!vq_name_ok(rec.name, strnlen(rec.name, sizeof(rec.name))))
		return vq_fail(err, VQ_E_DATA,
			       "%s: '%.255s' cannot name a record: want 1..%d bytes of printable "
			       "ASCII without blanks",
			       w->label, rec.name, VQ_NAME_MAX);
	if (vq_record_raw(&rec, &rec.raw_bytes) < 0)
		return vq_fail(err, VQ_E_DATA, "%s: record '%s': %s %s is over the limits",
			       w->label, rec.name, vq_dtype_name(rec.dtype),
			       vq_shape_text(rec.n_dims <= VQ_MAX_DIMS ? rec.n_dims : 0, rec.dims,
					     shape, sizeof(shape)));
	if (rec.attrs) {
		attrs = vq_json_text(rec.attrs, err);
		if (!attrs)
			return VQ_E_SYS;
		n = strlen(attrs);
	}
	if (n > VQ_JSON_MAX)
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: record '%s': want attributes of at most %u bytes, got %zu",
			     w->label, rec.name, VQ_JSON_MAX, n);
	else
		rc = vq_writer_record(w, &rec, attrs, n, data, err);
	vq_free(attrs);
	return rc;
}

static int set_name(const struct vq_writer *w, struct vq_record *rec, const char *name,
		    struct vq_err *err)
{
	size_t n = strlen(name);

	if (n > VQ_NAME_MAX)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want a record name of at most %d bytes, got %zu", w->label,
			       VQ_NAME_MAX, n);
	memcpy(rec->name, name, n + 1);
	return VQ_OK;
}

int vq_writer_put_tensor(struct vq_writer *w, uint32_t kind, const char *name,
			 const struct vq_tensor *t, json_t *attrs, struct vq_err *err)
{
	struct vq_record rec = {.kind = kind, .dtype = t->dtype, .n_dims = t->n_dims};

	if (set_name(w, &rec, name, err) < 0)
		return VQ_E_DATA;
	memcpy(rec.dims, t->dims, sizeof(rec.dims));
	rec.attrs = attrs;
	return vq_writer_put(w, &rec, t->data, err);
}

int vq_writer_put_bytes(struct vq_writer *w, uint32_t kind, const char *name, const void *data,
			size_t n, struct vq_err *err)
{
	struct vq_record rec = {.kind = kind, .dtype = VQ_BYTES, .n_dims = 1, .dims = {n}};

	if (set_name(w, &rec, name, err) < 0)
		return VQ_E_DATA;
	return vq_writer_put(w, &rec, data, err);
}

int vq_writer_put_json(struct vq_writer *w, uint32_t kind, const char *name, const json_t *j,
		       struct vq_err *err)
{
	char *text = vq_json_text(j, err);
	int rc;

	if (!text)
		return VQ_E_SYS;
	rc = vq_writer_put_bytes(w, kind, name, text, strlen(text), err);
	vq_free(text);
	return rc;
}
