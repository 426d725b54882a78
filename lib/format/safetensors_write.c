/* safetensors: writing. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format/safetensors.h"

static int compare_for_writing(const void *a, const void *b)
{
	const struct vq_st_entry *x = *(const struct vq_st_entry *const *)a;
	const struct vq_st_entry *y = *(const struct vq_st_entry *const *)b;
	size_t sx = vq_dtype_size(x->t.dtype), sy = vq_dtype_size(y->t.dtype);

	if (sx != sy)
		return sx > sy ? -1 : 1; /* so that every tensor is aligned to its elements */
	return strcmp(x->name, y->name);
}

int vq_st_bytes(const struct vq_tensor *t, size_t *bytes)
{
	size_t count;
	int rc = vq_tensor_count(t, &count);

	return rc < 0 ? rc : vq_mul_size(bytes, count, vq_dtype_size(t->dtype));
}

static json_t *entry_json(const struct vq_tensor *t, uint64_t begin, uint64_t end)
{
	json_t *shape = json_array();
	uint32_t i;

	for (i = 0; i < t->n_dims; i++)
		json_array_append_new(shape, json_integer((json_int_t)t->dims[i]));
	return json_pack("{s:s, s:o, s:[I, I]}", "dtype", vq_st_dtype(t->dtype), "shape", shape,
			 "data_offsets", (json_int_t)begin, (json_int_t)end);
}

/* The header's text.  Given, jansson's: free(). */
static int header_text(char **text, const struct vq_st_entry *const *order, size_t n,
		       const json_t *metadata, const char *path, struct vq_err *err)
{
	int rc = VQ_OK;
	json_t *h = json_object();
	size_t i, bytes;
	uint64_t at = 0;

	if (metadata)
		json_object_set(h, "__metadata__", (json_t *)(uintptr_t)metadata);
	for (i = 0; i < n; i++) {
		const struct vq_st_entry *e = order[i];

		if (!vq_st_dtype(e->t.dtype) || strcmp(e->name, "__metadata__") == 0 ||
		    json_object_get(h, e->name) || vq_st_bytes(&e->t, &bytes) < 0) {
			rc = vq_fail(
				err, VQ_E_DATA,
				"%s: tensor '%s': its type, name or shape cannot be written as "
				"safetensors",
				path, e->name);
			goto out;
		}
		if (json_object_set_new(h, e->name, entry_json(&e->t, at, at + bytes)) < 0) {
			rc = vq_fail(err, VQ_E_DATA, "%s: tensor '%s': name is not UTF-8", path,
				     e->name);
			goto out;
		}
		at += bytes;
	}
	*text = json_dumps(h, JSON_COMPACT);
	if (!*text)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot write JSON");
out:
	json_decref(h);
	return rc;
}

/* The length and the header, padded with spaces to a multiple of 8 bytes. */
static int write_header(int fd, const char *text, const char *label, struct vq_err *err)
{
	static const char spaces[] = "        ";
	size_t n = strlen(text), padded = (n + 7) / 8 * 8, i;
	uint8_t len[8];
	int rc;

	for (i = 0; i < 8; i++)
		len[i] = (uint8_t)(padded >> (8 * i));
	rc = vq_write_full(fd, len, 8, label, err);
	if (rc == VQ_OK)
		rc = vq_write_full(fd, text, n, label, err);
	return rc < 0 ? rc : vq_write_full(fd, spaces, padded - n, label, err);
}

int vq_st_write_head(int fd, const char *label, const struct vq_st_entry *entries, size_t n,
		     const json_t *metadata, const struct vq_st_entry ***out, struct vq_err *err)
{
	const struct vq_st_entry **order = vq_alloc(n, sizeof(const struct vq_st_entry *), err);
	char *text = NULL;
	size_t i;
	int rc;

	if (!order)
		return VQ_E_SYS;
	for (i = 0; i < n; i++)
		order[i] = &entries[i];
	if (n > 1)
		qsort(order, n, sizeof(*order), compare_for_writing);
	rc = header_text(&text, order, n, metadata, label, err);
	if (rc == VQ_OK)
		rc = write_header(fd, text, label, err);
	free(text);
	if (rc == VQ_OK)
		*out = order;
	else
		vq_free(order);
	return rc;
}

int vq_st_write(const char *path, const struct vq_st_entry *entries, size_t n,
		const json_t *metadata, struct vq_err *err)
{
	const struct vq_st_entry **order = NULL;
	struct vq_output o;
	size_t i, bytes = 0;
	int rc = vq_output_open(&o, path, err);

	if (rc < 0)
		return rc;
	rc = vq_st_write_head(o.fd, o.label, entries, n, metadata, &order, err);
	for (i = 0; rc == VQ_OK && i < n; i++) {
		rc = vq_st_bytes(&order[i]->t, &bytes);
		if (rc == VQ_OK)
			rc = vq_write_full(o.fd, order[i]->t.data, bytes, o.label, err);
	}
	if (rc == VQ_OK)
		rc = vq_output_commit(&o, err);
	else
		vq_output_abort(&o, 0);
	vq_free(order);
	return rc;
}
