/* GGUF: reading the head. */
#include "format/gguf_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format/ggml_block.h"
#include "format/gguf_parts.h"

/* More than any file has; what a file says is held against its size too. */
#define MAX_KEYS      (1u << 16)
#define MAX_TENSORS   (1u << 20)
#define MAX_KEY       65535u
#define MIN_KEY       (8u + 4u + 1u)
#define MIN_TENSOR    (8u + 1u + 4u + 8u + 4u + 8u)
#define DEFAULT_ALIGN 32u
#define MAX_ALIGN     (1u << 20)

struct cursor {
	const char *path;
	const uint8_t *p;
	size_t n, at;
	char in[96]; /* what is being read */
};

int vq_gguf_is(const uint8_t *head, size_t n)
{
	return n >= 4 && memcmp(head, "GGUF", 4) == 0;
}

void vq_gguf_shown(char *buf, size_t room, const char *s, size_t n)
{
	size_t i;

	for (i = 0; i < n && i + 1 < room; i++)
		buf[i] = (char)(s[i] >= ' ' && s[i] != 0x7f ? s[i] : '?');
	buf[i] = '\0';
}

static int want(struct cursor *c, uint64_t n, struct vq_err *err)
{
	if (n <= c->n - c->at)
		return VQ_OK;
	return vq_fail(
		err, VQ_E_DATA,
		"%s: %s: want %llu bytes at byte %zu, the file has %zu; it is cut or damaged: "
		"get it again",
		c->path, c->in, (unsigned long long)n, c->at, c->n);
}

static int take(struct cursor *c, size_t n, uint64_t *v, struct vq_err *err)
{
	int rc = want(c, n, err);

	*v = 0;
	if (rc == VQ_OK) {
		memcpy(v, c->p + c->at, n);
		c->at += n;
	}
	return rc;
}

static int take_string(struct cursor *c, const char **s, size_t *n, struct vq_err *err)
{
	uint64_t len;
	int rc = take(c, 8, &len, err);

	if (rc == VQ_OK)
		rc = want(c, len, err);
	if (rc < 0)
		return rc;
	*s = (const char *)c->p + c->at;
	*n = (size_t)len;
	c->at += *n;
	return VQ_OK;
}

/* --- keys --- */

static int skip_array(struct cursor *c, const struct vq_gguf_key *k, struct vq_err *err)
{
	size_t size = vq_gguf_type_size(k->item), n;
	const char *s;
	uint64_t i;
	int rc = VQ_OK;

	if (k->item != VQ_GGUF_STRING) {
		if (k->n > (c->n - c->at) / size)
			return vq_fail(
				err, VQ_E_DATA,
				"%s: %s: %llu elements of %s do not fit the file's %zu bytes",
				c->path, c->in, (unsigned long long)k->n,
				vq_gguf_type_name(k->item), c->n);
		c->at += (size_t)k->n * size;
		return VQ_OK;
	}
	if (k->n > (c->n - c->at) / 8)
		return vq_fail(err, VQ_E_DATA,
			       "%s: %s: %llu strings do not fit the file's %zu bytes", c->path,
			       c->in, (unsigned long long)k->n, c->n);
	for (i = 0; rc == VQ_OK && i < k->n; i++)
		rc = take_string(c, &s, &n, err);
	return rc;
}

static int take_value(struct cursor *c, struct vq_gguf_key *k, struct vq_err *err)
{
	uint64_t v;
	const char *s;
	size_t n;
	int rc = take(c, 4, &v, err);

	if (rc < 0)
		return rc;
	k->type = k->item = (uint32_t)v;
	k->n = 1;
	if (k->type == VQ_GGUF_ARRAY) {
		rc = take(c, 4, &v, err);
		k->item = (uint32_t)v;
		if (rc == VQ_OK)
			rc = take(c, 8, &k->n, err);
		if (rc == VQ_OK && k->item == VQ_GGUF_ARRAY)
			return vq_fail(err, VQ_E_DATA,
				       "%s: %s: an array of arrays, which no model has", c->path,
				       c->in);
	}
	if (rc == VQ_OK && k->item >= VQ_GGUF_N_TYPES)
		return vq_fail(err, VQ_E_DATA, "%s: %s: want a value of type 0..%d, got %u",
			       c->path, c->in, VQ_GGUF_N_TYPES - 1, k->item);
	if (rc < 0)
		return rc;
	k->p = c->p + c->at;
	if (k->type == VQ_GGUF_ARRAY)
		return skip_array(c, k, err);
	if (k->type == VQ_GGUF_STRING)
		return take_string(c, &s, &n, err);
	n = vq_gguf_type_size(k->type);
	rc = want(c, n, err);
	c->at += rc == VQ_OK ? n : 0;
	return rc;
}

static int compare_keys(const void *a, const void *b)
{
	const struct vq_gguf_key *x = a, *y = b;
	int d = memcmp(x->name, y->name, x->n_name < y->n_name ? x->n_name : y->n_name);

	return d ? d : (x->n_name > y->n_name) - (x->n_name < y->n_name);
}

static int read_keys(struct vq_gguf_file *g, struct cursor *c, uint64_t count, struct vq_err *err)
{
	char shown[64];
	size_t i;
	int rc = VQ_OK;

	g->keys = vq_calloc((size_t)count, sizeof(*g->keys), err);
	if (count && !g->keys)
		return VQ_E_SYS;
	for (i = 0; rc == VQ_OK && i < count; i++) {
		struct vq_gguf_key *k = &g->keys[i];

		snprintf(c->in, sizeof(c->in), "key %zu", i);
		rc = take_string(c, &k->name, &k->n_name, err);
		if (rc == VQ_OK &&
		    (k->n_name == 0 || k->n_name > MAX_KEY || memchr(k->name, '\0', k->n_name)))
			rc = vq_fail(err, VQ_E_DATA,
				     "%s: key %zu: want a name of 1..%u bytes, got %zu%s", g->path,
				     i, MAX_KEY, k->n_name,
				     k->n_name && k->n_name <= MAX_KEY ? " with a zero byte" : "");
		if (rc < 0)
			break;
		vq_gguf_shown(shown, sizeof(shown), k->name, k->n_name);
		snprintf(c->in, sizeof(c->in), "key '%s'", shown);
		rc = take_value(c, k, err);
	}
	g->n_keys = i;
	if (rc < 0)
		return rc;
	if (g->n_keys > 1)
		qsort(g->keys, g->n_keys, sizeof(*g->keys), compare_keys);
	for (i = 1; i < g->n_keys; i++)
		if (compare_keys(&g->keys[i - 1], &g->keys[i]) == 0) {
			vq_gguf_shown(shown, sizeof(shown), g->keys[i].name, g->keys[i].n_name);
			return vq_fail(err, VQ_E_DATA, "%s: key '%s' is there twice", g->path,
				       shown);
		}
	return VQ_OK;
}

const struct vq_gguf_key *vq_gguf_find(const struct vq_gguf_file *g, const char *name)
{
	struct vq_gguf_key key = {.name = name, .n_name = strlen(name)};

	return g->n_keys ? bsearch(&key, g->keys, g->n_keys, sizeof(key), compare_keys) : NULL;
}

/* --- tensors --- */

static int take_name(struct cursor *c, struct vq_gguf_tensor_info *t, size_t i, struct vq_err *err)
{
	const char *s;
	char shown[80];
	size_t n;
	int rc;

	snprintf(c->in, sizeof(c->in), "tensor %zu", i);
	rc = take_string(c, &s, &n, err);
	if (rc < 0)
		return rc;
	vq_gguf_shown(shown, sizeof(shown), s, n);
	snprintf(c->in, sizeof(c->in), "tensor '%s'", shown);
	if (n == 0 || n > VQ_GGUF_MAX_NAME || memchr(s, '\0', n))
		return vq_fail(err, VQ_E_DATA, "%s: %s: want a name of 1..%u bytes, got %zu%s",
			       c->path, c->in, VQ_GGUF_MAX_NAME, n,
			       n && n <= VQ_GGUF_MAX_NAME ? " with a zero byte" : "");
	memcpy(t->name, s, n);
	t->name[n] = '\0';
	return VQ_OK;
}

/* Dimensions, slowest first, and the number of elements. */
static int take_dims(struct cursor *c, struct vq_gguf_tensor_info *t, size_t *count,
		     struct vq_err *err)
{
	uint64_t v;
	uint32_t i;
	int rc = take(c, 4, &v, err);

	if (rc == VQ_OK && (v < 1 || v > VQ_GGUF_MAX_DIMS))
		return vq_fail(err, VQ_E_DATA, "%s: %s: want 1..%u dimensions, got %llu", c->path,
			       c->in, VQ_GGUF_MAX_DIMS, (unsigned long long)v);
	t->n_dims = (uint32_t)v;
	for (i = t->n_dims, *count = 1; rc == VQ_OK && i-- > 0;) {
		rc = take(c, 8, &v, err);
		if (rc == VQ_OK &&
		    (v < 1 || v > (uint64_t)INT64_MAX ||
		     vq_mul_size(count, *count, (size_t)v) < 0 || *count > INT64_MAX))
			return vq_fail(
				err, VQ_E_DATA,
				"%s: %s: dimension %u of %llu: want at least 1, and fewer than "
				"2^63 elements",
				c->path, c->in, t->n_dims - 1 - i, (unsigned long long)v);
		t->dims[i] = v;
	}
	return rc;
}

static int take_tensor(struct cursor *c, struct vq_gguf_tensor_info *t, size_t i, uint64_t *offset,
		       struct vq_err *err)
{
	const struct vq_ggml_layout *l;
	uint64_t v;
	size_t count = 0;
	int rc = take_name(c, t, i, err);

	if (rc == VQ_OK)
		rc = take_dims(c, t, &count, err);
	if (rc == VQ_OK)
		rc = take(c, 4, &v, err);
	if (rc == VQ_OK)
		rc = take(c, 8, offset, err);
	if (rc < 0)
		return rc;
	t->type = (uint32_t)v;
	l = vq_ggml_layout(t->type);
	if (!l)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: %s: type %u is unknown; convert the model with llama-quantize to "
			"F16, Q8_0 or Q4_K_M",
			c->path, c->in, t->type);
	if (t->dims[t->n_dims - 1] % l->n)
		return vq_fail(err, VQ_E_DATA,
			       "%s: %s: want rows of a multiple of %zu for %s, got %llu", c->path,
			       c->in, l->n, l->name, (unsigned long long)t->dims[t->n_dims - 1]);
	if (vq_mul_size(&t->bytes, count / l->n, l->bytes) < 0)
		return vq_fail(err, VQ_E_DATA, "%s: %s: %zu elements are too many", c->path, c->in,
			       count);
	return VQ_OK;
}

static int read_align(const struct vq_gguf_file *g, uint32_t *align, struct vq_err *err)
{
	static const char key[] = "general.alignment";
	int rc = vq_gguf_get_u32(g, key, 1, MAX_ALIGN, align, err);

	if (rc < 0 || (*align % 8 == 0 && (*align & (*align - 1)) == 0))
		return rc;
	return vq_fail(err, VQ_E_DATA, "%s: key '%s': want a power of two from 8, got %u", g->path,
		       key, *align);
}

static int compare_tensors(const void *a, const void *b)
{
	const struct vq_gguf_tensor_info *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static int check_unique(const struct vq_gguf_file *g, struct vq_err *err)
{
	const struct vq_gguf_tensor_info **v = vq_alloc(g->n_tensors, sizeof(*v), err);
	size_t i;
	int rc = VQ_OK;

	if (!v)
		return VQ_E_SYS;
	for (i = 0; i < g->n_tensors; i++)
		v[i] = &g->tensors[i];
	qsort(v, g->n_tensors, sizeof(*v), compare_tensors);
	for (i = 1; rc == VQ_OK && i < g->n_tensors; i++)
		if (strcmp(v[i - 1]->name, v[i]->name) == 0)
			rc = vq_fail(err, VQ_E_DATA, "%s: tensor '%s' is there twice", g->path,
				     v[i]->name);
	vq_free(v);
	return rc;
}

/* Where each tensor lies must follow from those before it: no holes, no overlaps. */
static int read_tensors(struct vq_gguf_file *g, struct cursor *c, uint64_t count, uint32_t align,
			struct vq_err *err)
{
	uint64_t *offsets = vq_alloc((size_t)count, sizeof(*offsets), err);
	size_t i, start, end = 0;
	int rc = VQ_OK;

	g->tensors = vq_calloc((size_t)count, sizeof(*g->tensors), err);
	if (!offsets || !g->tensors)
		rc = VQ_E_SYS;
	for (i = 0; rc == VQ_OK && i < count; i++)
		rc = take_tensor(c, &g->tensors[i], i, &offsets[i], err);
	start = (c->at + align - 1) / align * align;
	for (i = 0; rc == VQ_OK && i < count; i++) {
		struct vq_gguf_tensor_info *t = &g->tensors[i];

		if (offsets[i] != end) {
			rc = vq_fail(
				err, VQ_E_DATA,
				"%s: tensor '%s': want its data at offset %zu, behind those before "
				"it, got %llu",
				g->path, t->name, end, (unsigned long long)offsets[i]);
		} else if (start > c->n || end > c->n - start || t->bytes > c->n - start - end) {
			rc = vq_fail(err, VQ_E_DATA,
				     "%s: tensor '%s': want %zu bytes at offset %zu of the data, "
				     "the file "
				     "has %zu; it is cut: get it again",
				     g->path, t->name, t->bytes, end,
				     start > c->n ? 0 : c->n - start);
		} else {
			t->data = c->p + start + end;
			end = (end + t->bytes + align - 1) / align * align;
		}
	}
	g->n_tensors = (size_t)count;
	vq_free(offsets);
	return rc == VQ_OK ? check_unique(g, err) : rc;
}

/* --- the whole --- */

static int check_version(struct vq_gguf_file *g, uint32_t v, struct vq_err *err)
{
	g->version = v;
	if (v == 2 || v == 3)
		return VQ_OK;
	if (v && (v & 0xffff) == 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: a GGUF file of a big-endian machine; want little-endian: "
			       "gguf_convert_endian.py converts it",
			       g->path);
	if (v == 1)
		return vq_fail(err, VQ_E_DATA,
			       "%s: GGUF version 1; want 2 or 3: convert the model again", g->path);
	return vq_fail(err, VQ_E_DATA, "%s: GGUF version %u; want 2 or 3", g->path, v);
}

static int read_all(struct vq_gguf_file *g, struct cursor *c, struct vq_err *err)
{
	uint64_t version, n_tensors, n_keys;
	uint32_t align = DEFAULT_ALIGN;
	int rc = take(c, 4, &version, err);

	if (rc == VQ_OK)
		rc = take(c, 4, &version, err);
	if (rc == VQ_OK)
		rc = check_version(g, (uint32_t)version, err);
	if (rc == VQ_OK)
		rc = take(c, 8, &n_tensors, err);
	if (rc == VQ_OK)
		rc = take(c, 8, &n_keys, err);
	if (rc < 0)
		return rc;
	if (n_tensors == 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: no tensors; want a model, not a vocabulary alone", g->path);
	if (n_keys > MAX_KEYS || n_keys > (c->n - c->at) / MIN_KEY || n_tensors > MAX_TENSORS ||
	    n_tensors > (c->n - c->at) / MIN_TENSOR)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: %llu keys and %llu tensors are too many for its %zu bytes; it is "
			"cut or damaged: get it again",
			g->path, (unsigned long long)n_keys, (unsigned long long)n_tensors, c->n);
	rc = read_keys(g, c, n_keys, err);
	if (rc == VQ_OK)
		rc = read_align(g, &align, err);
	return rc < 0 ? rc : read_tensors(g, c, n_tensors, align, err);
}

int vq_gguf_parse(struct vq_gguf_file *g, const uint8_t *data, size_t n, const char *path,
		  struct vq_err *err)
{
	struct cursor c = {.path = path, .p = data, .n = n, .in = "head"};
	int rc;

	*g = (struct vq_gguf_file){.path = path};
	if (!vq_gguf_is(data, n))
		return vq_fail(err, VQ_E_DATA, "%s: want a GGUF file, got something else", path);
	rc = read_all(g, &c, err);
	if (rc < 0)
		vq_gguf_close(g);
	return rc < 0 ? rc : VQ_OK;
}

void vq_gguf_close(struct vq_gguf_file *g)
{
	vq_free(g->keys);
	vq_free(g->tensors);
	*g = (struct vq_gguf_file){0};
}
