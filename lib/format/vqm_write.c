/* The packed model: writing. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "format/vqm.h"
#include "stream/source.h"

struct vq_vqm_writer {
	int fd;
	char *label;
	struct archive *a;
	uint64_t at;          /* bytes written */
	json_t *index;        /* entries of the members so far */
	json_t *entry;        /* of the member being written; borrowed from index */
	uint64_t left;        /* bytes that it still wants */
	int dead;             /* nothing is written any more */
	struct vq_err cb_err; /* of the callback */
	struct sha256_ctx sha;
};

static la_ssize_t on_write(struct archive *a, void *arg, const void *p, size_t n)
{
	struct vq_vqm_writer *w = arg;

	if (w->dead)
		return (la_ssize_t)n;
	if (vq_write_full(w->fd, p, n, w->label, &w->cb_err) < 0) {
		archive_set_error(a, EIO, "%s", w->cb_err.text);
		return -1;
	}
	w->at += n;
	return (la_ssize_t)n;
}

static int fail(struct vq_vqm_writer *w, struct vq_err *err)
{
	if (w->cb_err.code)
		return vq_fail(err, w->cb_err.code, "%s", w->cb_err.text);
	return vq_fail(err, VQ_E_SYS, "%s: cannot write the archive: %s", w->label,
		       archive_error_string(w->a) ? archive_error_string(w->a) : "unknown");
}

void vq_vqm_abort(struct vq_vqm_writer *w)
{
	if (!w)
		return;
	/* Freeing closes the archive, which would write its end: what goes out now goes nowhere. */
	w->dead = 1;
	archive_write_free(w->a);
	json_decref(w->index);
	vq_free(w->label);
	vq_free(w);
}

int vq_vqm_create(struct vq_vqm_writer **out, int fd, const char *label, struct vq_err *err)
{
	struct vq_vqm_writer *w;

	if (vq_not_a_terminal(fd, "a packed model", label, err) < 0)
		return VQ_E_USAGE;
	w = vq_calloc(1, sizeof(*w), err);
	if (!w)
		return VQ_E_SYS;
	w->fd = fd;
	w->label = vq_strdup(label, err);
	w->index = json_array();
	w->a = archive_write_new();
	if (!w->label || !w->index || !w->a) {
		vq_vqm_abort(w);
		return vq_fail(err, VQ_E_SYS, "memory: cannot open %s", label);
	}
	archive_write_set_format_pax_restricted(w->a);
	/* No blocking: what is handed over is written, so `at` is the place of the data that follow. */
	archive_write_set_bytes_per_block(w->a, 0);
	archive_write_set_bytes_in_last_block(w->a, 1);
	vq_pipe_widen(fd);
	if (archive_write_open(w->a, w, NULL, on_write, NULL) != ARCHIVE_OK) {
		(void)fail(w, err); /* returned below */
		vq_vqm_abort(w);
		return err ? err->code : VQ_E_SYS;
	}
	*out = w;
	return VQ_OK;
}

/* Ends the member that is open: its hash goes to the index. */
static int close_member(struct vq_vqm_writer *w, struct vq_err *err)
{
	char hex[VQ_SHA256_HEX];

	if (!w->entry)
		return VQ_OK;
	if (w->left > 0)
		return vq_fail(err, VQ_E_SYS, "%s: '%s' wants %llu more bytes", w->label,
			       json_string_value(json_object_get(w->entry, "name")),
			       (unsigned long long)w->left);
	vq_sha256_hex(&w->sha, hex);
	if (json_object_set_new(w->entry, "sha256", json_string(hex)) < 0)
		return vq_fail(err, VQ_E_SYS, "memory: cannot index the archive");
	w->entry = NULL;
	return archive_write_finish_entry(w->a) == ARCHIVE_OK ? VQ_OK : fail(w, err);
}

int vq_vqm_begin(struct vq_vqm_writer *w, const char *name, size_t n, struct vq_err *err)
{
	struct archive_entry *e;
	int rc = close_member(w, err);

	if (rc < 0)
		return rc;
	e = archive_entry_new2(w->a);
	if (!e)
		return vq_fail(err, VQ_E_SYS, "memory: cannot extend the archive");
	archive_entry_set_pathname(e, name);
	archive_entry_set_size(e, (la_int64_t)n);
	archive_entry_set_filetype(e, AE_IFREG);
	archive_entry_set_perm(e, 0644);
	archive_entry_set_mtime(e, 0, 0);
	archive_entry_set_uid(e, 0);
	archive_entry_set_gid(e, 0);
	if (archive_write_header(w->a, e) != ARCHIVE_OK)
		rc = fail(w, err);
	archive_entry_free(e);
	if (rc < 0)
		return rc;
	w->entry = json_pack("{s:s, s:I, s:I}", "name", name, "size", (json_int_t)n, "offset",
			     (json_int_t)w->at);
	if (!w->entry || json_array_append_new(w->index, w->entry) < 0) {
		w->entry = NULL;
		return vq_fail(err, VQ_E_SYS, "memory: cannot index the archive");
	}
	w->left = n;
	sha256_init(&w->sha);
	return VQ_OK;
}

int vq_vqm_data(struct vq_vqm_writer *w, const void *data, size_t n, struct vq_err *err)
{
	const uint8_t *p = data;

	if (n > w->left)
		return vq_fail(
			err, VQ_E_SYS, "%s: '%s' gets more bytes than it announced", w->label,
			w->entry ? json_string_value(json_object_get(w->entry, "name")) : "?");
	sha256_update(&w->sha, n, p);
	w->left -= n;
	while (n > 0) {
		la_ssize_t r = archive_write_data(w->a, p, n);

		if (r <= 0)
			return fail(w, err);
		p += r;
		n -= (size_t)r;
	}
	return VQ_OK;
}

int vq_vqm_add(struct vq_vqm_writer *w, const char *name, const void *data, size_t n,
	       struct vq_err *err)
{
	int rc = vq_vqm_begin(w, name, n, err);

	return rc < 0 ? rc : vq_vqm_data(w, data, n, err);
}

int vq_vqm_add_json(struct vq_vqm_writer *w, const char *name, const json_t *j, struct vq_err *err)
{
	char *text = vq_json_text(j, err);
	int rc = text ? vq_vqm_add(w, name, text, strlen(text), err) : VQ_E_SYS;

	vq_free(text);
	return rc;
}

static json_t *manifest(struct vq_vqm_writer *w, json_t *extra, struct vq_err *err)
{
	json_t *j = extra ? json_copy(extra) : json_object();
	char hex[VQ_SHA256_HEX], *text = NULL;

	if (j && json_object_set(j, "members", w->index) == 0 &&
	    json_object_set_new(j, "format", json_string("vqlm-model")) == 0 &&
	    json_object_set_new(j, "major", json_integer(VQ_VQM_MAJOR)) == 0 &&
	    json_object_set_new(j, "minor", json_integer(VQ_VQM_MINOR)) == 0)
		text = vq_json_text(j, err);
	if (text)
		vq_sha256_of(text, strlen(text), hex);
	if (!text || json_object_set_new(j, "sha256", json_string(hex)) < 0) {
		json_decref(j);
		vq_fail(err, VQ_E_SYS, "memory: cannot make the manifest");
		j = NULL;
	}
	vq_free(text);
	return j;
}

int vq_vqm_finish(struct vq_vqm_writer *w, json_t *extra, struct vq_err *err)
{
	json_t *j;
	int rc = close_member(w, err);

	if (rc < 0)
		return rc;
	j = manifest(w, extra, err);
	if (!j)
		return VQ_E_SYS;
	rc = vq_vqm_add_json(w, "manifest.json", j, err);
	json_decref(j);
	if (rc == VQ_OK)
		rc = close_member(w, err);
	if (rc == VQ_OK && archive_write_close(w->a) != ARCHIVE_OK)
		rc = fail(w, err);
	return rc;
}
