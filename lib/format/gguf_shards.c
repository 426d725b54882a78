/* The files of a GGUF model: one, or the shards of llama-gguf-split. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "format/ckpt_gguf.h"

static int open_shard(struct vq_gguf_shard *s, int fd, struct vq_err *err)
{
	struct stat st;
	int rc;

	if (fd < 0) {
		rc = vq_map_open(&s->map, s->path, VQ_E_DATA, err);
	} else if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		rc = vq_fail(err, VQ_E_DATA, "%s: want a GGUF in a plain file, got a pipe",
			     s->path);
	} else {
		rc = vq_map_fd(&s->map, fd, (size_t)st.st_size, 0, s->path, err);
	}
	return rc < 0 ? rc : vq_gguf_parse(&s->file, s->map.data, s->map.n, s->path, err);
}

/* "model-00001-of-00003.gguf", number 1 of 3, to number i. */
static int shard_path(char **out, const char *first, uint32_t i, uint32_t n, struct vq_err *err)
{
	char end[32], other[32];
	size_t len = strlen(first), tail;

	tail = (size_t)snprintf(end, sizeof(end), "-%05u-of-%05u.gguf", 1, n);
	if (len < tail || strcmp(first + len - tail, end) != 0)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: the first of %u shards; want a name that ends in '%s', by which the "
			"others are found",
			first, n, end);
	*out = vq_strdup(first, err);
	if (!*out)
		return VQ_E_SYS;
	snprintf(other, sizeof(other), "-%05u-of-%05u.gguf", i, n);
	memcpy(*out + len - tail, other, tail);
	return VQ_OK;
}

static int check_shard(const struct vq_gguf_shard *s, uint32_t i, uint32_t n, struct vq_err *err)
{
	uint32_t no = 0, count = 0;
	int rc = vq_gguf_get_u32(&s->file, "split.no", 0, 65535, &no, err);

	if (rc >= 0)
		rc = vq_gguf_get_u32(&s->file, "split.count", 0, 65535, &count, err);
	if (rc < 0)
		return rc;
	if (no != i || count != n)
		return vq_fail(err, VQ_E_DATA, "%s: want shard %u of %u, got %u of %u", s->path,
			       i + 1, n, no + 1, count);
	return VQ_OK;
}

int vq_gguf_open_shards(struct vq_gguf_model *m, const char *path, int fd, struct vq_err *err)
{
	uint32_t n = 1, no = 0, i;
	int rc;

	m->shards = vq_calloc(1, sizeof(*m->shards), err);
	if (!m->shards)
		return VQ_E_SYS;
	m->n_shards = 1;
	m->shards[0].path = vq_strdup(path, err);
	rc = m->shards[0].path ? open_shard(&m->shards[0], fd, err) : VQ_E_SYS;
	if (rc == VQ_OK)
		rc = vq_gguf_get_u32(&m->shards[0].file, "split.count", 0, 65535, &n, err);
	if (rc >= 0)
		rc = vq_gguf_get_u32(&m->shards[0].file, "split.no", 0, 65535, &no, err);
	if (rc >= 0 && no != 0)
		rc = vq_fail(
			err, VQ_E_DATA,
			"%s: shard %u of a model; want the first, which has the keys (its name has "
			"-00001-of-)",
			path, no + 1);
	if (rc < 0 || n <= 1)
		return rc;
	rc = vq_grow((void **)&m->shards, 1, n, sizeof(*m->shards), err);
	if (rc == VQ_OK)
		memset(m->shards + 1, 0, (n - 1) * sizeof(*m->shards));
	for (i = 1; rc == VQ_OK && i < n; i++) {
		struct vq_gguf_shard *s = &m->shards[i];

		m->n_shards++;
		rc = shard_path(&s->path, path, i + 1, n, err);
		if (rc == VQ_OK)
			rc = open_shard(s, -1, err);
		if (rc == VQ_OK)
			rc = check_shard(s, i, n, err);
	}
	return rc;
}

void vq_gguf_close_shards(struct vq_gguf_model *m)
{
	uint32_t s;

	for (s = 0; s < m->n_shards; s++) {
		vq_gguf_close(&m->shards[s].file);
		vq_map_close(&m->shards[s].map);
		vq_map_close(&m->shards[s].copy);
		vq_free(m->shards[s].path);
	}
	vq_free(m->shards);
}

const struct vq_gguf_tensor_info *vq_gguf_model_find(const struct vq_gguf_model *m,
						     const char *name)
{
	uint32_t s;
	size_t i;

	for (s = 0; s < m->n_shards; s++)
		for (i = 0; i < m->shards[s].file.n_tensors; i++)
			if (strcmp(m->shards[s].file.tensors[i].name, name) == 0)
				return &m->shards[s].file.tensors[i];
	return NULL;
}
