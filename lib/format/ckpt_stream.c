/* A model stream as a checkpoint: what vqlm-calib and vqlm-prune write, before any search.  Its weights are unpacked
 * into a spool, since calibration goes over them several times. */
#include <string.h>

#include "base/mem.h"
#include "base/spool.h"
#include "format/checkpoint_back.h"
#include "stream/frame.h"
#include "stream/reader.h"

/* Bytes of a tensor that are made room for at once, on the word of its record; of more, as they come. */
#define BELIEVED ((uint64_t)256 << 20)

struct entry {
	char *name;
	struct vq_tensor t;
	size_t at; /* of its data in the spool */
	uint64_t hash;
};

struct side {
	char *name;
	void *data;
	size_t n;
};

struct stream {
	struct vq_spool spool;
	struct entry *entries;
	struct side *sides;
	size_t n, room, n_sides, sides_room;
};

static int takes(const struct vq_ckpt *c)
{
	return c->n_head >= VQ_SKIP_BYTES + VQ_TAG_BYTES && vq_get_u32(c->head) == VQ_SKIP_MAGIC &&
	       memcmp(c->head + VQ_SKIP_BYTES, VQ_TAG_HEAD, VQ_TAG_BYTES) == 0;
}

/* Search leaves codes and grids, or what it chose for the inputs of a float weight. */
static int check_float(const struct vq_ckpt *c, const struct vq_record *rec, struct vq_err *err)
{
	static const char *const chosen[] = {"grid", "act", "transform"};
	size_t i;
	int quantized = rec->kind == VQ_KIND_GRID ||
			(rec->dtype != VQ_F32 && rec->dtype != VQ_F16 && rec->dtype != VQ_BF16);

	for (i = 0; i < sizeof(chosen) / sizeof(chosen[0]); i++)
		quantized |= json_object_get(rec->attrs, chosen[i]) != NULL;
	if (!quantized)
		return VQ_OK;
	return vq_fail(err, VQ_E_DATA,
		       "%s: record %llu '%s': the model is quantized already; want the stream from "
		       "before vqlm-search",
		       c->path, (unsigned long long)rec->index, rec->name);
}

static int take_tensor(struct vq_ckpt *c, struct vq_reader *r, const struct vq_record *rec,
		       struct vq_err *err)
{
	struct stream *s = c->priv;
	struct entry *e;
	void *data = NULL, *loaded = NULL;
	int rc = check_float(c, rec, err);

	if (rc == VQ_OK)
		rc = vq_grow_one((void **)&s->entries, s->n, &s->room, sizeof(*s->entries), err);
	if (rc < 0)
		return rc;
	e = &s->entries[s->n];
	*e = (struct entry){.t = {.dtype = rec->dtype, .n_dims = rec->n_dims}, .hash = rec->hash};
	memcpy(e->t.dims, rec->dims, sizeof(e->t.dims));
	e->name = vq_strdup(rec->name, err);
	if (!e->name)
		return VQ_E_SYS;
	s->n++;
	if (rec->raw_bytes == 0)
		return VQ_OK;
	if (rec->raw_bytes > BELIEVED)
		rc = vq_reader_load(r, &loaded, err);
	if (rc == VQ_OK)
		rc = vq_spool_room(&s->spool, (size_t)rec->raw_bytes, &data, &e->at, err);
	if (rc == VQ_OK && loaded)
		memcpy(data, loaded, (size_t)rec->raw_bytes);
	else if (rc == VQ_OK)
		rc = vq_reader_read(r, data, err);
	vq_free(loaded);
	return rc;
}

static int take_config(struct vq_ckpt *c, const struct vq_record *rec, const char *data,
		       struct vq_err *err)
{
	vq_sha256_of(data, (size_t)rec->raw_bytes, c->config_sha);
	c->config = vq_json_parse(data, (size_t)rec->raw_bytes, c->path, err);
	if (c->config && !json_is_object(c->config))
		return vq_fail(err, VQ_E_DATA, "%s: META 'config': want an object", c->path);
	return c->config ? VQ_OK : VQ_E_DATA;
}

static int take_meta(struct vq_ckpt *c, struct vq_reader *r, const struct vq_record *rec,
		     struct vq_err *err)
{
	struct stream *s = c->priv;
	struct side *e;
	void *data = NULL;
	int rc;

	if (rec->raw_bytes > VQ_CKPT_SIDE_LIMIT)
		return vq_fail(err, VQ_E_DATA, "%s: META '%s': want at most %zu bytes, got %llu",
			       c->path, rec->name, VQ_CKPT_SIDE_LIMIT,
			       (unsigned long long)rec->raw_bytes);
	rc = vq_grow_one((void **)&s->sides, s->n_sides, &s->sides_room, sizeof(*s->sides), err);
	if (rc == VQ_OK)
		rc = vq_reader_load(r, &data, err);
	if (rc < 0)
		return rc;
	if (strcmp(rec->name, "config") == 0) {
		rc = take_config(c, rec, data, err);
		vq_free(data);
		return rc;
	}
	e = &s->sides[s->n_sides++];
	*e = (struct side){vq_strdup(rec->name, err), data, (size_t)rec->raw_bytes};
	return e->name ? VQ_OK : VQ_E_SYS;
}

/* Samples, statistics and a plan are of no use here: whoever wants them makes them anew. */
static int take_records(struct vq_ckpt *c, struct vq_reader *r, struct vq_err *err)
{
	struct vq_record rec;
	int rc;

	for (;;) {
		rc = vq_reader_next(r, &rec, err);
		if (rc <= 0)
			return rc;
		if (rec.kind == VQ_KIND_TENSOR || rec.kind == VQ_KIND_GRID)
			rc = take_tensor(c, r, &rec, err);
		else if (rec.kind == VQ_KIND_META)
			rc = take_meta(c, r, &rec, err);
		if (rc < 0)
			return rc;
	}
}

static int read_stream(struct vq_ckpt *c, struct vq_reader *r, struct vq_err *err)
{
	const struct stream *s = c->priv;
	int rc = vq_reader_segment(r, err);

	if (rc < 0)
		return rc;
	c->header = json_deep_copy(vq_reader_header(r));
	if (!c->header)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have the header of %s", c->path);
	rc = take_records(c, r, err);
	if (rc >= 0)
		rc = vq_reader_segment(r, err);
	if (rc > 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: want one model, got a second segment", c->path);
	if (rc < 0)
		return rc;
	if (!c->config || s->n == 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: no %s in the stream; want what vqlm-calib or "
			       "vqlm-prune writes",
			       c->path, c->config ? "weights" : "META 'config'");
	return VQ_OK;
}

/* The tensors where the spool is mapped now. */
static void place(struct stream *s)
{
	size_t i;

	for (i = 0; i < s->n; i++)
		s->entries[i].t.data = s->spool.map.data + s->entries[i].at;
}

static int open_stream(struct vq_ckpt *c, struct vq_err *err)
{
	struct stream *s = vq_calloc(1, sizeof(*s), err);
	struct vq_reader *r = NULL;
	size_t i;
	int rc = VQ_E_SYS;

	if (!s)
		return VQ_E_SYS;
	c->priv = s;
	c->form = VQ_CKPT_MODEL;
	rc = vq_spool_open(&s->spool, err);
	if (rc == VQ_OK)
		rc = vq_reader_open_head(&r, c->fd, c->path, c->head, c->n_head, err);
	if (rc == VQ_OK)
		rc = read_stream(c, r, err);
	vq_reader_close(r);
	if (rc == VQ_OK)
		rc = vq_spool_map(&s->spool, 0, err);
	if (rc == VQ_OK)
		c->slots = vq_calloc(s->n, sizeof(*c->slots), err);
	if (rc < 0 || !c->slots)
		return rc < 0 ? rc : VQ_E_SYS;
	place(s);
	for (i = 0; i < s->n; i++)
		c->slots[i] = (struct vq_ckpt_slot){s->entries[i].name, &s->entries[i].t, c->path,
						    s->entries[i].hash};
	c->n = s->n;
	return VQ_OK;
}

static int give_side(const struct vq_ckpt *c, const char *name, char **data, size_t *n,
		     struct vq_err *err)
{
	const struct stream *s = c->priv;
	size_t i;

	for (i = 0; i < s->n_sides; i++) {
		const struct side *e = &s->sides[i];

		if (strcmp(e->name, name) != 0)
			continue;
		*data = vq_alloc(e->n + 1, 1, err);
		if (!*data)
			return VQ_E_SYS;
		memcpy(*data, e->data, e->n + 1);
		*n = e->n;
		return 1;
	}
	return 0;
}

static int load_stream(struct vq_ckpt *c, struct vq_err *err)
{
	struct stream *s = c->priv;
	int rc = vq_spool_map(&s->spool, 1, err);

	if (rc == VQ_OK)
		place(s);
	return rc;
}

static int lock_stream(const struct vq_ckpt *c, struct vq_err *err)
{
	const struct stream *s = c->priv;

	return vq_pages_lock(s->spool.map.data, s->spool.map.n, err);
}

static void close_stream(struct vq_ckpt *c)
{
	struct stream *s = c->priv;
	size_t i;

	if (!s)
		return;
	for (i = 0; i < s->n; i++)
		vq_free(s->entries[i].name);
	for (i = 0; i < s->n_sides; i++) {
		vq_free(s->sides[i].name);
		vq_free(s->sides[i].data);
	}
	vq_free(s->entries);
	vq_free(s->sides);
	vq_spool_close(&s->spool);
	vq_free(s);
}

const struct vq_ckpt_back vq_ckpt_stream = {.what = "a model stream",
					    .takes = takes,
					    .open = open_stream,
					    .file = give_side,
					    .load = load_stream,
					    .lock = lock_stream,
					    .close = close_stream};
