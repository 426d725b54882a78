/* The packed model: reading.  vqm_write.c writes it. */
#include "format/vqm.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "stream/source.h"

#define MEMBERS_MAX  ((size_t)1 << 20)
#define NAME_MAX_VQM 512
#define VERIFY_BELOW ((size_t)256 << 20) /* hashing less than this is not noticed */
#define FIRST_ROOM   ((size_t)64 << 20)

struct vq_vqm_priv {
	struct vq_map map; /* the archive */
	size_t *order;     /* members by name */
};

void vq_vqm_close(struct vq_vqm *v)
{
	size_t i;

	for (i = 0; i < v->n; i++)
		vq_free(v->members[i].name);
	vq_free(v->members);
	vq_free(v->label);
	json_decref(v->manifest);
	if (v->priv) {
		vq_map_close(&v->priv->map);
		vq_free(v->priv->order);
		vq_free(v->priv);
	}
	memset(v, 0, sizeof(*v));
}

/* --- bytes into memory --- */

/* Addresses for a model that is held in memory: twice what the machine has.  They cost nothing, but an emulator counts
 * them page by page. */
static size_t pipe_most(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

	return pages > 0 && size > 0 ? 2 * (size_t)pages * (size_t)size : (size_t)1 << 40;
}

/* It grows without being copied, so that a model from a pipe is held once. */
static int read_pipe(struct vq_vqm *v, int fd, const void *head, size_t head_n, struct vq_err *err)
{
	struct vq_map *m = &v->priv->map;
	size_t got = 0, room = FIRST_ROOM;
	int rc = vq_pages_reserve(&m->pages, pipe_most(), 1, err);

	vq_pipe_widen(fd);
	if (rc == VQ_OK)
		rc = vq_pages_grow(&m->pages, room, err);
	if (rc == VQ_OK && head_n)
		memcpy(m->pages.data, head, head_n);
	for (m->n = head_n; rc == VQ_OK; room += room / 2) {
		rc = vq_pages_grow(&m->pages, room, err);
		if (rc == VQ_OK)
			rc = vq_read_upto(fd, m->pages.data + m->n, room - m->n, &got, v->label,
					  err);
		m->n += rc == VQ_OK ? got : 0;
		if (m->n < room)
			break;
	}
	m->data = m->pages.data;
	return rc;
}

/* Bytes of a plain file that has been read up to head_n; 0 for anything else. */
static size_t plain_bytes(int fd, size_t head_n)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || lseek(fd, 0, SEEK_CUR) != (off_t)head_n)
		return 0;
	return (size_t)st.st_size;
}

/* A plain file on standard input is taken as if it had been named. */
static int take_fd(struct vq_vqm *v, int fd, const void *head, size_t head_n, unsigned how,
		   struct vq_err *err)
{
	size_t n = plain_bytes(fd, head_n);

	if (n)
		return vq_map_fd(&v->priv->map, fd, n, (how & VQ_VQM_LOAD) != 0, v->label, err);
	v->whole = 1;
	return read_pipe(v, fd, head, head_n, err);
}

/* --- the walk over the archive --- */

static int bad_tar(const struct vq_vqm *v, struct archive *a, struct vq_err *err)
{
	return vq_fail(err, VQ_E_DATA, "%s: not a whole packed model: after '%s': %s", v->label,
		       v->n ? v->members[v->n - 1].name : "its beginning",
		       archive_error_string(a) ? archive_error_string(a) : "bad archive");
}

static int add_member(struct vq_vqm *v, size_t *room, const char *name, size_t n,
		      const uint8_t *data, struct vq_err *err)
{
	struct vq_vqm_member *m;

	if (v->n == MEMBERS_MAX)
		return vq_fail(err, VQ_E_DATA, "%s: want at most %zu members", v->label,
			       MEMBERS_MAX);
	if (v->n == *room) {
		size_t more = *room ? 2 * *room : 256;

		if (vq_grow((void **)&v->members, v->n, more, sizeof(*m), err) < 0)
			return VQ_E_SYS;
		*room = more;
	}
	m = &v->members[v->n];
	memset(m, 0, sizeof(*m));
	m->name = vq_strdup(name, err);
	if (!m->name)
		return VQ_E_SYS;
	m->data = data;
	m->n = n;
	m->offset = (size_t)(data - v->priv->map.data);
	v->n++;
	return VQ_OK;
}

/* The data of the current entry: libarchive hands out pointers into the memory that it walks. */
static int locate(struct vq_vqm *v, struct archive *a, const char *name, size_t n,
		  const uint8_t **data, struct vq_err *err)
{
	const struct vq_map *p = &v->priv->map;
	const void *at = NULL;
	size_t got = 0;
	la_int64_t offset = 0;
	int rc;

	*data = p->data;
	if (n == 0)
		return VQ_OK;
	rc = archive_read_data_block(a, &at, &got, &offset);
	if (rc != ARCHIVE_OK || got == 0 || offset != 0)
		return bad_tar(v, a, err);
	*data = at;
	if (*data < p->data || (size_t)(*data - p->data) > p->n ||
	    n > p->n - (size_t)(*data - p->data))
		return vq_fail(err, VQ_E_DATA, "%s: '%s': cut, or not stored in one piece",
			       v->label, name);
	if ((*data - p->data) % 512 != 0)
		return vq_fail(err, VQ_E_DATA, "%s: '%s': want data at a multiple of 512 bytes",
			       v->label, name);
	return VQ_OK;
}

static int walk(struct vq_vqm *v, struct vq_err *err)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	size_t room = 0;
	int rc = VQ_OK, s;

	if (!a)
		return vq_fail(err, VQ_E_SYS, "memory: cannot read an archive");
	archive_read_support_format_tar(a);
	if (archive_read_open_memory(a, v->priv->map.data, v->priv->map.n) != ARCHIVE_OK)
		rc = bad_tar(v, a, err);
	while (rc == VQ_OK && (s = archive_read_next_header(a, &e)) != ARCHIVE_EOF) {
		const char *name = s == ARCHIVE_OK ? archive_entry_pathname(e) : NULL;
		const uint8_t *data = NULL;
		la_int64_t n = name ? archive_entry_size(e) : 0;

		if (!name || archive_entry_filetype(e) != AE_IFREG || n < 0 || !*name ||
		    strlen(name) > NAME_MAX_VQM)
			rc = name ? vq_fail(err, VQ_E_DATA, "%s: '%.80s': want plain files only",
					    v->label, name)
				  : bad_tar(v, a, err);
		if (rc == VQ_OK)
			rc = locate(v, a, name, (size_t)n, &data, err);
		if (rc == VQ_OK)
			rc = add_member(v, &room, name, (size_t)n, data, err);
		if (rc == VQ_OK && archive_read_data_skip(a) != ARCHIVE_OK)
			rc = bad_tar(v, a, err);
	}
	archive_read_free(a);
	return rc;
}

/* --- the manifest --- */

static int compare_members(const void *a, const void *b, void *members)
{
	const struct vq_vqm_member *m = members;

	return strcmp(m[*(const size_t *)a].name, m[*(const size_t *)b].name);
}

static int sort_members(struct vq_vqm *v, struct vq_err *err)
{
	size_t *o = vq_alloc(v->n, sizeof(*o), err), i;

	if (!o)
		return VQ_E_SYS;
	for (i = 0; i < v->n; i++)
		o[i] = i;
	if (v->n > 1)
		qsort_r(o, v->n, sizeof(*o), compare_members, v->members);
	v->priv->order = o;
	for (i = 1; i < v->n; i++)
		if (strcmp(v->members[o[i - 1]].name, v->members[o[i]].name) == 0)
			return vq_fail(err, VQ_E_DATA, "%s: '%s' is there twice", v->label,
				       v->members[o[i]].name);
	return VQ_OK;
}

void vq_vqm_read_ahead(const struct vq_vqm *v, const char *but)
{
	const struct vq_vqm_member *m = but ? vq_vqm_find(v, but) : NULL;

	vq_map_read_ahead(&v->priv->map, 0, v->priv->map.n, 1);
	if (m)
		vq_map_read_ahead(&v->priv->map, m->offset, m->offset + m->n, 0);
}

const uint8_t *vq_vqm_bytes(const struct vq_vqm *v, size_t *n)
{
	*n = v->priv->map.n;
	return v->priv->map.data;
}

const struct vq_vqm_member *vq_vqm_find(const struct vq_vqm *v, const char *name)
{
	size_t lo = 0, hi = v->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct vq_vqm_member *m = &v->members[v->priv->order[mid]];
		int c = strcmp(name, m->name);

		if (c == 0)
			return m;
		if (c < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

/* The manifest vouches for the members, and for itself by the hash of its canonical text less that hash. */
static int check_self(struct vq_vqm *v, struct vq_err *err)
{
	json_t *copy = json_copy(v->manifest);
	char hex[VQ_SHA256_HEX], *text = NULL;
	const char *want = NULL;
	int rc = copy ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot copy the manifest");

	if (rc == VQ_OK)
		rc = vq_json_str(v->manifest, "sha256", "", &want, v->label, err);
	if (rc == VQ_OK) {
		json_object_del(copy, "sha256");
		text = vq_json_text(copy, err);
		rc = text ? VQ_OK : VQ_E_SYS;
	}
	if (rc == VQ_OK) {
		vq_sha256_of(text, strlen(text), hex);
		if (strcmp(hex, want) != 0)
			rc = vq_fail(err, VQ_E_DATA,
				     "%s: manifest.json is damaged (SHA-256 differs)", v->label);
	}
	vq_free(text);
	json_decref(copy);
	return rc;
}

static int check_entry(struct vq_vqm *v, const json_t *e, struct vq_vqm_member *m,
		       struct vq_err *err)
{
	const char *name = json_string_value(json_object_get(e, "name"));
	const char *sha = json_string_value(json_object_get(e, "sha256"));
	json_int_t size = json_integer_value(json_object_get(e, "size"));
	json_int_t offset = json_integer_value(json_object_get(e, "offset"));

	if (!name || !sha || strlen(sha) != VQ_SHA256_HEX - 1)
		return vq_fail(err, VQ_E_DATA,
			       "%s: manifest.json: an entry without name or SHA-256", v->label);
	if (strcmp(name, m->name) != 0)
		return vq_fail(err, VQ_E_DATA, "%s: want member '%s' here, got '%s'", v->label,
			       name, m->name);
	if (size != (json_int_t)m->n || (m->n > 0 && offset != (json_int_t)m->offset))
		return vq_fail(err, VQ_E_DATA, "%s: '%s': want %lld bytes at %lld, got %zu at %zu",
			       v->label, name, (long long)size, (long long)offset, m->n, m->offset);
	memcpy(m->sha256, sha, VQ_SHA256_HEX);
	return VQ_OK;
}

static int check_manifest(struct vq_vqm *v, struct vq_err *err)
{
	static const uint8_t zeros[1024];
	const struct vq_vqm_member *m = v->n ? &v->members[v->n - 1] : NULL;
	json_t *list;
	size_t i, end;
	int rc = VQ_OK;

	if (!m || strcmp(m->name, "manifest.json") != 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: no manifest.json at its end: not a packed model, or a cut one",
			       v->label);
	end = m->offset + (m->n + 511) / 512 * 512;
	if (end > v->priv->map.n || v->priv->map.n - end < sizeof(zeros) ||
	    memcmp(v->priv->map.data + end, zeros, sizeof(zeros)) != 0)
		return vq_fail(err, VQ_E_DATA, "%s: the end of the archive is missing", v->label);
	v->manifest = vq_json_parse((const char *)m->data, m->n, v->label, err);
	if (!v->manifest)
		return VQ_E_DATA;
	rc = check_self(v, err);
	if (rc < 0)
		return rc;
	if (json_integer_value(json_object_get(v->manifest, "major")) != VQ_VQM_MAJOR)
		return vq_fail(
			err, VQ_E_DATA, "%s: want packed model version %d, got %lld", v->label,
			VQ_VQM_MAJOR,
			(long long)json_integer_value(json_object_get(v->manifest, "major")));
	list = json_object_get(v->manifest, "members");
	if (json_array_size(list) != v->n - 1)
		return vq_fail(err, VQ_E_DATA, "%s: manifest.json lists %zu members, got %zu",
			       v->label, json_array_size(list), v->n - 1);
	for (i = 0; i + 1 < v->n && rc == VQ_OK; i++)
		rc = check_entry(v, json_array_get(list, i), &v->members[i], err);
	return rc;
}

/* Weights have a NAME.json beside them; everything else is small and always checked. */
static int is_weight(const struct vq_vqm *v, const char *name)
{
	char json[NAME_MAX_VQM + 8];

	snprintf(json, sizeof(json), "%s.json", name);
	return vq_vqm_find(v, json) != NULL;
}

static int check_hashes(struct vq_vqm *v, int weights, struct vq_err *err)
{
	char hex[VQ_SHA256_HEX];
	size_t i;

	for (i = 0; i + 1 < v->n; i++) {
		const struct vq_vqm_member *m = &v->members[i];

		if (!weights && is_weight(v, m->name))
			continue;
		vq_sha256_of(m->data, m->n, hex);
		if (strcmp(hex, m->sha256) != 0)
			return vq_fail(err, VQ_E_DATA, "%s: '%s' is damaged (SHA-256 differs)",
				       v->label, m->name);
	}
	return VQ_OK;
}

static int open_start(struct vq_vqm *v, const char *label, struct vq_err *err)
{
	memset(v, 0, sizeof(*v));
	v->label = vq_strdup(label, err);
	v->priv = vq_calloc(1, sizeof(*v->priv), err);
	return v->label && v->priv ? VQ_OK : VQ_E_SYS;
}

static int open_rest(struct vq_vqm *v, int rc, unsigned how, struct vq_err *err)
{
	const struct vq_map *m = &v->priv->map;

	if (rc == VQ_OK && m->n == 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: empty, want a packed model", v->label);
	v->whole |= how & VQ_VQM_VERIFY || m->n < VERIFY_BELOW;
	vq_map_read_ahead(m, 0, m->n, v->whole);
	if (rc == VQ_OK)
		rc = walk(v, err);
	if (rc == VQ_OK)
		rc = sort_members(v, err);
	if (rc == VQ_OK)
		rc = check_manifest(v, err);
	if (rc == VQ_OK)
		rc = check_hashes(v, v->whole, err);
	v->whole |= m->pages.data != NULL;
	if (rc < 0)
		vq_vqm_close(v);
	return rc;
}

int vq_vqm_open_fd(struct vq_vqm *v, int fd, const char *label, const void *head, size_t n,
		   unsigned how, struct vq_err *err)
{
	int rc = open_start(v, label, err);

	if (rc == VQ_OK)
		rc = take_fd(v, fd, head, n, how, err);
	return open_rest(v, rc, how, err);
}

int vq_vqm_open(struct vq_vqm *v, const char *path, unsigned how, struct vq_err *err)
{
	int rc;

	if (strcmp(path, "-") == 0)
		return vq_vqm_open_fd(v, STDIN_FILENO, "stdin", NULL, 0, how, err);
	rc = open_start(v, path, err);
	if (rc == VQ_OK)
		rc = how & VQ_VQM_LOAD ? vq_map_load(&v->priv->map, path, VQ_E_SYS, err)
				       : vq_map_open(&v->priv->map, path, VQ_E_SYS, err);
	return open_rest(v, rc, how, err);
}

int vq_vqm_is_tar(const void *head, size_t n)
{
	return n >= 262 && memcmp((const uint8_t *)head + 257, "ustar", 5) == 0;
}
