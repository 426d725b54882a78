/* A checkpoint folder: config.json, model.safetensors or shards with an index, side files. */
#include "format/checkpoint.h"

#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "format/safetensors.h"

#define SIDE_LIMIT ((size_t)256 << 20) /* bytes of a side file; real tokenizers have 0.5 to 20 MB */
#define MAX_SHARDS 4096u

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

struct slot {
	const char *name; /* in a shard's entry */
	const struct vq_tensor *t;
	uint32_t shard;
};

struct vq_ckpt {
	char *path;
	json_t *config;
	char config_sha[VQ_SHA256_HEX];
	struct vq_st *shards;
	uint32_t n_shards;
	struct slot *slots; /* of all shards, sorted by name */
	size_t n;
};

static int compare_slots(const void *a, const void *b)
{
	const struct slot *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static int open_shard(struct vq_ckpt *c, const char *name, struct vq_err *err)
{
	char *path = vq_path_join(c->path, name, err);
	int rc;

	if (!path)
		return VQ_E_SYS;
	rc = vq_st_open(&c->shards[c->n_shards], path, VQ_E_DATA, err);
	if (rc == VQ_OK)
		c->n_shards++;
	vq_free(path);
	return rc;
}

/* Gathers the entries of all shards; a tensor may be in one only. */
static int merge_shards(struct vq_ckpt *c, struct vq_err *err)
{
	size_t i, k = 0, total = 0;
	uint32_t s;

	for (s = 0; s < c->n_shards; s++)
		total += c->shards[s].n;
	c->slots = vq_calloc(total, sizeof(*c->slots), err);
	if (!c->slots)
		return VQ_E_SYS;
	for (s = 0; s < c->n_shards; s++)
		for (i = 0; i < c->shards[s].n; i++, k++) {
			c->slots[k].name = c->shards[s].entries[i].name;
			c->slots[k].t = &c->shards[s].entries[i].t;
			c->slots[k].shard = s;
		}
	c->n = total;
	if (total > 1)
		qsort(c->slots, total, sizeof(*c->slots), compare_slots);
	for (i = 1; i < total; i++)
		if (strcmp(c->slots[i - 1].name, c->slots[i].name) == 0)
			return vq_fail(err, VQ_E_DATA, "%s: tensor '%s' is also in %s",
				       c->shards[c->slots[i].shard].path, c->slots[i].name,
				       c->shards[c->slots[i - 1].shard].path);
	return VQ_OK;
}

/* A shard lies beside its index: a name that leads anywhere else is refused. */
static int check_shard_name(const char *name, const char *tensor, const char *index,
			    struct vq_err *err)
{
	if (!name || !*name || strchr(name, '/') || strchr(name, '\\') || strcmp(name, ".") == 0 ||
	    strstr(name, ".."))
		return vq_fail(err, VQ_E_DATA,
			       "%s: tensor '%s': want the name of a file beside the index, got "
			       "'%s'",
			       index, tensor, name ? name : "no string");
	return VQ_OK;
}

/* Position of the shard's file among those open, or n_shards. */
static uint32_t find_shard(const struct vq_ckpt *c, const char *name)
{
	uint32_t s;

	for (s = 0; s < c->n_shards; s++) {
		const char *slash = strrchr(c->shards[s].path, '/');

		if (strcmp(slash ? slash + 1 : c->shards[s].path, name) == 0)
			break;
	}
	return s;
}

/* The set of shard names in the weight map, as keys of an object: each once, in order of appearance. */
static int shard_names(json_t *map, json_t *names, const char *index, struct vq_err *err)
{
	const char *tensor;
	json_t *v;

	json_object_foreach(map, tensor, v)
	{
		const char *name = json_string_value(v);
		int rc = check_shard_name(name, tensor, index, err);

		if (rc < 0)
			return rc;
		json_object_set_new(names, name, json_null());
	}
	if (json_object_size(names) == 0 || json_object_size(names) > MAX_SHARDS)
		return vq_fail(err, VQ_E_DATA, "%s: 'weight_map': want 1 to %u shards, got %zu",
			       index, MAX_SHARDS, json_object_size(names));
	return VQ_OK;
}

static int open_indexed(struct vq_ckpt *c, const char *index, struct vq_err *err)
{
	int rc = VQ_E_DATA;
	json_t *j = vq_json_file(index, VQ_E_DATA, err), *map;
	json_t *names = json_object(), *v;
	const char *key;

	if (!j)
		goto out;
	map = json_object_get(j, "weight_map");
	if (!json_is_object(map)) {
		rc = vq_fail(err, VQ_E_DATA, "%s: want an object 'weight_map'", index);
		goto out;
	}
	rc = shard_names(map, names, index, err);
	if (rc < 0)
		goto out;
	c->shards = vq_calloc(json_object_size(names), sizeof(*c->shards), err);
	if (!c->shards) {
		rc = VQ_E_SYS;
		goto out;
	}
	json_object_foreach(names, key, v)
	{
		rc = open_shard(c, key, err);
		if (rc < 0)
			goto out;
	}
	json_object_foreach(map, key, v)
	{
		const struct vq_st *st = &c->shards[find_shard(c, json_string_value(v))];

		if (!vq_st_find(st, key)) {
			rc = vq_fail(err, VQ_E_DATA,
				     "%s: tensor '%s' is not in the shard that the index names",
				     st->path, key);
			goto out;
		}
	}
out:
	json_decref(names);
	json_decref(j);
	return rc;
}

static int open_weights(struct vq_ckpt *c, struct vq_err *err)
{
	int rc;
	char *single = vq_path_join(c->path, single_name, err);
	char *index = vq_path_join(c->path, index_name, err);

	if (!single || !index) {
		rc = VQ_E_SYS;
	} else if (vq_path_exists(single)) {
		c->shards = vq_calloc(1, sizeof(*c->shards), err);
		rc = c->shards ? open_shard(c, single_name, err) : VQ_E_SYS;
	} else if (vq_path_exists(index)) {
		rc = open_indexed(c, index, err);
	} else {
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: want %s or %s in the folder, found neither; PyTorch .bin files "
			     "must be converted to safetensors first",
			     c->path, single_name, index_name);
	}
	vq_free(single);
	vq_free(index);
	return rc < 0 ? rc : merge_shards(c, err);
}

static int open_config(struct vq_ckpt *c, struct vq_err *err)
{
	char *data = NULL, *path = vq_path_join(c->path, "config.json", err);
	size_t n;
	int rc = path ? vq_ckpt_file(c, "config.json", &data, &n, err) : VQ_E_SYS;

	if (rc == 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: no config.json; want a Hugging Face model folder",
			     c->path);
	if (rc > 0) {
		vq_sha256_of(data, n, c->config_sha);
		c->config = vq_json_parse(data, n, path, err);
		rc = !c->config ? VQ_E_DATA : VQ_OK;
		if (c->config && !json_is_object(c->config))
			rc = vq_fail(err, VQ_E_DATA, "%s: want an object", path);
	}
	vq_free(data);
	vq_free(path);
	return rc;
}

int vq_ckpt_open(struct vq_ckpt **out, const char *path, struct vq_err *err)
{
	int rc = VQ_OK;
	struct vq_ckpt *c = vq_calloc(1, sizeof(*c), err);

	if (!c)
		return VQ_E_SYS;
	c->path = vq_strdup(path, err);
	if (!c->path)
		rc = VQ_E_SYS;
	else if (!vq_path_exists(path))
		rc = vq_fail(err, VQ_E_SYS, "%s: no such model folder", path);
	else if (!vq_path_is_dir(path))
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: want a folder with config.json and safetensors, got a file",
			     path);
	if (rc == VQ_OK)
		rc = open_config(c, err);
	if (rc == VQ_OK)
		rc = open_weights(c, err);
	if (rc < 0) {
		vq_ckpt_close(c);
		return rc;
	}
	*out = c;
	return VQ_OK;
}

void vq_ckpt_close(struct vq_ckpt *c)
{
	uint32_t s;

	if (!c)
		return;
	for (s = 0; s < c->n_shards; s++)
		vq_st_close(&c->shards[s]);
	vq_free(c->shards);
	vq_free(c->slots);
	json_decref(c->config);
	vq_free(c->path);
	vq_free(c);
}

const char *vq_ckpt_path(const struct vq_ckpt *c)
{
	return c->path;
}

int vq_ckpt_load(struct vq_ckpt *c, struct vq_err *err)
{
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0; rc >= 0 && i < c->n_shards; i++)
		rc = vq_st_load(&c->shards[i], err);
	return rc;
}

int vq_ckpt_lock(const struct vq_ckpt *c, struct vq_err *err)
{
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0; rc >= 0 && i < c->n_shards; i++)
		rc = vq_pages_lock(c->shards[i].map.data, c->shards[i].map.n, err);
	return rc;
}

const struct vq_tensor *vq_ckpt_find(const struct vq_ckpt *c, const char *name, const char **where)
{
	struct slot key = {.name = name};
	const struct slot *s =
		c->n ? bsearch(&key, c->slots, c->n, sizeof(key), compare_slots) : NULL;

	if (!s)
		return NULL;
	if (where)
		*where = c->shards[s->shard].path;
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

int vq_ckpt_file(const struct vq_ckpt *c, const char *name, char **data, size_t *n,
		 struct vq_err *err)
{
	char *path = vq_path_join(c->path, name, err);
	int rc = 0;

	if (!path)
		return VQ_E_SYS;
	if (vq_path_exists(path)) {
		rc = vq_file_read(path, SIDE_LIMIT, VQ_E_DATA, data, n, err);
		rc = rc < 0 ? rc : 1;
	}
	vq_free(path);
	return rc;
}

int vq_ckpt_identity(const struct vq_ckpt *c, char *hex, struct vq_err *err)
{
	struct sha256_ctx ctx;
	char text[256];
	size_t i;

	(void)err; /* nothing here fails today */
	sha256_init(&ctx);
	sha256_update(&ctx, strlen(c->config_sha), (const uint8_t *)c->config_sha);
	for (i = 0; i < c->n; i++) {
		const struct slot *s = &c->slots[i];
		const char *type = vq_dtype_name(s->t->dtype);

		/* Zero bytes keep neighbours apart: no name or text contains one. */
		sha256_update(&ctx, strlen(s->name) + 1, (const uint8_t *)s->name);
		sha256_update(&ctx, strlen(type) + 1, (const uint8_t *)type);
		vq_shape_text(s->t->n_dims, s->t->dims, text, sizeof(text));
		sha256_update(&ctx, strlen(text) + 1, (const uint8_t *)text);
	}
	vq_sha256_hex(&ctx, hex);
	return VQ_OK;
}
