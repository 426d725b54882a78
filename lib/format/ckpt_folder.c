/* A checkpoint folder, or an archive of one: config.json, side files, and weights as safetensors or PyTorch files, single
 * or in shards with an index. */
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/str.h"
#include "format/checkpoint_back.h"
#include "format/torch.h"
#include "format/tree.h"

#define MAX_SHARDS 4096u

/* The files that weights may be in, in order of preference. */
static const struct kind {
	const char *single, *index;
} kinds[] = {
	{"model.safetensors", "model.safetensors.index.json"},
	{"pytorch_model.bin", "pytorch_model.bin.index.json"},
};

#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* A file with tensors: st or torch, the other is empty. */
struct shard {
	char *name; /* in the folder */
	struct vq_piece file;
	struct vq_st st;
	struct vq_torch torch;
	struct vq_st_entry *entries; /* of either */
	size_t n;
};

struct folder {
	struct vq_tree tree;
	struct shard *shards;
	uint32_t n_shards;
};

static int parse_shard(struct shard *s, struct vq_err *err)
{
	int rc;

	if (vq_torch_is(s->file.data, s->file.n)) {
		rc = vq_torch_open(&s->torch, s->file.data, s->file.n, s->file.path, err);
		s->entries = s->torch.entries;
		s->n = s->torch.n;
	} else {
		rc = vq_st_parse(&s->st, s->file.data, s->file.n, s->file.path, err);
		s->entries = s->st.entries;
		s->n = s->st.n;
	}
	return rc;
}

/* What a failed step took is freed with the folder. */
static int open_shard(struct vq_ckpt *c, const char *name, struct vq_err *err)
{
	struct folder *f = c->priv;
	struct shard *s = &f->shards[f->n_shards++];
	int rc;

	s->torch.copies.fd = -1;
	s->name = vq_strdup(name, err);
	rc = s->name ? vq_piece_open(&s->file, &f->tree, name, err) : VQ_E_SYS;
	return rc < 0 ? rc : parse_shard(s, err);
}

/* The entries of all shards. */
static int list_tensors(struct vq_ckpt *c, struct vq_err *err)
{
	const struct folder *f = c->priv;
	size_t i, total = 0;
	uint32_t s;

	for (s = 0; s < f->n_shards; s++)
		total += f->shards[s].n;
	c->slots = vq_calloc(total, sizeof(*c->slots), err);
	if (!c->slots)
		return VQ_E_SYS;
	for (s = 0; s < f->n_shards; s++)
		for (i = 0; i < f->shards[s].n; i++)
			c->slots[c->n++] =
				(struct vq_ckpt_slot){.name = f->shards[s].entries[i].name,
						      .t = &f->shards[s].entries[i].t,
						      .where = f->shards[s].file.path};
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

/* The shard of that name, which is open. */
static const struct shard *find_shard(const struct folder *f, const char *name)
{
	const struct shard *s = f->shards;

	while (strcmp(s->name, name) != 0)
		s++;
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

/* Opens every shard that the weight map names. */
static int open_shards(struct vq_ckpt *c, json_t *map, const char *index, struct vq_err *err)
{
	struct folder *f = c->priv;
	json_t *names = json_object(), *v;
	const char *key;
	int rc = shard_names(map, names, index, err);

	if (rc == VQ_OK) {
		f->shards = vq_calloc(json_object_size(names), sizeof(*f->shards), err);
		rc = f->shards ? VQ_OK : VQ_E_SYS;
	}
	json_object_foreach(names, key, v)
	{
		if (rc == VQ_OK)
			rc = open_shard(c, key, err);
	}
	json_decref(names);
	return rc;
}

static int open_indexed(struct vq_ckpt *c, const char *name, struct vq_err *err)
{
	struct folder *f = c->priv;
	char *data = NULL, *index = vq_tree_path(&f->tree, name, err);
	json_t *j = NULL, *map, *v;
	const char *key;
	size_t n = 0;
	int rc =
		index ? vq_tree_read(&f->tree, name, VQ_CKPT_SIDE_LIMIT, &data, &n, err) : VQ_E_SYS;

	if (rc < 0)
		goto out;
	j = vq_json_parse(data, n, index, err);
	rc = j ? VQ_OK : VQ_E_DATA;
	if (rc < 0)
		goto out;
	map = json_object_get(j, "weight_map");
	rc = json_is_object(map)
		     ? open_shards(c, map, index, err)
		     : vq_fail(err, VQ_E_DATA, "%s: want an object 'weight_map'", index);
	if (rc < 0)
		goto out;
	json_object_foreach(map, key, v)
	{
		const struct shard *s = find_shard(f, json_string_value(v));

		if (!vq_st_lookup(s->entries, s->n, key)) {
			rc = vq_fail(err, VQ_E_DATA,
				     "%s: tensor '%s' is not in the shard that the index names",
				     s->file.path, key);
			goto out;
		}
	}
out:
	json_decref(j);
	vq_free(data);
	vq_free(index);
	return rc;
}

static int open_single(struct vq_ckpt *c, const char *name, struct vq_err *err)
{
	struct folder *f = c->priv;

	f->shards = vq_calloc(1, sizeof(*f->shards), err);
	return f->shards ? open_shard(c, name, err) : VQ_E_SYS;
}

/* only: the name of the file to take, or NULL. */
static int open_weights(struct vq_ckpt *c, const char *only, struct vq_err *err)
{
	struct folder *f = c->priv;
	struct vq_str known = {0};
	int rc = 1;
	size_t i;

	if (only)
		rc = open_single(c, only, err);
	for (i = 0; rc > 0 && i < N_KINDS; i++) {
		if (vq_tree_has(&f->tree, kinds[i].single))
			rc = open_single(c, kinds[i].single, err);
		else if (vq_tree_has(&f->tree, kinds[i].index))
			rc = open_indexed(c, kinds[i].index, err);
		vq_str_printf(&known, "%s%s or %s", i ? ", " : "", kinds[i].single, kinds[i].index);
	}
	if (rc > 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: want %s, found none of them", c->path,
			     known.s ? known.s : "weights");
	vq_str_free(&known);
	return rc < 0 ? rc : list_tensors(c, err);
}

static int read_file(const struct vq_ckpt *c, const char *name, char **data, size_t *n,
		     struct vq_err *err)
{
	const struct folder *f = c->priv;

	return vq_tree_read(&f->tree, name, VQ_CKPT_SIDE_LIMIT, data, n, err);
}

static int open_config(struct vq_ckpt *c, struct vq_err *err)
{
	char *data = NULL, *path = vq_path_join(c->path, "config.json", err);
	size_t n;
	int rc = path ? read_file(c, "config.json", &data, &n, err) : VQ_E_SYS;

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

/* An archive with a data.pkl is a PyTorch file, and the model is the folder that it lies in. */
static int is_torch_file(const struct vq_ckpt *c)
{
	struct vq_members m = {0};
	struct vq_map map = {0};
	size_t i, n;
	int found = 0;

	if (!vq_torch_is(c->head, c->n_head) || memcmp(c->head, "PK", 2) != 0)
		return vq_torch_is(c->head, c->n_head);
	if (vq_map_open(&map, c->path, VQ_E_DATA, NULL) == VQ_OK &&
	    vq_members_read(&m, map.data, map.n, c->path, NULL) == VQ_OK)
		for (i = 0; i < m.n; i++) {
			n = strlen(m.v[i].name);
			found |= n >= 9 && strcmp(m.v[i].name + n - 9, "/data.pkl") == 0;
		}
	vq_members_free(&m);
	vq_map_close(&map);
	return found;
}

static int takes(const struct vq_ckpt *c)
{
	return c->fd < 0 || vq_tree_is_archive(c->head, c->n_head) ||
	       vq_torch_is(c->head, c->n_head);
}

/* "dir/model.pt" -> the folder, which is the checkpoint's path from now on, and the name in it (given). */
static int split_path(struct vq_ckpt *c, char **name, struct vq_err *err)
{
	const char *slash = strrchr(c->path, '/');
	char *dir = vq_path_dir(c->path, err);

	*name = dir ? vq_strdup(slash ? slash + 1 : c->path, err) : NULL;
	if (!*name) {
		vq_free(dir);
		return VQ_E_SYS;
	}
	vq_free(c->path);
	c->path = dir;
	return VQ_OK;
}

static int open_folder(struct vq_ckpt *c, struct vq_err *err)
{
	struct folder *f = vq_calloc(1, sizeof(*f), err);
	char *only = NULL;
	int rc;

	if (!f)
		return VQ_E_SYS;
	c->priv = f;
	if (c->fd >= 0 && is_torch_file(c))
		rc = split_path(c, &only, err);
	else
		rc = VQ_OK;
	if (rc == VQ_OK && c->fd >= 0 && !only)
		rc = vq_tree_open_archive(&f->tree, c->fd, c->head, c->n_head, c->path, err);
	else if (rc == VQ_OK)
		rc = vq_tree_open_folder(&f->tree, c->path, err);
	if (rc == VQ_OK)
		rc = open_config(c, err);
	if (rc == VQ_OK)
		rc = open_weights(c, only, err);
	vq_free(only);
	return rc;
}

static void close_folder(struct vq_ckpt *c)
{
	struct folder *f = c->priv;
	uint32_t i;

	if (!f)
		return;
	for (i = 0; i < f->n_shards; i++) {
		struct shard *s = &f->shards[i];

		vq_torch_close(&s->torch);
		vq_st_close(&s->st);
		vq_piece_close(&s->file);
		vq_free(s->name);
	}
	vq_free(f->shards);
	vq_tree_close(&f->tree);
	vq_free(f);
}

/* Tensors in the file move with it; copies of those that were not row-major stay. */
static int load_shard(struct shard *s, struct vq_tree *t, struct vq_err *err)
{
	const uint8_t *was = s->file.data;
	size_t i;
	int rc = vq_piece_load(&s->file, t, err);

	for (i = 0; rc == VQ_OK && i < s->n; i++) {
		const uint8_t *p = s->entries[i].t.data;

		if (p >= was && p <= was + s->file.n)
			s->entries[i].t.data = s->file.data + (p - was);
	}
	return rc;
}

static int load_folder(struct vq_ckpt *c, struct vq_err *err)
{
	struct folder *f = c->priv;
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0; rc >= 0 && i < f->n_shards; i++)
		rc = load_shard(&f->shards[i], &f->tree, err);
	return rc;
}

static int lock_folder(const struct vq_ckpt *c, struct vq_err *err)
{
	const struct folder *f = c->priv;
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0; rc >= 0 && i < f->n_shards; i++)
		rc = vq_pages_lock(f->shards[i].file.data, f->shards[i].file.n, err);
	return rc;
}

const struct vq_ckpt_back vq_ckpt_folder = {
	.what = "a folder with config.json and weights, an archive of "
		"one",
	.takes = takes,
	.open = open_folder,
	.file = read_file,
	.load = load_folder,
	.lock = lock_folder,
	.close = close_folder};
