/* The files of a model. */
#include "format/tree.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

static const char config_name[] = "config.json";

/* --- opening --- */

static int is_compressed(const uint8_t *h, size_t n)
{
	return n >= 6 && (memcmp(h, "\x28\xb5\x2f\xfd", 4) == 0 || memcmp(h, "\x1f\x8b", 2) == 0 ||
			  memcmp(h,
				 "\xfd"
				 "7zXZ",
				 6) == 0 ||
			  memcmp(h, "BZh", 3) == 0);
}

int vq_tree_is_archive(const uint8_t *h, size_t n)
{
	static const char packed_first[] = "model.json"; /* format/vqm.h */
	int is_tar = n >= VQ_TREE_HEAD && memcmp(h + 257, "ustar", 5) == 0 &&
		     memcmp(h, packed_first, sizeof(packed_first)) != 0;

	return is_tar || is_compressed(h, n) || (n >= 4 && memcmp(h, "PK\3\4", 4) == 0);
}

static int begin(struct vq_tree *t, const char *path, struct vq_err *err)
{
	memset(t, 0, sizeof(*t));
	t->spool.fd = -1;
	t->path = vq_strdup(path, err);
	return t->path ? VQ_OK : VQ_E_SYS;
}

int vq_tree_open_folder(struct vq_tree *t, const char *path, struct vq_err *err)
{
	return begin(t, path, err);
}

static size_t depth(const char *name)
{
	size_t n = 0;

	for (; (name = strchr(name, '/')); name++)
		n++;
	return n;
}

/* The config.json that lies least deep says where the model is. */
static int find_root(struct vq_tree *t, struct vq_err *err)
{
	const char *best = NULL, *second = NULL;
	const size_t k = sizeof(config_name) - 1;
	size_t i, n;

	for (i = 0; i < t->members.n; i++) {
		const char *name = t->members.v[i].name;

		n = strlen(name);
		if (n < k || strcmp(name + n - k, config_name) != 0 ||
		    (n > k && name[n - k - 1] != '/'))
			continue;
		if (!best || depth(name) < depth(best)) {
			best = name;
			second = NULL;
		} else if (depth(name) == depth(best)) {
			second = name;
		}
	}
	if (!best || second)
		return best ? vq_fail(err, VQ_E_DATA, "%s: want one model, got '%.80s' and '%.80s'",
				      t->path, best, second)
			    : vq_fail(err, VQ_E_DATA,
				      "%s: no config.json in the archive; want that of a "
				      "model's folder",
				      t->path);
	n = strlen(best) - k;
	t->root = vq_alloc(n + 1, 1, err);
	if (!t->root)
		return VQ_E_SYS;
	memcpy(t->root, best, n);
	t->root[n] = '\0';
	return VQ_OK;
}

static int any_packed(const struct vq_members *m)
{
	size_t i;

	for (i = 0; i < m->n; i++)
		if (m->v[i].packed)
			return 1;
	return 0;
}

static int unpack(struct vq_tree *t, int fd, const void *head, size_t n, struct vq_err *err)
{
	int rc = vq_spool_open(&t->spool, err);

	if (rc == VQ_OK)
		rc = vq_members_unpack(&t->members, &t->spool, fd, head, n, t->path, err);
	if (rc == VQ_OK)
		rc = vq_spool_map(&t->spool, 0, err);
	t->data = t->spool.map.data;
	return rc;
}

/* Bytes of a plain file whose first n were read; 0 for anything else. */
static size_t plain_bytes(int fd, size_t n)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || lseek(fd, 0, SEEK_CUR) != (off_t)n)
		return 0;
	return (size_t)st.st_size;
}

int vq_tree_open_archive(struct vq_tree *t, int fd, const void *head, size_t n, const char *path,
			 struct vq_err *err)
{
	size_t bytes = plain_bytes(fd, n);
	int rc = begin(t, path, err), packed = !bytes || is_compressed(head, n);

	t->is_archive = 1;
	if (rc == VQ_OK && !packed) {
		rc = vq_map_fd(&t->map, fd, bytes, 0, path, err);
		if (rc == VQ_OK)
			rc = vq_members_read(&t->members, t->map.data, t->map.n, path, err);
		t->data = t->map.data;
		packed = rc == VQ_OK && any_packed(&t->members);
		if (packed) {
			vq_members_free(&t->members);
			vq_map_close(&t->map);
		}
	}
	if (rc == VQ_OK && packed)
		rc = unpack(t, fd, head, n, err);
	return rc < 0 ? rc : find_root(t, err);
}

void vq_tree_close(struct vq_tree *t)
{
	if (!t->path)
		return;
	vq_members_free(&t->members);
	vq_map_close(&t->map);
	vq_spool_close(&t->spool);
	vq_free(t->root);
	vq_free(t->path);
	memset(t, 0, sizeof(*t));
}

/* --- files --- */

static const struct vq_member *find(const struct vq_tree *t, const char *name)
{
	const struct vq_member *m;
	struct vq_str full = {0};

	vq_str_printf(&full, "%s%s", t->root, name);
	m = full.failed ? NULL : vq_members_find(&t->members, full.s);
	vq_str_free(&full);
	return m;
}

char *vq_tree_path(const struct vq_tree *t, const char *name, struct vq_err *err)
{
	return vq_path_join(t->path, name, err);
}

int vq_tree_has(const struct vq_tree *t, const char *name)
{
	char *path;
	int there;

	if (t->is_archive)
		return find(t, name) != NULL;
	path = vq_tree_path(t, name, NULL);
	there = path && vq_path_exists(path);
	vq_free(path);
	return there;
}

static int read_member(const struct vq_tree *t, const struct vq_member *m, size_t limit,
		       char **data, size_t *n, struct vq_err *err)
{
	if (m->n > limit)
		return vq_fail(err, VQ_E_DATA, "%s: '%s': want at most %zu bytes, got %zu", t->path,
			       m->name, limit, m->n);
	*data = vq_alloc(m->n + 1, 1, err);
	if (!*data)
		return VQ_E_SYS;
	if (m->n)
		memcpy(*data, t->data + m->at, m->n);
	(*data)[m->n] = '\0';
	*n = m->n;
	return 1;
}

int vq_tree_read(const struct vq_tree *t, const char *name, size_t limit, char **data, size_t *n,
		 struct vq_err *err)
{
	const struct vq_member *m = t->is_archive ? find(t, name) : NULL;
	char *path;
	int rc = 0;

	if (t->is_archive)
		return m ? read_member(t, m, limit, data, n, err) : 0;
	path = vq_tree_path(t, name, err);
	if (!path)
		return VQ_E_SYS;
	if (vq_path_exists(path)) {
		rc = vq_file_read(path, limit, VQ_E_DATA, data, n, err);
		rc = rc < 0 ? rc : 1;
	}
	vq_free(path);
	return rc;
}

/* --- pieces --- */

int vq_piece_open(struct vq_piece *p, const struct vq_tree *t, const char *name, struct vq_err *err)
{
	const struct vq_member *m = t->is_archive ? find(t, name) : NULL;
	int rc = VQ_OK;

	memset(p, 0, sizeof(*p));
	p->path = vq_tree_path(t, name, err);
	if (!p->path)
		return VQ_E_SYS;
	if (m) {
		p->at = m->at;
		p->data = t->data + m->at;
		p->n = m->n;
	} else if (t->is_archive) {
		rc = vq_fail(err, VQ_E_DATA, "%s: not in the archive", p->path);
	} else {
		rc = vq_map_open(&p->own, p->path, VQ_E_DATA, err);
		p->data = p->own.data;
		p->n = p->own.n;
	}
	if (rc < 0)
		vq_piece_close(p);
	return rc;
}

/* The whole archive moves with its first piece. */
static int load_archive(struct vq_tree *t, struct vq_err *err)
{
	struct vq_map *m = t->spool.fd >= 0 ? &t->spool.map : &t->map, copy;
	int rc;

	if (m->pages.data)
		return VQ_OK;
	if (t->spool.fd >= 0) {
		rc = vq_spool_map(&t->spool, 1, err);
	} else {
		rc = vq_map_load(&copy, t->path, VQ_E_SYS, err);
		if (rc == VQ_OK && copy.n != m->n) {
			vq_map_close(&copy);
			rc = vq_fail(err, VQ_E_DATA, "%s: has changed since it was opened",
				     t->path);
		}
		if (rc == VQ_OK) {
			vq_map_close(m);
			*m = copy;
		}
	}
	t->data = m->data;
	return rc;
}

int vq_piece_load(struct vq_piece *p, struct vq_tree *t, struct vq_err *err)
{
	struct vq_map copy;
	int rc;

	if (t->is_archive) {
		rc = load_archive(t, err);
		if (rc == VQ_OK)
			p->data = t->data + p->at;
		return rc;
	}
	rc = vq_map_load(&copy, p->path, VQ_E_SYS, err);
	if (rc == VQ_OK && copy.n != p->n) {
		vq_map_close(&copy);
		rc = vq_fail(err, VQ_E_DATA, "%s: has changed since it was opened", p->path);
	}
	if (rc < 0)
		return rc;
	vq_map_close(&p->own);
	p->own = copy;
	p->data = copy.data;
	return VQ_OK;
}

void vq_piece_close(struct vq_piece *p)
{
	vq_map_close(&p->own);
	vq_free(p->path);
	memset(p, 0, sizeof(*p));
}
