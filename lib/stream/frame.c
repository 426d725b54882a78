/* Encoding and decoding of frames. */
#include "stream/frame.h"

#include <string.h>
#include <xxhash.h>

#include "base/mem.h"

void vq_put_u32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
	p[2] = (uint8_t)(v >> 16);
	p[3] = (uint8_t)(v >> 24);
}

void vq_put_u64(uint8_t *p, uint64_t v)
{
	vq_put_u32(p, (uint32_t)v);
	vq_put_u32(p + 4, (uint32_t)(v >> 32));
}

uint32_t vq_get_u32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint64_t vq_get_u64(const uint8_t *p)
{
	return vq_get_u32(p) | (uint64_t)vq_get_u32(p + 4) << 32;
}

/* --- stored payloads --- */

uint64_t vq_stored_bytes(uint64_t raw_bytes)
{
	uint64_t blocks = raw_bytes ? (raw_bytes + VQ_BLOCK - 1) / VQ_BLOCK : 1;

	return VQ_STORED_HEAD + blocks * VQ_BLOCK_HEAD + raw_bytes;
}

/* Not a single segment: its window would be the whole content, and zstd -t refuses windows over 128 MiB. */
void vq_stored_head(uint8_t out[VQ_STORED_HEAD], uint64_t raw_bytes)
{
	vq_put_u32(out, 0xFD2FB528u);
	out[4] = 0xC0; /* content size in 8 bytes, no checksum, no dictionary */
	out[5] = 0x38; /* window of 2^17 bytes, which is also the largest block */
	vq_put_u64(out + 6, raw_bytes);
}

void vq_block_head(uint8_t out[VQ_BLOCK_HEAD], uint32_t n, int last)
{
	uint32_t v = n << 3 | (last ? 1 : 0); /* bits 1-2: block type 0, raw */

	out[0] = (uint8_t)v;
	out[1] = (uint8_t)(v >> 8);
	out[2] = (uint8_t)(v >> 16);
}

/* --- records --- */

int vq_name_ok(const char *name, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (name[i] <= 0x20 || name[i] >= 0x7F)
			return 0;
	return n >= 1 && n <= VQ_NAME_MAX;
}

int vq_record_raw(const struct vq_record *rec, uint64_t *raw_bytes)
{
	uint64_t total = vq_dtype_size(rec->dtype);
	int empty = 0;
	uint32_t i;

	if (rec->n_dims > VQ_MAX_DIMS || total == 0)
		return VQ_E_DATA;
	for (i = 0; i < rec->n_dims; i++) {
		if (rec->dims[i] > VQ_RAW_MAX)
			return VQ_E_DATA;
		if (rec->dims[i] == 0)
			empty = 1;
		else if (__builtin_mul_overflow(total, rec->dims[i], &total) || total > VQ_RAW_MAX)
			return VQ_E_DATA;
	}
	*raw_bytes = empty ? 0 : total;
	return VQ_OK;
}

/* A skippable frame with room for n content bytes, its tag written. */
static uint8_t *frame_new(const char *tag, size_t n, struct vq_err *err)
{
	uint8_t *p = vq_alloc(VQ_SKIP_BYTES + n, 1, err);

	if (p) {
		vq_put_u32(p, VQ_SKIP_MAGIC);
		vq_put_u32(p + 4, (uint32_t)n);
		memcpy(p + VQ_SKIP_BYTES, tag, VQ_TAG_BYTES);
	}
	return p;
}

int vq_head_encode(const json_t *header, uint8_t **out, size_t *n, struct vq_err *err)
{
	char *text = vq_json_text(header, err);
	size_t len = text ? strlen(text) : 0;
	size_t content = VQ_HEAD_BYTES + len + 8;
	uint8_t *p = NULL, *c;
	int rc = VQ_OK;

	if (!text)
		return VQ_E_SYS;
	if (len > VQ_JSON_MAX) {
		rc = vq_fail(err, VQ_E_DATA, "stream header: want at most %u bytes, got %zu",
			     VQ_JSON_MAX, len);
		goto out;
	}
	p = frame_new(VQ_TAG_HEAD, content, err);
	if (!p) {
		rc = VQ_E_SYS;
		goto out;
	}
	c = p + VQ_SKIP_BYTES;
	vq_put_u32(c + 8, VQ_STREAM_MAJOR | (uint32_t)VQ_STREAM_MINOR << 16);
	vq_put_u32(c + 12, (uint32_t)len);
	memcpy(c + VQ_HEAD_BYTES, text, len);
	vq_put_u64(c + content - 8, XXH64(c, content - 8, 0));
	*out = p;
	*n = VQ_SKIP_BYTES + content;
out:
	vq_free(text);
	return rc;
}

int vq_record_encode(const struct vq_record *rec, const char *attrs, size_t attr_n, uint8_t **out,
		     size_t *n, struct vq_err *err)
{
	size_t name_n = strlen(rec->name);
	size_t content = VQ_RECORD_BYTES + 8 * (size_t)rec->n_dims + name_n + attr_n + 8;
	uint8_t *p = frame_new(VQ_TAG_RECORD, content, err), *c, *at;
	uint32_t i;

	if (!p)
		return VQ_E_SYS;
	c = p + VQ_SKIP_BYTES;
	vq_put_u32(c + 8, rec->kind);
	vq_put_u32(c + 12, (uint32_t)rec->dtype);
	vq_put_u32(c + 16, rec->n_dims);
	vq_put_u32(c + 20, rec->codec);
	vq_put_u64(c + 24, rec->raw_bytes);
	vq_put_u64(c + 32, rec->stored_bytes);
	vq_put_u64(c + 40, rec->hash);
	vq_put_u32(c + 48, (uint32_t)name_n);
	vq_put_u32(c + 52, (uint32_t)attr_n);
	at = c + VQ_RECORD_BYTES;
	for (i = 0; i < rec->n_dims; i++, at += 8)
		vq_put_u64(at, rec->dims[i]);
	memcpy(at, rec->name, name_n);
	if (attr_n)
		memcpy(at + name_n, attrs, attr_n);
	vq_put_u64(c + content - 8, XXH64(c, content - 8, 0));
	*out = p;
	*n = VQ_SKIP_BYTES + content;
	return VQ_OK;
}

void vq_end_encode(uint8_t out[VQ_SKIP_BYTES + VQ_END_BYTES], uint64_t n_records,
		   uint64_t raw_bytes, uint64_t hash)
{
	uint8_t *c = out + VQ_SKIP_BYTES;

	vq_put_u32(out, VQ_SKIP_MAGIC);
	vq_put_u32(out + 4, VQ_END_BYTES);
	memcpy(c, VQ_TAG_END, VQ_TAG_BYTES);
	vq_put_u64(c + 8, n_records);
	vq_put_u64(c + 16, raw_bytes);
	vq_put_u64(c + 24, hash);
	vq_put_u64(c + 32, XXH64(c, 32, 0));
}

size_t vq_frame_limit(const uint8_t *tag)
{
	if (memcmp(tag, VQ_TAG_HEAD, VQ_TAG_BYTES) == 0)
		return VQ_HEAD_BYTES + VQ_JSON_MAX + 8;
	if (memcmp(tag, VQ_TAG_RECORD, VQ_TAG_BYTES) == 0)
		return VQ_RECORD_BYTES + 8 * VQ_MAX_DIMS + VQ_NAME_MAX + VQ_JSON_MAX + 8;
	if (memcmp(tag, VQ_TAG_END, VQ_TAG_BYTES) == 0)
		return VQ_END_BYTES;
	return 0;
}

/* Sizes that the header claims, before anybody takes memory for them. */
static int check_sizes(const struct vq_record *rec, const char *where, struct vq_err *err)
{
	uint64_t raw = 0, most;
	char shape[256];

	if (rec->raw_bytes > VQ_RAW_MAX)
		return vq_fail(err, VQ_E_DATA, "%s '%s': want at most %llu payload bytes, got %llu",
			       where, rec->name, (unsigned long long)VQ_RAW_MAX,
			       (unsigned long long)rec->raw_bytes);
	/* A dtype that came with a later minor version may ride in a kind that we do not know either. */
	if (vq_dtype_size(rec->dtype) == 0 && strcmp(vq_kind_name(rec->kind), "?") != 0)
		return vq_fail(err, VQ_E_DATA, "%s '%s': unknown element type %u", where, rec->name,
			       (unsigned)rec->dtype);
	if (vq_dtype_size(rec->dtype) != 0 &&
	    (vq_record_raw(rec, &raw) < 0 || raw != rec->raw_bytes))
		return vq_fail(err, VQ_E_DATA, "%s '%s': %s %s does not make %llu bytes", where,
			       rec->name, vq_dtype_name(rec->dtype),
			       vq_shape_text(rec->n_dims, rec->dims, shape, sizeof(shape)),
			       (unsigned long long)rec->raw_bytes);
	most = vq_stored_bytes(rec->raw_bytes) + rec->raw_bytes / 128 + 1024;
	if (rec->stored_bytes > most)
		return vq_fail(err, VQ_E_DATA,
			       "%s '%s': want at most %llu stored bytes for %llu, got %llu", where,
			       rec->name, (unsigned long long)most,
			       (unsigned long long)rec->raw_bytes,
			       (unsigned long long)rec->stored_bytes);
	/* A zstd block makes at most 128 KiB of 4 bytes, so a small frame cannot claim a large payload. */
	if (rec->raw_bytes / 32768 > rec->stored_bytes || rec->stored_bytes == 0 ||
	    (rec->codec == VQ_CODEC_STORED && rec->stored_bytes != vq_stored_bytes(rec->raw_bytes)))
		return vq_fail(err, VQ_E_DATA,
			       "%s '%s': %llu stored bytes cannot hold a payload of %llu", where,
			       rec->name, (unsigned long long)rec->stored_bytes,
			       (unsigned long long)rec->raw_bytes);
	return VQ_OK;
}

int vq_record_decode(struct vq_record *rec, const uint8_t *p, size_t n, const char **attrs,
		     size_t *attr_n, const char *where, struct vq_err *err)
{
	uint32_t name_n, text_n, i;
	size_t want;

	if (n < VQ_RECORD_BYTES + 8)
		return vq_fail(err, VQ_E_DATA, "%s: want a header of at least %d bytes, got %zu",
			       where, VQ_RECORD_BYTES + 8, n);
	if (vq_get_u64(p + n - 8) != XXH64(p, n - 8, 0))
		return vq_fail(err, VQ_E_DATA, "%s: its header is damaged (hash differs)", where);
	memset(rec, 0, sizeof(*rec));
	rec->kind = vq_get_u32(p + 8);
	rec->dtype = (enum vq_dtype)vq_get_u32(p + 12);
	rec->n_dims = vq_get_u32(p + 16);
	rec->codec = vq_get_u32(p + 20);
	rec->raw_bytes = vq_get_u64(p + 24);
	rec->stored_bytes = vq_get_u64(p + 32);
	rec->hash = vq_get_u64(p + 40);
	name_n = vq_get_u32(p + 48);
	text_n = vq_get_u32(p + 52);
	if (rec->n_dims > VQ_MAX_DIMS)
		return vq_fail(err, VQ_E_DATA, "%s: want at most %d dimensions, got %u", where,
			       VQ_MAX_DIMS, rec->n_dims);
	if (name_n > VQ_NAME_MAX || text_n > VQ_JSON_MAX)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want a name of 1..%d and attributes of 0..%u bytes, got %u "
			       "and %u",
			       where, VQ_NAME_MAX, VQ_JSON_MAX, name_n, text_n);
	want = VQ_RECORD_BYTES + 8 * (size_t)rec->n_dims + name_n + text_n + 8;
	if (n != want)
		return vq_fail(err, VQ_E_DATA, "%s: want a header of %zu bytes, got %zu", where,
			       want, n);
	for (i = 0, p += VQ_RECORD_BYTES; i < rec->n_dims; i++, p += 8)
		rec->dims[i] = vq_get_u64(p);
	if (!vq_name_ok((const char *)p, name_n))
		return vq_fail(err, VQ_E_DATA,
			       "%s: its name is empty or not printable ASCII without blanks",
			       where);
	memcpy(rec->name, p, name_n);
	if (check_sizes(rec, where, err) < 0)
		return VQ_E_DATA;
	*attrs = (const char *)p + name_n;
	*attr_n = text_n;
	if (text_n == 0)
		return VQ_OK;
	rec->attrs = vq_json_parse(*attrs, text_n, where, err);
	if (!rec->attrs)
		return VQ_E_DATA;
	if (!json_is_object(rec->attrs)) {
		json_decref(rec->attrs);
		rec->attrs = NULL;
		return vq_fail(err, VQ_E_DATA, "%s '%s': attributes are not a JSON object", where,
			       rec->name);
	}
	return VQ_OK;
}
