/* Listing and checking. */
#include "task/ls.h"

#include <fnmatch.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/mem.h"
#include "format/members.h"
#include "format/vqm.h"
#include "stream/frame.h"
#include "stream/reader.h"

#define ATTRS_SHOWN 60 /* bytes of attributes on a line */

/* --- streams --- */

/* "4096x11008", one word for awk; "-" for a scalar. */
static const char *shape_word(const struct vq_record *rec, char *buf, size_t room)
{
	size_t at = 0;
	uint32_t i;

	snprintf(buf, room, "-");
	for (i = 0; i < rec->n_dims && at < room; i++)
		at += (size_t)snprintf(buf + at, room - at, "%s%llu", i ? "x" : "",
				       (unsigned long long)rec->dims[i]);
	return buf;
}

static int print_record(const struct vq_ls *o, const struct vq_record *rec, FILE *out,
			struct vq_err *err)
{
	char *attrs = rec->attrs ? vq_json_text(rec->attrs, err) : NULL, shape[256];
	const char *kind = vq_kind_name(rec->kind);
	char number[16];

	if (rec->attrs && !attrs)
		return VQ_E_SYS;
	snprintf(number, sizeof(number), "%u", rec->kind);
	if (strcmp(kind, "?") == 0)
		kind = number;
	fprintf(out, "%-6s %-5s %-12s %12llu %12llu  %s", kind, vq_dtype_name(rec->dtype),
		shape_word(rec, shape, sizeof(shape)), (unsigned long long)rec->raw_bytes,
		(unsigned long long)rec->stored_bytes, rec->name);
	if (attrs && (o->wide || strlen(attrs) <= ATTRS_SHOWN))
		fprintf(out, "  %s", attrs);
	else if (attrs)
		fprintf(out, "  %.*s...", ATTRS_SHOWN, attrs);
	fputc('\n', out);
	vq_free(attrs);
	return VQ_OK;
}

static int print_json(json_t *j, FILE *out, struct vq_err *err)
{
	char *text = j ? vq_json_text(j, err) : NULL;

	json_decref(j);
	if (!text)
		return vq_fail(err, VQ_E_SYS, "memory: cannot write JSON");
	fprintf(out, "%s\n", text);
	vq_free(text);
	return VQ_OK;
}

static json_t *record_json(const struct vq_record *rec)
{
	json_t *dims = json_array();
	char hash[17];
	uint32_t i;

	for (i = 0; i < rec->n_dims; i++)
		json_array_append_new(dims, json_integer((json_int_t)rec->dims[i]));
	snprintf(hash, sizeof(hash), "%016llx", (unsigned long long)rec->hash);
	return json_pack("{s:s, s:i, s:s, s:s, s:o, s:i, s:I, s:I, s:s, s:O?}", "kind",
			 vq_kind_name(rec->kind), "kind_number", (int)rec->kind, "name", rec->name,
			 "dtype", vq_dtype_name(rec->dtype), "shape", dims, "codec",
			 (int)rec->codec, "raw_bytes", (json_int_t)rec->raw_bytes, "stored_bytes",
			 (json_int_t)rec->stored_bytes, "xxh64", hash, "attrs", rec->attrs);
}

/* Reads the payload and throws it away; a codec of a newer version cannot be checked, which is an error. */
static int check_payload(struct vq_reader *r, struct vq_err *err)
{
	void *p = NULL;
	int rc = vq_reader_load(r, &p, err);

	vq_free(p);
	return rc;
}

/* The JSON of a stream ("config", "search/block/0-3") is a line; a file that travels in it ("tokenizer.model", whatever
 * is in it) has its own bytes and no more. */
static int is_line(const struct vq_record *rec, const char *p)
{
	return rec->dtype == VQ_BYTES && rec->raw_bytes && (*p == '{' || *p == '[') &&
	       p[rec->raw_bytes - 1] != '\n' && !strchr(rec->name, '.');
}

/* A payload as it is. */
static int cat_payload(const struct vq_ls *o, struct vq_reader *r, const struct vq_record *rec,
		       FILE *out, uint64_t *n, struct vq_err *err)
{
	void *p = NULL;
	int rc;

	if (fnmatch(o->cat, rec->name, 0) != 0)
		return VQ_OK;
	rc = vq_reader_load(r, &p, err);
	if (rc < 0)
		return rc;
	fwrite(p, 1, rec->raw_bytes, out);
	if (is_line(rec, p))
		fputc('\n', out);
	vq_free(p);
	++*n;
	return VQ_OK;
}

static int ls_stream(const struct vq_ls *o, int fd, const char *label, const void *head, size_t n,
		     FILE *out, struct vq_err *err)
{
	unsigned long long n_segments = 0, n_records = 0, raw = 0, stored = 0;
	uint64_t n_cat = 0;
	struct vq_reader *r = NULL;
	struct vq_record rec;
	int rc = vq_reader_open_head(&r, fd, label, head, n, err);

	if (rc < 0)
		return rc;
	while ((rc = vq_reader_segment(r, err)) > 0) {
		n_segments++;
		if (o->json && !o->check && !o->cat)
			rc = print_json(json_pack("{s:O}", "header", vq_reader_header(r)), out,
					err) < 0
				     ? VQ_E_SYS
				     : 1;
		while (rc > 0 && (rc = vq_reader_next(r, &rec, err)) > 0) {
			int got = o->cat     ? cat_payload(o, r, &rec, out, &n_cat, err)
				  : o->check ? check_payload(r, err)
				  : o->json  ? print_json(record_json(&rec), out, err)
					     : print_record(o, &rec, out, err);

			if (got < 0)
				rc = got;
			n_records++;
			raw += rec.raw_bytes;
			stored += rec.stored_bytes;
		}
		if (rc < 0)
			break;
	}
	vq_reader_close(r);
	if (rc == VQ_OK && o->cat && !n_cat)
		return vq_fail(err, VQ_E_DATA, "%s: no record's name matches '%s'", label, o->cat);
	if (rc == VQ_OK && o->check && !o->cat)
		fprintf(out,
			"%s: stream ok: %llu segment%s, %llu records, %llu raw bytes, %llu "
			"stored\n",
			label, n_segments, n_segments == 1 ? "" : "s", n_records, raw, stored);
	return rc;
}

/* --- packed models --- */

static int ls_vqm(const struct vq_ls *o, int fd, const char *label, const void *head, size_t n,
		  FILE *out, struct vq_err *err)
{
	unsigned long long total = 0;
	struct vq_vqm v;
	size_t i;
	int rc = vq_vqm_open_fd(&v, fd, label, head, n, o->check, err);

	if (rc < 0)
		return rc;
	for (i = 0; i < v.n && rc == VQ_OK; i++) {
		const struct vq_vqm_member *m = &v.members[i];

		total += m->n;
		if (o->check)
			continue;
		if (o->json)
			rc = print_json(json_pack("{s:s, s:I, s:I, s:s}", "name", m->name, "size",
						  (json_int_t)m->n, "offset", (json_int_t)m->offset,
						  "sha256", m->sha256),
					out, err);
		else
			fprintf(out, "%12zu %14zu  %s\n", m->n, m->offset, m->name);
	}
	if (rc == VQ_OK && o->check)
		fprintf(out, "%s: packed model ok: %zu members, %llu bytes\n", label, v.n, total);
	vq_vqm_close(&v);
	return rc;
}

/* --- ZIP: PyTorch's files, archives of a model --- */

static int print_member(const struct vq_ls *o, const struct vq_member *m, FILE *out,
			struct vq_err *err)
{
	if (o->json)
		return print_json(
			json_pack("{s:s, s:I, s:o}", "name", m->name, "size", (json_int_t)m->n,
				  "offset",
				  m->packed ? json_null() : json_integer((json_int_t)m->at)),
			out, err);
	if (m->packed)
		fprintf(out, "%12zu %14s  %s\n", m->n, "compressed", m->name);
	else
		fprintf(out, "%12zu %14zu  %s\n", m->n, m->at, m->name);
	return VQ_OK;
}

static int ls_zip(const struct vq_ls *o, int fd, const char *label, FILE *out, struct vq_err *err)
{
	struct vq_members m = {0};
	struct vq_map map = {0};
	struct stat st;
	unsigned long long total = 0;
	size_t i;
	int rc;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return vq_fail(err, VQ_E_DATA, "%s: want a ZIP as a plain file, not through a pipe",
			       label);
	rc = vq_map_fd(&map, fd, (size_t)st.st_size, 0, label, err);
	if (rc == VQ_OK)
		rc = o->check ? vq_members_check(&m, map.data, map.n, label, err)
			      : vq_members_read(&m, map.data, map.n, label, err);
	for (i = 0; rc == VQ_OK && i < m.n; i++) {
		total += m.v[i].n;
		if (!o->check)
			rc = print_member(o, &m.v[i], out, err);
	}
	if (rc == VQ_OK && o->check)
		fprintf(out, "%s: ZIP ok: %zu files, %llu bytes\n", label, m.n, total);
	vq_members_free(&m);
	vq_map_close(&map);
	return rc;
}

int vq_ls_run(const struct vq_ls *o, int fd, const char *label, FILE *out, struct vq_err *err)
{
	uint8_t head[512];
	size_t n = 0;
	int rc = vq_read_upto(fd, head, sizeof(head), &n, label, err);
	int zip = n >= 4 && memcmp(head, "PK\3\4", 4) == 0;

	if (rc < 0)
		return rc;
	if ((zip || vq_vqm_is_tar(head, n)) && o->cat)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want a tensor stream, got a %s reads its members", label,
			       zip ? "ZIP; unzip -p" : "packed model; tar xO");
	if (zip)
		return ls_zip(o, fd, label, out, err);
	if (vq_vqm_is_tar(head, n))
		return ls_vqm(o, fd, label, head, n, out, err);
	if (n >= 4 && vq_get_u32(head) != VQ_SKIP_MAGIC)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want a tensor stream or a packed model, got a file that begins "
			       "with %02x %02x %02x %02x",
			       label, head[0], head[1], head[2], head[3]);
	return ls_stream(o, fd, label, head, n, out, err);
}
