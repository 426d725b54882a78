/* The directory of an archive in memory. */
#include "format/members.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define MAX_MEMBERS    ((size_t)1 << 20)
#define LOCAL_BYTES    30u /* a ZIP's local header without name and extra field */
#define LOCAL_MAGIC    0x04034b50u
#define FLAG_ENCRYPTED 1u

struct walk {
	struct vq_members *m;
	size_t room;
	const uint8_t *data; /* the archive, or */
	size_t n;
	struct vq_spool *spool;  /* where its files go */
	int check;               /* data are read and compared with their checksums */
	const char *label, *now; /* now: the file at hand, or NULL */
	struct vq_err *err;
};

const char *vq_member_name(const char *name)
{
	const char *p;

	while (name[0] == '.' && name[1] == '/')
		name += 2;
	if (!*name || *name == '/' || strchr(name, '\\'))
		return NULL;
	for (p = name; p; p = strchr(p, '/')) {
		p += *p == '/';
		if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || !p[2]))
			return NULL;
	}
	return name;
}

static int bad(const struct walk *w, struct archive *a)
{
	if (w->err && w->err->code != VQ_OK) /* of reading */
		return w->err->code;
	return vq_fail(w->err, VQ_E_DATA, "%s: cut or damaged archive, %s '%.80s': %s", w->label,
		       w->now ? "in" : "after",
		       w->now    ? w->now
		       : w->m->n ? w->m->v[w->m->n - 1].name
				 : "its beginning",
		       archive_error_string(a) ? archive_error_string(a) : "no more is known");
}

static uint32_t little(const uint8_t *p, size_t n)
{
	uint32_t v = 0;

	while (n-- > 0)
		v = v << 8 | p[n];
	return v;
}

/* The header that ends where the data begin, or NULL.  Its length is not known: the extra field may have any. */
static const uint8_t *local_header(const struct walk *w, size_t at, const char *name)
{
	size_t n = strlen(name), extra;

	for (extra = 0; extra <= UINT16_MAX && LOCAL_BYTES + n + extra <= at; extra++) {
		const uint8_t *h = w->data + at - extra - n - LOCAL_BYTES;

		if (little(h, 4) == LOCAL_MAGIC && little(h + 26, 2) == n &&
		    little(h + 28, 2) == extra && memcmp(h + LOCAL_BYTES, name, n) == 0)
			return h;
	}
	return NULL;
}

/* Nobody but the local header says how a ZIP's member is kept. */
static int check_local(const struct walk *w, const char *name, struct vq_member *m)
{
	const uint8_t *h = local_header(w, m->at, name);

	if (!h)
		return vq_fail(w->err, VQ_E_DATA,
			       "%s: '%.80s': no local header before its data at %zu: the archive "
			       "is damaged",
			       w->label, name, m->at);
	if (little(h + 6, 2) & FLAG_ENCRYPTED)
		return vq_fail(w->err, VQ_E_DATA, "%s: '%.80s' is encrypted", w->label, name);
	m->packed = little(h + 8, 2) != 0;
	return VQ_OK;
}

static int check_kind(const struct walk *w, struct archive_entry *e, const char *name)
{
	if (archive_entry_filetype(e) != AE_IFREG || archive_entry_hardlink(e))
		return vq_fail(w->err, VQ_E_DATA,
			       "%s: '%.80s': want plain files, got a link or a device (tar -h, zip "
			       "without -y store what links lead to)",
			       w->label, name);
	if (archive_entry_sparse_count(e) > 0)
		return vq_fail(w->err, VQ_E_DATA, "%s: '%.80s': sparse files are not supported",
			       w->label, name);
	return VQ_OK;
}

/* Where the data of a file lie in memory. */
static int locate(const struct walk *w, struct archive *a, const char *name, struct vq_member *m)
{
	int rc = VQ_OK;

	m->at = (size_t)archive_filter_bytes(a, 0);
	if ((archive_format(a) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_ZIP)
		rc = check_local(w, name, m);
	if (rc == VQ_OK && (m->at > w->n || (!m->packed && m->n > w->n - m->at)))
		rc = vq_fail(w->err, VQ_E_DATA,
			     "%s: '%.80s': want %zu bytes at %zu, the file has %zu: it is cut",
			     w->label, name, m->n, m->at, w->n);
	return rc;
}

/* Nothing must follow a file's data: libarchive looks at a ZIP's checksum when it finds their end. */
static int at_end(const struct walk *w, struct archive *a)
{
	uint8_t more;

	return archive_read_data(a, &more, 1) == 0 ? VQ_OK : bad(w, a);
}

/* Reads the data of a file for their checksum. */
static int check_data(const struct walk *w, struct archive *a)
{
	const void *p;
	size_t n;
	int64_t at;
	int s;

	do
		s = archive_read_data_block(a, &p, &n, &at);
	while (s == ARCHIVE_OK);
	return s == ARCHIVE_EOF ? VQ_OK : bad(w, a);
}

/* The data of a file into the spool. */
static int unpack(const struct walk *w, struct archive *a, struct vq_member *m)
{
	void *to = NULL;
	size_t got = 0;
	int rc = m->n ? vq_spool_room(w->spool, m->n, &to, &m->at, w->err) : VQ_OK;

	while (rc == VQ_OK && got < m->n) {
		la_ssize_t k = archive_read_data(a, (char *)to + got, m->n - got);

		if (k <= 0)
			return bad(w, a);
		got += (size_t)k;
	}
	return rc == VQ_OK ? at_end(w, a) : rc;
}

static int add(struct walk *w, struct archive *a, struct archive_entry *e)
{
	const char *full = archive_entry_pathname(e), *name = full ? vq_member_name(full) : NULL;
	struct vq_member m = {0};
	int rc;

	if (full && archive_entry_filetype(e) == AE_IFDIR)
		return VQ_OK;
	if (!name)
		return vq_fail(w->err, VQ_E_DATA,
			       "%s: '%.80s': want a path that stays inside the archive", w->label,
			       full ? full : "");
	rc = check_kind(w, e, name);
	if (rc == VQ_OK && (!archive_entry_size_is_set(e) || archive_entry_size(e) < 0))
		rc = vq_fail(w->err, VQ_E_DATA,
			     "%s: '%.80s': its size stands after its data; want the archive as a "
			     "plain file, not through a pipe",
			     w->label, name);
	if (rc < 0)
		return rc;
	m.n = (size_t)archive_entry_size(e);
	w->now = name;
	rc = w->spool ? unpack(w, a, &m) : locate(w, a, full, &m);
	if (rc == VQ_OK && w->check)
		rc = check_data(w, a);
	if (rc == VQ_OK && w->m->n == MAX_MEMBERS)
		rc = vq_fail(w->err, VQ_E_DATA, "%s: want at most %zu members", w->label,
			     MAX_MEMBERS);
	if (rc == VQ_OK)
		rc = vq_grow_one((void **)&w->m->v, w->m->n, &w->room, sizeof(m), w->err);
	if (rc < 0)
		return rc;
	m.name = vq_strdup(name, w->err);
	if (!m.name)
		return VQ_E_SYS;
	w->m->v[w->m->n++] = m;
	w->now = NULL;
	return VQ_OK;
}

static int by_place(const void *a, const void *b)
{
	const struct vq_member *x = a, *y = b;

	return x->at != y->at ? (x->at < y->at ? -1 : 1) : (x->n > y->n) - (x->n < y->n);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct vq_member *)a)->name, ((const struct vq_member *)b)->name);
}

static int check_all(const struct walk *w)
{
	struct vq_member *v = w->m->v;
	size_t i;

	if (w->m->n < 2)
		return VQ_OK;
	qsort(v, w->m->n, sizeof(*v), by_place);
	for (i = 1; i < w->m->n; i++)
		if (!v[i - 1].packed && v[i - 1].n > v[i].at - v[i - 1].at)
			return vq_fail(w->err, VQ_E_DATA, "%s: '%.80s' and '%.80s' overlap",
				       w->label, v[i - 1].name, v[i].name);
	qsort(v, w->m->n, sizeof(*v), by_name);
	for (i = 1; i < w->m->n; i++)
		if (strcmp(v[i - 1].name, v[i].name) == 0)
			return vq_fail(w->err, VQ_E_DATA, "%s: '%.80s' is there twice", w->label,
				       v[i].name);
	return VQ_OK;
}

/* Any warning counts: among them is a local header that does not agree with the directory. */
static int walk_all(struct walk *w, struct archive *a)
{
	struct archive_entry *e;
	int rc = VQ_OK, s;

	while (rc == VQ_OK && (s = archive_read_next_header(a, &e)) != ARCHIVE_EOF)
		rc = s == ARCHIVE_OK ? add(w, a, e) : bad(w, a);
	return rc < 0 ? rc : check_all(w);
}

static int read_mapped(struct vq_members *m, struct walk w)
{
	struct archive *a = archive_read_new();
	int rc;

	memset(m, 0, sizeof(*m));
	if (!a)
		return vq_fail(w.err, VQ_E_SYS, "memory: cannot read an archive");
	archive_read_support_format_tar(a);
	archive_read_support_format_zip_seekable(a);
	rc = archive_read_open_memory(a, w.data, w.n) == ARCHIVE_OK ? walk_all(&w, a) : bad(&w, a);
	archive_read_free(a);
	if (rc < 0)
		vq_members_free(m);
	return rc;
}

int vq_members_read(struct vq_members *m, const uint8_t *data, size_t n, const char *label,
		    struct vq_err *err)
{
	return read_mapped(m,
			   (struct walk){.m = m, .data = data, .n = n, .label = label, .err = err});
}

int vq_members_check(struct vq_members *m, const uint8_t *data, size_t n, const char *label,
		     struct vq_err *err)
{
	return read_mapped(
		m, (struct walk){
			   .m = m, .data = data, .n = n, .check = 1, .label = label, .err = err});
}

/* Bytes for libarchive: those read already, then the descriptor's. */
struct pipe {
	const void *head;
	size_t n_head;
	int fd;
	uint8_t buf[65536];
	struct vq_err *err; /* of reading */
	const char *label;
};

static la_ssize_t give(struct archive *a, void *data, const void **out)
{
	struct pipe *p = data;
	size_t n = p->n_head;

	*out = p->head;
	p->n_head = 0;
	if (n)
		return (la_ssize_t)n;
	*out = p->buf;
	if (vq_read_upto(p->fd, p->buf, sizeof(p->buf), &n, p->label, p->err) < 0) {
		archive_set_error(a, EIO, "cannot read");
		return -1;
	}
	return (la_ssize_t)n;
}

int vq_members_unpack(struct vq_members *m, struct vq_spool *s, int fd, const void *head, size_t n,
		      const char *label, struct vq_err *err)
{
	struct walk w = {.m = m, .spool = s, .label = label, .err = err};
	struct pipe *p = vq_alloc(1, sizeof(*p), err);
	struct archive *a = archive_read_new();
	int rc = VQ_E_SYS;

	memset(m, 0, sizeof(*m));
	if (!p || !a) {
		vq_fail(err, VQ_E_SYS, "memory: cannot read an archive");
		goto out;
	}
	p->head = head;
	p->n_head = n;
	p->fd = fd;
	p->err = err;
	p->label = label;
	archive_read_support_format_tar(a);
	archive_read_support_format_zip_streamable(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_bzip2(a);
	rc = archive_read_open(a, p, NULL, give, NULL) == ARCHIVE_OK ? walk_all(&w, a) : bad(&w, a);
out:
	if (a)
		archive_read_free(a);
	vq_free(p);
	if (rc < 0)
		vq_members_free(m);
	return rc;
}

void vq_members_free(struct vq_members *m)
{
	size_t i;

	for (i = 0; i < m->n; i++)
		vq_free(m->v[i].name);
	vq_free(m->v);
	memset(m, 0, sizeof(*m));
}

const struct vq_member *vq_members_find(const struct vq_members *m, const char *name)
{
	struct vq_member key = {.name = (char *)(uintptr_t)name};

	return m->n ? bsearch(&key, m->v, m->n, sizeof(key), by_name) : NULL;
}
