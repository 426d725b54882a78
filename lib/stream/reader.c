/* Reading a stream. */
#include "stream/reader.h"

#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "stream/reader_parts.h"

#define LOAD_AT_ONCE ((uint64_t)1 << 30) /* larger claims are believed as their bytes come */

int vq_reader_open(struct vq_reader **out, int fd, const char *label, struct vq_err *err)
{
	return vq_reader_open_head(out, fd, label, NULL, 0, err);
}

int vq_reader_open_head(struct vq_reader **out, int fd, const char *label, const void *head,
			size_t n, struct vq_err *err)
{
	struct vq_reader *r = vq_calloc(1, sizeof(*r), err);

	if (!r)
		return VQ_E_SYS;
	r->src.fd = -1;
	r->label = vq_strdup(label, err);
	r->hash = XXH64_createState();
	if (!r->label || !r->hash || vq_source_open(&r->src, fd, r->label, head, n, err) < 0) {
		vq_reader_close(r);
		return vq_fail(err, VQ_E_SYS, "memory: cannot open %s", label);
	}
	*out = r;
	return VQ_OK;
}

static void drop_record(struct vq_reader *r)
{
	json_decref(r->rec.attrs);
	memset(&r->rec, 0, sizeof(r->rec));
	vq_free(r->data);
	r->data = NULL;
	r->unread = r->loaded = 0;
}

/* A worker that waits for input is told not to. */
static void stop_ahead(struct vq_reader *r)
{
	const uint64_t one = 1;

	if (!r->ahead)
		return;
	(void)!write(r->src.stop, &one, sizeof(one)); /* the counter is 0: there is room */
	vq_worker_free(r->ahead);
	close(r->src.stop);
}

void vq_reader_close(struct vq_reader *r)
{
	if (!r)
		return;
	stop_ahead(r);
	drop_record(r);
	json_decref(r->lent);
	json_decref(r->header);
	vq_nameset_clear(&r->names);
	vq_payload_free(&r->payload);
	vq_source_close(&r->src);
	XXH64_freeState(r->hash);
	vq_free(r->frame);
	vq_free(r->label);
	vq_free(r);
}

const json_t *vq_reader_header(const struct vq_reader *r)
{
	return r->header;
}

const char *vq_reader_label(const struct vq_reader *r)
{
	return r->label;
}

/* The input ended where a frame should be. */
static int cut(struct vq_reader *r, struct vq_err *err)
{
	return vq_fail(err, VQ_E_DATA,
		       "%s: the stream is cut after %llu records: no end record (did the program "
		       "before this one fail?)",
		       r->label, (unsigned long long)r->n_records);
}

/* Reads a skippable frame of ours into r->frame: 1, or 0 at the end of input when may_end is set. */
static int read_frame(struct vq_reader *r, int may_end, struct vq_err *err)
{
	uint8_t b[VQ_SKIP_BYTES + VQ_TAG_BYTES];
	size_t n, limit;
	int rc = vq_source_at_end(&r->src, err);

	if (rc < 0)
		return rc;
	if (rc && may_end)
		return 0;
	rc = rc ? 0 : vq_source_read(&r->src, b, sizeof(b), err);
	if (rc <= 0)
		return rc < 0 ? rc : cut(r, err);
	n = vq_get_u32(b + 4);
	limit = vq_frame_limit(b + VQ_SKIP_BYTES);
	if (vq_get_u32(b) != VQ_SKIP_MAGIC || limit == 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want a tensor stream's %s, got something else (bytes %02x %02x "
			       "%02x %02x)",
			       r->label, r->in_segment ? "record or end record" : "header", b[0],
			       b[1], b[2], b[3]);
	if (n > limit || n < VQ_TAG_BYTES + 8)
		return vq_fail(err, VQ_E_DATA,
			       "%s: after %llu records: want a frame of at most %zu bytes, got %zu",
			       r->label, (unsigned long long)r->n_records, limit, n);
	if (n > r->frame_room) {
		vq_free(r->frame);
		r->frame_room = 0;
		r->frame = vq_alloc(n, 1, err);
		if (!r->frame)
			return VQ_E_SYS;
		r->frame_room = n;
	}
	r->frame_n = n;
	memcpy(r->frame, b + VQ_SKIP_BYTES, VQ_TAG_BYTES);
	rc = vq_source_read(&r->src, r->frame + VQ_TAG_BYTES, n - VQ_TAG_BYTES, err);
	return rc == 0 ? cut(r, err) : rc;
}

static int has_tag(const struct vq_reader *r, const char *tag)
{
	return memcmp(r->frame, tag, VQ_TAG_BYTES) == 0;
}

static int read_header(struct vq_reader *r, struct vq_err *err)
{
	const uint8_t *p = r->frame;
	uint32_t version;
	size_t n = r->frame_n;
	json_t *j;

	if (!has_tag(r, VQ_TAG_HEAD))
		return vq_fail(err, VQ_E_DATA, "%s: want a stream header, got a record", r->label);
	if (n < VQ_HEAD_BYTES + 8)
		return vq_fail(err, VQ_E_DATA, "%s: the stream header is too short", r->label);
	/* The version comes first: another major may place everything else elsewhere. */
	version = vq_get_u32(p + 8);
	if ((version & 0xFFFF) != VQ_STREAM_MAJOR)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want stream version %d.x, got %u.%u: use the programs that "
			       "wrote it",
			       r->label, VQ_STREAM_MAJOR, version & 0xFFFF, version >> 16);
	if (vq_get_u64(p + n - 8) != XXH64(p, n - 8, 0))
		return vq_fail(err, VQ_E_DATA, "%s: the stream header is damaged (hash differs)",
			       r->label);
	if (n != VQ_HEAD_BYTES + (size_t)vq_get_u32(p + 12) + 8)
		return vq_fail(err, VQ_E_DATA, "%s: the stream header has a wrong size", r->label);
	j = vq_json_parse((const char *)p + VQ_HEAD_BYTES, n - VQ_HEAD_BYTES - 8, r->label, err);
	if (!j)
		return VQ_E_DATA;
	if (!json_is_object(j)) {
		json_decref(j);
		return vq_fail(err, VQ_E_DATA, "%s: the stream header is not a JSON object",
			       r->label);
	}
	json_decref(r->header);
	r->header = j;
	return VQ_OK;
}

/* The reader is the caller's again.  The code of the first error, if there was one. */
static int settle(struct vq_reader *r)
{
	if (r->ahead)
		vq_worker_wait(r->ahead);
	return r->failed;
}

int vq_reader_segment(struct vq_reader *r, struct vq_err *err)
{
	struct vq_record rec;
	int rc = settle(r);

	if (rc < 0)
		return vq_fail(err, rc, "%s: read after an error", r->label);
	while (r->fetched || r->in_segment) {
		rc = vq_reader_next(r, &rec, err);
		if (rc < 0)
			return rc;
	}
	rc = read_frame(r, 1, err);
	if (rc == 0 && !r->any)
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: no stream came: the input is empty (did the program before this "
			     "one fail?)",
			     r->label);
	if (rc > 0)
		rc = read_header(r, err) < 0 ? VQ_E_DATA : 1;
	if (rc <= 0) {
		r->failed = rc;
		return rc;
	}
	r->in_segment = r->any = 1;
	r->n_records = r->raw_bytes = 0;
	vq_nameset_clear(&r->names);
	(void)XXH64_reset(r->hash, 0); /* fails for NULL only */
	return 1;
}

static int read_end(struct vq_reader *r, struct vq_err *err)
{
	const uint8_t *p = r->frame;

	if (r->frame_n != VQ_END_BYTES || vq_get_u64(p + 32) != XXH64(p, 32, 0))
		return vq_fail(err, VQ_E_DATA, "%s: the end record is damaged", r->label);
	if (vq_get_u64(p + 8) != r->n_records || vq_get_u64(p + 16) != r->raw_bytes)
		return vq_fail(err, VQ_E_DATA,
			       "%s: the end record wants %llu records and %llu raw bytes, got %llu "
			       "and %llu",
			       r->label, (unsigned long long)vq_get_u64(p + 8),
			       (unsigned long long)vq_get_u64(p + 16),
			       (unsigned long long)r->n_records, (unsigned long long)r->raw_bytes);
	if (vq_get_u64(p + 24) != XXH64_digest(r->hash))
		return vq_fail(
			err, VQ_E_DATA,
			"%s: records were changed, swapped or lost (hash over record headers "
			"differs)",
			r->label);
	r->in_segment = 0;
	return 0;
}

static int read_record(struct vq_reader *r, struct vq_err *err)
{
	char where[128];
	int rc;

	snprintf(where, sizeof(where), "%.80s: record %llu", r->label,
		 (unsigned long long)r->n_records);
	if (r->n_records >= VQ_RECORDS_MAX)
		return vq_fail(err, VQ_E_DATA, "%s: want at most %llu records a segment", where,
			       (unsigned long long)VQ_RECORDS_MAX);
	rc = vq_record_decode(&r->rec, r->frame, r->frame_n, &r->attrs, &r->attr_n, where, err);
	if (rc < 0)
		return rc;
	r->rec.index = r->n_records;
	rc = vq_nameset_add(&r->names, r->rec.name, err);
	if (rc == 0)
		return vq_fail(err, VQ_E_DATA, "%s '%s': there is a record of this name already",
			       where, r->rec.name);
	if (rc < 0)
		return rc;
	(void)XXH64_update(r->hash, r->frame, r->frame_n); /* fails for NULL only */
	r->n_records++;
	r->raw_bytes += r->rec.raw_bytes;
	r->unread = 1;
	return 1;
}

/* The payload of a record that nobody asked for. */
static int skip_payload(struct vq_reader *r, struct vq_err *err)
{
	int rc = r->unread ? vq_source_skip(&r->src, r->rec.stored_bytes, err) : 1;

	if (rc == 0)
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: record %llu '%s': the input ends within its "
			     "payload",
			     r->label, (unsigned long long)r->rec.index, r->rec.name);
	return rc < 0 ? rc : VQ_OK;
}

/* To the record after rec: 1, or 0 at the end of the segment. */
static int go_on(struct vq_reader *r, struct vq_err *err)
{
	int rc = skip_payload(r, err);

	drop_record(r);
	if (rc == VQ_OK)
		rc = read_frame(r, 0, err);
	if (rc > 0 && has_tag(r, VQ_TAG_HEAD))
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: a new segment begins before the end record of the one before, "
			     "which was cut after %llu records",
			     r->label, (unsigned long long)r->n_records);
	if (rc > 0)
		rc = has_tag(r, VQ_TAG_END) ? read_end(r, err) : read_record(r, err);
	return rc;
}

int vq_reader_next(struct vq_reader *r, struct vq_record *rec, struct vq_err *err)
{
	int rc = settle(r);

	if (rc < 0)
		return vq_fail(err, rc, "%s: read after an error", r->label);
	if (r->fetched) {
		rc = r->next_rc < 0 ? vq_fail(err, r->next_rc, "%s", r->next_err.text) : r->next_rc;
		json_decref(r->lent);
		r->lent = NULL;
		r->fetched = 0;
	} else if (!r->in_segment) {
		return 0;
	} else if (r->loaded && r->load_rc < 0) {
		rc = vq_fail(err, r->load_rc, "%s", r->load_err.text);
	} else {
		rc = go_on(r, err);
	}
	if (rc < 0)
		r->failed = rc;
	if (rc > 0)
		*rec = r->rec;
	return rc;
}

int vq_reader_no_payload(const struct vq_reader *r, struct vq_err *err)
{
	return vq_fail(err, VQ_E_SYS, "%s: there is no payload to be read here", r->label);
}

/* Opens the payload of the current record. */
int vq_reader_begin(struct vq_reader *r, struct vq_err *err)
{
	if (r->failed < 0 || !r->unread)
		return r->failed < 0 ? vq_fail(err, r->failed, "%s: read after an error", r->label)
				     : vq_reader_no_payload(r, err);
	r->unread = 0;
	return vq_payload_begin(&r->payload, &r->src, &r->rec, err);
}

int vq_reader_whole(struct vq_reader *r, void **buf, struct vq_err *err)
{
	uint64_t raw = r->rec.raw_bytes, room = raw < LOAD_AT_ONCE ? raw : LOAD_AT_ONCE, at = 0;
	uint8_t *p = vq_alloc((size_t)room + 1, 1, err);
	int rc = p ? vq_reader_begin(r, err) : VQ_E_SYS;

	while (rc == VQ_OK && at < raw) {
		rc = vq_payload_some(&r->payload, p + at, (size_t)(room - at), err);
		at = room;
		if (rc == VQ_OK && room < raw) {
			room = 2 * room < raw ? 2 * room : raw;
			rc = vq_grow((void **)&p, (size_t)at, (size_t)room + 1, 1, err);
		}
	}
	if (rc == VQ_OK)
		rc = vq_payload_end(&r->payload, err);
	if (rc < 0) {
		vq_free(p);
		return rc;
	}
	p[raw] = 0;
	*buf = p;
	return VQ_OK;
}

/* --- reading ahead --- */

static void fetch(void *arg)
{
	struct vq_reader *r = arg;

	r->next_rc = go_on(r, &r->next_err);
	if (r->next_rc <= 0 || r->rec.kind >= 32 || !(r->kinds >> r->rec.kind & 1) ||
	    r->rec.raw_bytes > VQ_READER_AHEAD)
		return;
	r->load_rc = vq_reader_whole(r, &r->data, &r->load_err);
	r->loaded = 1;
}

/* The payload of the current record has been given out; its attributes still are. */
static void given(struct vq_reader *r, int rc)
{
	if (rc < 0)
		r->failed = rc;
	if (rc < 0 || !r->ahead)
		return;
	r->lent = r->rec.attrs;
	r->rec.attrs = NULL;
	r->fetched = 1;
	vq_worker_go(r->ahead);
}

int vq_reader_ahead(struct vq_reader *r, uint32_t kinds, struct vq_err *err)
{
	int rc;

	r->kinds = kinds;
	r->src.stop = eventfd(0, EFD_CLOEXEC);
	if (r->src.stop < 0)
		return vq_fail_errno(err, VQ_E_SYS, "%s: cannot read ahead", r->label);
	rc = vq_worker_new(&r->ahead, fetch, r, err);
	if (rc < 0) {
		close(r->src.stop);
		r->src.stop = -1;
	}
	return rc;
}

/* The payload that was loaded ahead, given. */
static int take(struct vq_reader *r, void **buf, struct vq_err *err)
{
	if (r->load_rc < 0)
		return vq_fail(err, r->load_rc, "%s", r->load_err.text);
	*buf = r->data;
	r->data = NULL;
	r->loaded = 0;
	return VQ_OK;
}

int vq_reader_load(struct vq_reader *r, void **buf, struct vq_err *err)
{
	int rc;

	if (r->fetched)
		return vq_reader_no_payload(r, err);
	rc = r->loaded ? take(r, buf, err) : vq_reader_whole(r, buf, err);
	given(r, rc);
	return rc;
}

int vq_reader_read(struct vq_reader *r, void *buf, struct vq_err *err)
{
	void *data = NULL;
	int rc;

	if (r->fetched)
		return vq_reader_no_payload(r, err);
	if (r->loaded) {
		rc = take(r, &data, err);
		if (rc == VQ_OK && r->rec.raw_bytes)
			memcpy(buf, data, (size_t)r->rec.raw_bytes);
		vq_free(data);
	} else {
		rc = vq_reader_begin(r, err);
		if (rc == VQ_OK)
			rc = vq_payload_some(&r->payload, buf, (size_t)r->rec.raw_bytes, err);
		if (rc == VQ_OK)
			rc = vq_payload_end(&r->payload, err);
	}
	given(r, rc);
	return rc;
}
