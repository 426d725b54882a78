/* Reading exported GGUF files back: header, keys skipped, tensors by name, and their rows.  The blocks of 32 elements are
 *
 *   Q4_0   f16 d, 16 bytes           element j: low nibble of byte j (j < 16) or high nibble of byte j - 16; (n - 8) d
 *   Q4_1   f16 d, f16 m, 16 bytes    alike; n d + m
 *   Q8_0   f16 d, 32 signed bytes    b d
 *
 * Rows of queries and keys stand with the two halves of a head interleaved. */
#include <math.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/num.h"
#include "task/export_gguf.h"
#include "task/export_read.h"

enum { N_FILES = 2, KEY_STRING = 8, KEY_ARRAY = 9 };

struct found {
	char name[72];
	uint32_t type, n_dims;
	uint64_t dims[4]; /* fastest first, as in the file */
	uint64_t at;
};

struct file {
	struct vq_map map;
	struct found *t;
	size_t n;
	size_t data; /* where the tensors' bytes begin */
};

struct vq_read_gguf {
	const struct vq_export *x;
	struct file f[N_FILES]; /* text, vision */
};

/* --- the head --- */

struct cursor {
	const uint8_t *p;
	size_t n, at;
	int bad;
};

static uint64_t take(struct cursor *c, size_t n)
{
	uint64_t v = 0;

	if (c->bad || n > c->n - c->at) {
		c->bad = 1;
		return 0;
	}
	memcpy(&v, c->p + c->at, n);
	c->at += n;
	return v;
}

static const char *take_bytes(struct cursor *c, uint64_t n)
{
	const char *s = (const char *)c->p + c->at;

	if (c->bad || n > c->n - c->at) {
		c->bad = 1;
		return NULL;
	}
	c->at += (size_t)n;
	return s;
}

static void skip_value(struct cursor *c, uint32_t type)
{
	static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
	uint64_t n, i;

	if (type == KEY_STRING) {
		n = take(c, 8);
		(void)take_bytes(c, n); /* its value is not wanted */
	} else if (type == KEY_ARRAY) {
		type = (uint32_t)take(c, 4);
		n = take(c, 8);
		for (i = 0; i < n && !c->bad && type != KEY_ARRAY; i++)
			skip_value(c, type);
		c->bad |= type == KEY_ARRAY;
	} else if (type < sizeof(bytes)) {
		(void)take(c, bytes[type]);
	} else {
		c->bad = 1;
	}
}

static void take_tensor(struct cursor *c, struct found *t)
{
	uint64_t n = take(c, 8);
	const char *name = take_bytes(c, n);
	uint32_t i;

	if (!name || n >= sizeof(t->name)) {
		c->bad = 1;
		return;
	}
	memcpy(t->name, name, (size_t)n);
	t->n_dims = (uint32_t)take(c, 4);
	c->bad |= t->n_dims > 4;
	for (i = 0; i < t->n_dims && !c->bad; i++)
		t->dims[i] = take(c, 8);
	t->type = (uint32_t)take(c, 4);
	t->at = take(c, 8);
}

static int read_head(struct file *f, const char *path, struct vq_err *err)
{
	struct cursor c = {f->map.data, f->map.n, 0, 0};
	uint64_t magic = take(&c, 4), version = take(&c, 4), n = take(&c, 8), keys = take(&c, 8), i;

	c.bad |= magic != 0x46554747 || version != 3 || n > f->map.n / 24;
	for (i = 0; i < keys && !c.bad; i++) {
		uint64_t len = take(&c, 8);

		(void)take_bytes(&c, len); /* the key's name is not wanted */
		skip_value(&c, (uint32_t)take(&c, 4));
	}
	f->t = c.bad ? NULL : vq_calloc((size_t)n, sizeof(*f->t), err);
	for (i = 0; f->t && i < n && !c.bad; i++, f->n++)
		take_tensor(&c, &f->t[i]);
	f->data = (c.at + 31) / 32 * 32;
	return c.bad || !f->t ? vq_fail(err, VQ_E_NO, "verify: %s: its head is no GGUF", path)
			      : VQ_OK;
}

int vq_read_gguf_open(struct vq_read_gguf **out, const struct vq_export *x, struct vq_err *err)
{
	static const char *const names[] = {VQ_EXPORT_GGUF_TEXT, VQ_EXPORT_GGUF_VISION};
	struct vq_read_gguf *r = vq_calloc(1, sizeof(*r), err);
	int rc = r ? VQ_OK : VQ_E_SYS, i;

	for (i = 0; rc == VQ_OK && i < (x->config.has_vision ? 2 : 1); i++) {
		char *path = vq_folder_file(&x->folder, names[i], err);

		rc = path ? vq_map_open(&r->f[i].map, path, VQ_E_SYS, err) : VQ_E_SYS;
		if (rc == VQ_OK)
			rc = read_head(&r->f[i], path, err);
		vq_free(path);
	}
	if (rc < 0) {
		vq_read_gguf_close(r);
		return rc;
	}
	r->x = x;
	*out = r;
	return VQ_OK;
}

void vq_read_gguf_close(struct vq_read_gguf *r)
{
	int i;

	for (i = 0; r && i < N_FILES; i++) {
		vq_map_close(&r->f[i].map);
		vq_free(r->f[i].t);
	}
	vq_free(r);
}

/* --- rows --- */

static double half_at(const uint8_t *p)
{
	uint16_t h;

	memcpy(&h, p, sizeof(h));
	return (double)vq_f16_to_f32(h);
}

/* Where row o of the model stands. */
static uint32_t place_of(const struct vq_export_seen *s, uint32_t o)
{
	uint32_t dh = s->heads ? s->n_out / s->heads : 0, at;

	if (!dh)
		return o;
	at = o % dh;
	return o / dh * dh + (at < dh / 2 ? 2 * at : 2 * (at - dh / 2) + 1);
}

static void row_q4(const struct vq_export_seen *s, uint32_t o, double *out, double *bound)
{
	int one = s->version == 3;
	size_t bytes = one ? 20 : 18, head = bytes - 16;
	const uint8_t *p = s->nf + (size_t)place_of(s, o) * (s->n_in / 32) * bytes;
	uint32_t k;

	for (k = 0; k < s->n_in; k++) {
		const uint8_t *b = p + k / 32 * bytes;
		uint32_t j = k % 32, n = j < 16 ? b[head + j] & 15 : b[head + j - 16] >> 4;
		double m = one ? half_at(b + 2) : 0;

		out[k] = one ? n * half_at(b) + m : ((double)n - 8) * half_at(b);
		bound[k] =
			one ? fmax(fabs(m) * 0x1p-11, 0x1p-25) : 0; /* m was rounded to float16 */
	}
}

static void row_q8(const struct vq_export_seen *s, uint32_t o, double *out, double *bound)
{
	const uint8_t *p = s->nf + (size_t)place_of(s, o) * (s->n_in / 32) * 34;
	uint32_t k;

	(void)bound; /* exact */
	for (k = 0; k < s->n_in; k++)
		out[k] = (int8_t)p[k / 32 * 34 + 2 + k % 32] * half_at(p + k / 32 * 34);
}

static void row_float(const struct vq_export_seen *s, uint32_t o, double *out, double *bound)
{
	size_t at = (size_t)place_of(s, o) * s->n_in;
	uint32_t k;

	(void)bound; /* exact */
	for (k = 0; k < s->n_in; k++, at++) {
		float v;
		uint16_t h;

		if (s->version == 0) {
			memcpy(&v, s->nf + 4 * at, sizeof(v));
		} else {
			memcpy(&h, s->nf + 2 * at, sizeof(h));
			v = s->version == 1 ? vq_f16_to_f32(h) : vq_bf16_to_f32(h);
		}
		out[k] = (double)v;
	}
}

int vq_read_gguf_find(struct vq_read_gguf *r, const struct vq_export_item *i,
		      struct vq_export_seen *s, struct vq_err *err)
{
	static const struct {
		uint32_t type, block, bytes;
		void (*row)(const struct vq_export_seen *s, uint32_t o, double *out, double *bound);
	} types[] = {{0, 1, 4, row_float}, {1, 1, 2, row_float}, {2, 32, 18, row_q4},
		     {3, 32, 20, row_q4},  {8, 32, 34, row_q8},  {30, 1, 2, row_float}};
	const struct found *t = NULL;
	const struct file *f;
	char name[96];
	uint32_t d;
	size_t k;
	int vision = 0, ok;

	if (vq_export_gguf_name(r->x, i->name->name, name, sizeof(name), &vision, &s->heads) < 0)
		return vq_fail(err, VQ_E_NO, "verify: '%s' has no name", i->name->name);
	f = &r->f[vision];
	for (k = 0; k < f->n && !t; k++)
		if (strcmp(f->t[k].name, name) == 0)
			t = &f->t[k];
	ok = t && t->n_dims == i->name->n_dims;
	for (d = 0; ok && d < t->n_dims; d++)
		ok = t->dims[d] == i->name->dims[t->n_dims - 1 - d];
	if (!ok)
		return vq_fail(err, VQ_E_NO, "verify: '%s' is missing or of another shape", name);
	for (k = 0; k < sizeof(types) / sizeof(types[0]); k++)
		if (types[k].type == t->type)
			break;
	if (k == sizeof(types) / sizeof(types[0]) || s->n_in % types[k].block ||
	    t->at > f->map.n - f->data ||
	    (uint64_t)s->n_out * (s->n_in / types[k].block) * types[k].bytes >
		    f->map.n - f->data - t->at)
		return vq_fail(err, VQ_E_NO, "verify: '%s': its type or place is wrong", name);
	s->nf = f->map.data + f->data + t->at;
	s->version = t->type;
	s->row = types[k].row;
	return VQ_OK;
}
