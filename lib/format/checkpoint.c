/* A checkpoint: which back-end, and what is the same for all of them. */
#include "format/checkpoint.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/str.h"
#include "format/checkpoint_back.h"
#include "format/token_files.h"

static const struct vq_ckpt_back *const backs[] = {&vq_ckpt_folder, &vq_ckpt_stream, &vq_ckpt_gguf,
						   &vq_ckpt_llama2c};

#define N_BACKS (sizeof(backs) / sizeof(backs[0]))

static int compare_slots(const void *a, const void *b)
{
	const struct vq_ckpt_slot *x = a, *y = b;

	return strcmp(x->name, y->name);
}

/* Opens what the command line named; a file to its first bytes. */
static int open_input(struct vq_ckpt *c, const char *path, struct vq_err *err)
{
	int is_stdin = strcmp(path, "-") == 0;

	c->path = vq_strdup(is_stdin ? "stdin" : path, err);
	if (!c->path)
		return VQ_E_SYS;
	if (!is_stdin && !vq_path_exists(path))
		return vq_fail(err, VQ_E_SYS, "%s: no such model", path);
	if (!is_stdin && vq_path_is_dir(path))
		return VQ_OK;
	c->fd = is_stdin ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
	if (c->fd < 0)
		return vq_fail_errno(err, VQ_E_SYS, "%s: cannot open", c->path);
	return vq_read_upto(c->fd, c->head, sizeof(c->head), &c->n_head, c->path, err);
}

static int choose_back(struct vq_ckpt *c, struct vq_err *err)
{
	struct vq_str known = {0};
	size_t i;
	int rc;

	for (i = 0; i < N_BACKS; i++)
		if (backs[i]->takes(c)) {
			c->back = backs[i];
			return VQ_OK;
		}
	for (i = 0; i < N_BACKS; i++)
		vq_str_printf(&known, "%s%s", i ? ", or " : "", backs[i]->what);
	rc = vq_fail(err, VQ_E_DATA, "%s: want %s; got %s", c->path, known.s ? known.s : "a model",
		     c->n_head ? "a file of another kind"
			       : "an empty file (did the program before this one fail?)");
	vq_str_free(&known);
	return rc;
}

static int sort_slots(struct vq_ckpt *c, struct vq_err *err)
{
	size_t i;

	if (c->n > 1)
		qsort(c->slots, c->n, sizeof(*c->slots), compare_slots);
	for (i = 1; i < c->n; i++)
		if (strcmp(c->slots[i - 1].name, c->slots[i].name) == 0)
			return vq_fail(err, VQ_E_DATA, "%s: tensor '%s' is also in %s",
				       c->slots[i].where, c->slots[i].name, c->slots[i - 1].where);
	return VQ_OK;
}

int vq_ckpt_open(struct vq_ckpt **out, const char *path, struct vq_err *err)
{
	struct vq_ckpt *c = vq_calloc(1, sizeof(*c), err);
	int rc;

	if (!c)
		return VQ_E_SYS;
	c->fd = -1;
	rc = open_input(c, path, err);
	if (rc == VQ_OK)
		rc = choose_back(c, err);
	if (rc == VQ_OK)
		rc = c->back->open(c, err);
	if (rc == VQ_OK)
		rc = sort_slots(c, err);
	if (rc < 0) {
		vq_ckpt_close(c);
		return rc;
	}
	*out = c;
	return VQ_OK;
}

int vq_ckpt_takes(const char *path)
{
	struct vq_ckpt c = {.path = (char *)(uintptr_t)path};
	struct stat st;
	int taken = 0;
	size_t i;

	c.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (c.fd < 0)
		return 0;
	if (fstat(c.fd, &st) == 0 && S_ISREG(st.st_mode) &&
	    vq_read_upto(c.fd, c.head, sizeof(c.head), &c.n_head, path, NULL) == VQ_OK)
		for (i = 0; i < N_BACKS; i++)
			taken |= backs[i]->takes(&c);
	close(c.fd);
	return taken;
}

void vq_ckpt_close(struct vq_ckpt *c)
{
	if (!c)
		return;
	vq_ckpt_close(c->part);
	if (c->back)
		c->back->close(c);
	if (c->fd >= 0)
		close(c->fd);
	vq_free(c->slots);
	json_decref(c->config);
	json_decref(c->header);
	vq_free(c->path);
	vq_free(c);
}

int vq_ckpt_tower(const struct vq_ckpt *c, char **path, struct vq_err *err)
{
	return c->back->tower ? c->back->tower(c, path, err) : 0;
}

int vq_ckpt_join(struct vq_ckpt *c, struct vq_ckpt *part, struct vq_err *err)
{
	c->part = part;
	return c->back->join ? c->back->join(c, err) : VQ_OK;
}

const struct vq_ckpt *vq_ckpt_part(const struct vq_ckpt *c)
{
	return c->part;
}

const char *vq_ckpt_path(const struct vq_ckpt *c)
{
	return c->path;
}

enum vq_ckpt_form vq_ckpt_form(const struct vq_ckpt *c)
{
	return c->form;
}

int vq_ckpt_ready(struct vq_ckpt *c, struct vq_err *err)
{
	int rc = c->back->ready ? c->back->ready(c, err) : VQ_OK;

	return rc >= 0 && c->part ? vq_ckpt_ready(c->part, err) : rc;
}

uint64_t vq_ckpt_unready(const struct vq_ckpt *c)
{
	uint64_t bytes = c->part ? vq_ckpt_unready(c->part) : 0;
	size_t i, n;

	for (i = 0; i < c->n; i++) {
		const struct vq_tensor *t = c->slots[i].t;

		if (!t->data && vq_tensor_count(t, &n) == VQ_OK)
			bytes += (uint64_t)n * vq_dtype_size(t->dtype);
	}
	return bytes;
}

int vq_ckpt_load(struct vq_ckpt *c, struct vq_err *err)
{
	int rc = c->back->load(c, err);

	return rc >= 0 && c->part ? vq_ckpt_load(c->part, err) : rc;
}

int vq_ckpt_lock(const struct vq_ckpt *c, struct vq_err *err)
{
	int rc = c->back->lock(c, err);

	return rc >= 0 && c->part ? vq_ckpt_lock(c->part, err) : rc;
}

const struct vq_tensor *vq_ckpt_find(const struct vq_ckpt *c, const char *name, const char **where)
{
	struct vq_ckpt_slot key = {.name = name};
	const struct vq_ckpt_slot *s =
		c->n ? bsearch(&key, c->slots, c->n, sizeof(key), compare_slots) : NULL;

	if (!s)
		return c->part ? vq_ckpt_find(c->part, name, where) : NULL;
	if (where)
		*where = s->where;
	return s->t;
}

size_t vq_ckpt_count(const struct vq_ckpt *c)
{
	return c->n;
}

const char *vq_ckpt_name(const struct vq_ckpt *c, size_t i)
{
	return c->slots[i].name;
}

const json_t *vq_ckpt_config(const struct vq_ckpt *c)
{
	return c->config;
}

const json_t *vq_ckpt_header(const struct vq_ckpt *c)
{
	return c->header;
}

int vq_ckpt_file(const struct vq_ckpt *c, const char *name, char **data, size_t *n,
		 struct vq_err *err)
{
	int rc = c->back->file(c, name, data, n, err);

	if (rc == 0 && c->form == VQ_CKPT_HF && strcmp(name, "tokenizer.json") == 0)
		rc = vq_token_files(c, data, n, err);
	return rc;
}

int vq_ckpt_identity(const struct vq_ckpt *c, char *hex, struct vq_err *err)
{
	struct sha256_ctx ctx;
	char text[256];
	size_t i;

	sha256_init(&ctx);
	if (c->part) {
		if (vq_ckpt_identity(c->part, hex, err) < 0)
			return VQ_E_SYS;
		sha256_update(&ctx, strlen(hex), (const uint8_t *)hex);
	}
	sha256_update(&ctx, strlen(c->config_sha), (const uint8_t *)c->config_sha);
	for (i = 0; i < c->n; i++) {
		const struct vq_ckpt_slot *s = &c->slots[i];
		const char *type = vq_dtype_name(s->t->dtype);

		/* Zero bytes keep neighbours apart: no name or text contains one. */
		sha256_update(&ctx, strlen(s->name) + 1, (const uint8_t *)s->name);
		sha256_update(&ctx, strlen(type) + 1, (const uint8_t *)type);
		vq_shape_text(s->t->n_dims, s->t->dims, text, sizeof(text));
		sha256_update(&ctx, strlen(text) + 1, (const uint8_t *)text);
		if (s->hash)
			sha256_update(&ctx, sizeof(s->hash), (const uint8_t *)&s->hash);
	}
	vq_sha256_hex(&ctx, hex);
	return VQ_OK;
}
