/* GGUF: writing. */
#include "format/gguf_write.h"

#include <string.h>

#include "base/io.h"

/* Types of values. */
enum { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 };

static void put_u32(struct vq_str *b, uint32_t v)
{
	vq_str_add(b, (const char *)&v, sizeof(v));
}

static void put_u64(struct vq_str *b, uint64_t v)
{
	vq_str_add(b, (const char *)&v, sizeof(v));
}

static void put_string(struct vq_str *b, const char *s, size_t n)
{
	put_u64(b, n);
	vq_str_add(b, s, n);
}

static void put_key(struct vq_gguf *g, const char *key, uint32_t type)
{
	put_string(&g->keys, key, strlen(key));
	put_u32(&g->keys, type);
	g->n_keys++;
}

void vq_gguf_u32(struct vq_gguf *g, const char *key, uint32_t v)
{
	put_key(g, key, U32);
	put_u32(&g->keys, v);
}

void vq_gguf_f32(struct vq_gguf *g, const char *key, float v)
{
	put_key(g, key, F32);
	vq_str_add(&g->keys, (const char *)&v, sizeof(v));
}

void vq_gguf_bool(struct vq_gguf *g, const char *key, int v)
{
	char byte = v ? 1 : 0;

	put_key(g, key, BOOL);
	vq_str_add(&g->keys, &byte, 1);
}

void vq_gguf_text(struct vq_gguf *g, const char *key, const char *v)
{
	put_key(g, key, STRING);
	put_string(&g->keys, v, strlen(v));
}

static void put_array(struct vq_gguf *g, const char *key, uint32_t type, size_t n)
{
	put_key(g, key, ARRAY);
	put_u32(&g->keys, type);
	put_u64(&g->keys, n);
}

void vq_gguf_i32s(struct vq_gguf *g, const char *key, const int32_t *v, size_t n)
{
	put_array(g, key, I32, n);
	vq_str_add(&g->keys, (const char *)v, n * sizeof(*v));
}

void vq_gguf_f32s(struct vq_gguf *g, const char *key, const float *v, size_t n)
{
	put_array(g, key, F32, n);
	vq_str_add(&g->keys, (const char *)v, n * sizeof(*v));
}

void vq_gguf_texts(struct vq_gguf *g, const char *key, size_t n)
{
	put_array(g, key, STRING, n);
}

void vq_gguf_texts_add(struct vq_gguf *g, const char *s, size_t n)
{
	put_string(&g->keys, s, n);
}

static uint64_t aligned(uint64_t n)
{
	return (n + VQ_GGUF_ALIGN - 1) / VQ_GGUF_ALIGN * VQ_GGUF_ALIGN;
}

void vq_gguf_tensor(struct vq_gguf *g, const char *name, enum vq_ggml_type type, uint32_t n_dims,
		    const uint64_t *dims)
{
	size_t n = 1;
	uint32_t i;

	if (strlen(name) > VQ_GGUF_NAME_MAX && !g->refused)
		g->refused = name;
	put_string(&g->tensors, name, strlen(name));
	put_u32(&g->tensors, n_dims);
	for (i = n_dims; i-- > 0; n *= dims[i])
		put_u64(&g->tensors, dims[i]);
	put_u32(&g->tensors, type);
	put_u64(&g->tensors, aligned(g->end));
	g->end = aligned(g->end) + vq_ggml_bytes(type, n);
	g->n_tensors++;
}

static int put_zeros(struct vq_gguf *g, size_t n, struct vq_err *err)
{
	static const char zeros[VQ_GGUF_ALIGN];

	return vq_write_full(g->fd, zeros, n, g->label, err);
}

int vq_gguf_head(struct vq_gguf *g, int fd, const char *label, struct vq_err *err)
{
	struct vq_str head = {0};
	uint64_t n;
	int rc;

	g->fd = fd;
	g->label = label;
	if (g->refused)
		return vq_fail(err, VQ_E_DATA, "%s: tensor '%s': want a name of at most %u bytes",
			       label, g->refused, VQ_GGUF_NAME_MAX);
	vq_str_add(&head, "GGUF", 4);
	put_u32(&head, 3);
	put_u64(&head, g->n_tensors);
	put_u64(&head, g->n_keys);
	n = head.n + g->keys.n + g->tensors.n;
	if (head.failed || g->keys.failed || g->tensors.failed) {
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot hold the head of %s", label);
		goto out;
	}
	rc = vq_write_full(fd, head.s, head.n, label, err);
	if (rc == VQ_OK && g->keys.n)
		rc = vq_write_full(fd, g->keys.s, g->keys.n, label, err);
	if (rc == VQ_OK && g->tensors.n)
		rc = vq_write_full(fd, g->tensors.s, g->tensors.n, label, err);
	if (rc == VQ_OK)
		rc = put_zeros(g, (size_t)(aligned(n) - n), err);
out:
	vq_str_free(&head);
	return rc;
}

int vq_gguf_data(struct vq_gguf *g, const void *data, size_t n, struct vq_err *err)
{
	g->done += n;
	return vq_write_full(g->fd, data, n, g->label, err);
}

int vq_gguf_pad(struct vq_gguf *g, struct vq_err *err)
{
	size_t n = (size_t)(aligned(g->done) - g->done);

	g->done += n;
	return put_zeros(g, n, err);
}

int vq_gguf_end(struct vq_gguf *g, struct vq_err *err)
{
	return g->done == aligned(g->end)
		       ? VQ_OK
		       : vq_fail(err, VQ_E_SYS, "%s: want %llu bytes of tensors, wrote %llu",
				 g->label, (unsigned long long)aligned(g->end),
				 (unsigned long long)g->done);
}

void vq_gguf_free(struct vq_gguf *g)
{
	vq_str_free(&g->keys);
	vq_str_free(&g->tensors);
}
