/* safetensors: reading with every rule of the reference reader. */
#include "format/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define HEADER_LIMIT 100000000ull /* the reference reader's */

static const struct {
	const char *name;
	enum vq_dtype type;
} dtypes[] = {
	{"F32", VQ_F32}, {"F16", VQ_F16}, {"BF16", VQ_BF16}, {"F64", VQ_F64}, {"I8", VQ_I8},
	{"U8", VQ_U8},   {"I16", VQ_I16}, {"U16", VQ_U16},   {"I32", VQ_I32}, {"U32", VQ_U32},
	{"I64", VQ_I64}, {"U64", VQ_U64}, {"BOOL", VQ_BOOL},
};

#define N_DTYPES (sizeof(dtypes) / sizeof(dtypes[0]))

static int dtype_from_name(const char *s, enum vq_dtype *out)
{
	size_t i;

	for (i = 0; i < N_DTYPES; i++)
		if (strcmp(s, dtypes[i].name) == 0) {
			*out = dtypes[i].type;
			return 1;
		}
	return 0;
}

const char *vq_st_dtype(enum vq_dtype t)
{
	size_t i;

	for (i = 0; i < N_DTYPES; i++)
		if (dtypes[i].type == t)
			return dtypes[i].name;
	return NULL;
}

static int compare_names(const void *a, const void *b)
{
	const struct vq_st_entry *x = a, *y = b;

	return strcmp(x->name, y->name);
}

/* Where a tensor lies in the data, while the tiling is checked. */
struct span {
	uint64_t begin, end;
	const char *name;
};

static int compare_spans(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	if (x->end != y->end)
		return x->end < y->end ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int parse_shape(struct vq_tensor *t, const json_t *shape, const char *path, const char *name,
		       struct vq_err *err)
{
	size_t i, n = json_array_size(shape);

	if (!json_is_array(shape))
		return vq_fail(err, VQ_E_DATA, "%s: tensor '%s': want a list as 'shape'", path,
			       name);
	if (n > VQ_MAX_DIMS)
		return vq_fail(err, VQ_E_DATA,
			       "%s: tensor '%s': want at most %d dimensions, got %zu", path, name,
			       VQ_MAX_DIMS, n);
	t->n_dims = (uint32_t)n;
	for (i = 0; i < n; i++) {
		const json_t *d = json_array_get(shape, i);

		if (!json_is_integer(d) || json_integer_value(d) < 0)
			return vq_fail(err, VQ_E_DATA,
				       "%s: tensor '%s': dimension %zu is not a size", path, name,
				       i);
		t->dims[i] = (uint64_t)json_integer_value(d);
	}
	return VQ_OK;
}

static int parse_offsets(struct span *s, const json_t *v, const char *path, struct vq_err *err)
{
	const json_t *b = json_array_get(v, 0), *e = json_array_get(v, 1);

	if (json_array_size(v) != 2 || !json_is_integer(b) || !json_is_integer(e) ||
	    json_integer_value(b) < 0 || json_integer_value(e) < json_integer_value(b))
		return vq_fail(
			err, VQ_E_DATA,
			"%s: tensor '%s': want 'data_offsets' [begin, end] with 0 <= begin <= end",
			path, s->name);
	s->begin = (uint64_t)json_integer_value(b);
	s->end = (uint64_t)json_integer_value(e);
	return VQ_OK;
}

/* One entry of the header.  The data pointer follows when the tiling is known to be right. */
static int parse_entry(struct vq_st_entry *e, struct span *s, const char *name, const json_t *v,
		       const char *path, struct vq_err *err)
{
	const char *dtype = json_string_value(json_object_get(v, "dtype"));
	char shape[128];
	size_t n, bytes;
	int rc;

	if (!json_is_object(v))
		return vq_fail(err, VQ_E_DATA, "%s: tensor '%s': want an object in the header",
			       path, name);
	if (!dtype)
		return vq_fail(err, VQ_E_DATA, "%s: tensor '%s': no 'dtype'", path, name);
	if (!dtype_from_name(dtype, &e->t.dtype))
		return vq_fail(err, VQ_E_DATA,
			       "%s: tensor '%s': dtype '%s' is not supported; want F16, BF16, F32 "
			       "or another plain type: convert the checkpoint to float16",
			       path, name, dtype);
	rc = parse_shape(&e->t, json_object_get(v, "shape"), path, name, err);
	if (rc < 0)
		return rc;
	e->name = vq_strdup(name, err);
	if (!e->name)
		return VQ_E_SYS;
	s->name = e->name;
	rc = parse_offsets(s, json_object_get(v, "data_offsets"), path, err);
	if (rc < 0)
		return rc;
	vq_shape_text(e->t.n_dims, e->t.dims, shape, sizeof(shape));
	if (vq_tensor_count(&e->t, &n) < 0 || vq_mul_size(&bytes, n, vq_dtype_size(e->t.dtype)) < 0)
		return vq_fail(err, VQ_E_DATA, "%s: tensor '%s': shape %s is too large", path, name,
			       shape);
	if (bytes != s->end - s->begin)
		return vq_fail(err, VQ_E_DATA,
			       "%s: tensor '%s': %s %s wants %zu bytes, data_offsets give %llu",
			       path, name, dtype, shape, bytes,
			       (unsigned long long)(s->end - s->begin));
	return VQ_OK;
}

/* The tensors must cover the data from its first byte to its last, without a hole or an overlap. */
static int check_tiling(struct span *spans, size_t n, uint64_t room, const char *path,
			struct vq_err *err)
{
	uint64_t at = 0;
	size_t i;

	if (n > 1)
		qsort(spans, n, sizeof(*spans), compare_spans);
	for (i = 0; i < n; i++) {
		if (spans[i].begin != at)
			return vq_fail(
				err, VQ_E_DATA,
				"%s: tensor '%s': %s: want its data to begin at %llu, got %llu",
				path, spans[i].name,
				spans[i].begin > at ? "hole in the data" : "overlap",
				(unsigned long long)at, (unsigned long long)spans[i].begin);
		if (spans[i].end > room)
			return vq_fail(err, VQ_E_DATA,
				       "%s: tensor '%s': the file is cut: its data end at %llu, "
				       "the file has %llu bytes of data",
				       path, spans[i].name, (unsigned long long)spans[i].end,
				       (unsigned long long)room);
		at = spans[i].end;
	}
	if (at != room)
		return vq_fail(err, VQ_E_DATA, "%s: %llu bytes after the last tensor", path,
			       (unsigned long long)(room - at));
	return VQ_OK;
}

static int take_metadata(struct vq_st *st, json_t *m, struct vq_err *err)
{
	const char *key;
	json_t *v;

	if (!json_is_object(m))
		return vq_fail(err, VQ_E_DATA, "%s: '__metadata__': want an object", st->path);
	json_object_foreach(m, key, v)
	{
		if (!json_is_string(v))
			return vq_fail(err, VQ_E_DATA, "%s: '__metadata__': '%s': want a string",
				       st->path, key);
	}
	st->metadata = json_incref(m);
	return VQ_OK;
}

static int parse_header(struct vq_st *st, json_t *header, const uint8_t *data, size_t n_data,
			struct vq_err *err)
{
	int rc = VQ_OK;
	size_t i, room = json_object_size(header);
	struct span *spans = vq_calloc(room, sizeof(*spans), err);
	const char *key;
	json_t *v;

	st->entries = vq_calloc(room, sizeof(*st->entries), err);
	if (!spans || !st->entries) {
		rc = VQ_E_SYS;
		goto out;
	}
	json_object_foreach(header, key, v)
	{
		if (strcmp(key, "__metadata__") == 0) {
			rc = take_metadata(st, v, err);
		} else {
			st->n++;
			rc = parse_entry(&st->entries[st->n - 1], &spans[st->n - 1], key, v,
					 st->path, err);
		}
		if (rc < 0)
			goto out;
	}
	for (i = 0; i < st->n; i++)
		st->entries[i].t.data = data + spans[i].begin;
	rc = check_tiling(spans, st->n, n_data, st->path, err);
	if (rc == VQ_OK && st->n > 1)
		qsort(st->entries, st->n, sizeof(*st->entries), compare_names);
out:
	vq_free(spans);
	return rc;
}

/* The length in the first eight bytes, checked against the limit and the file. */
static int header_size(const uint8_t *file, size_t n_file, const char *path, uint64_t *n,
		       struct vq_err *err)
{
	uint64_t size = 0;
	int i;

	if (n_file < 8)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want 8 bytes of header length, got a file of %zu bytes", path,
			       n_file);
	for (i = 7; i >= 0; i--)
		size = size << 8 | file[i];
	if (size > HEADER_LIMIT)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want a header of at most %llu bytes, got %llu; is this a "
			       "safetensors file?",
			       path, HEADER_LIMIT, (unsigned long long)size);
	if (size > n_file - 8)
		return vq_fail(err, VQ_E_DATA,
			       "%s: the file is cut: its header wants %llu bytes, the file has %zu",
			       path, (unsigned long long)size, n_file - 8);
	if (size == 0 || file[8] != '{')
		return vq_fail(err, VQ_E_DATA, "%s: want a header that starts with '{'", path);
	*n = size;
	return VQ_OK;
}

/* Into st, which has its path. */
static int parse(struct vq_st *st, const uint8_t *data, size_t n, struct vq_err *err)
{
	json_t *header = NULL;
	uint64_t head = 0;
	int rc = header_size(data, n, st->path, &head, err);

	if (rc < 0)
		return rc;
	header = vq_json_parse((const char *)data + 8, head, st->path, err);
	rc = header ? parse_header(st, header, data + 8 + head, n - 8 - head, err) : VQ_E_DATA;
	json_decref(header);
	return rc;
}

int vq_st_parse(struct vq_st *st, const uint8_t *data, size_t n, const char *path,
		struct vq_err *err)
{
	int rc;

	memset(st, 0, sizeof(*st));
	st->path = vq_strdup(path, err);
	rc = st->path ? parse(st, data, n, err) : VQ_E_SYS;
	if (rc < 0)
		vq_st_close(st);
	return rc;
}

int vq_st_open(struct vq_st *st, const char *path, int status, struct vq_err *err)
{
	int rc;

	memset(st, 0, sizeof(*st));
	st->path = vq_strdup(path, err);
	rc = st->path ? vq_map_open(&st->map, path, status, err) : VQ_E_SYS;
	if (rc == VQ_OK)
		rc = parse(st, st->map.data, st->map.n, err);
	if (rc < 0)
		vq_st_close(st);
	return rc;
}

void vq_st_close(struct vq_st *st)
{
	size_t i;

	for (i = 0; i < st->n; i++)
		vq_free(st->entries[i].name);
	vq_free(st->entries);
	json_decref(st->metadata);
	vq_map_close(&st->map);
	vq_free(st->path);
	memset(st, 0, sizeof(*st));
}

const struct vq_st_entry *vq_st_lookup(const struct vq_st_entry *entries, size_t n,
				       const char *name)
{
	struct vq_st_entry key = {.name = (char *)(uintptr_t)name};

	return n ? bsearch(&key, entries, n, sizeof(key), compare_names) : NULL;
}

const struct vq_tensor *vq_st_find(const struct vq_st *st, const char *name)
{
	const struct vq_st_entry *e = vq_st_lookup(st->entries, st->n, name);

	return e ? &e->t : NULL;
}
