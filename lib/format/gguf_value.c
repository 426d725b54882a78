/* GGUF: values of keys. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "format/gguf_parts.h"
#include "format/gguf_read.h"

static const struct {
	const char *name;
	size_t size;
} types[VQ_GGUF_N_TYPES] = {
	[VQ_GGUF_U8] = {"u8", 1},         [VQ_GGUF_I8] = {"i8", 1},
	[VQ_GGUF_U16] = {"u16", 2},       [VQ_GGUF_I16] = {"i16", 2},
	[VQ_GGUF_U32] = {"u32", 4},       [VQ_GGUF_I32] = {"i32", 4},
	[VQ_GGUF_F32] = {"f32", 4},       [VQ_GGUF_BOOL] = {"bool", 1},
	[VQ_GGUF_STRING] = {"string", 0}, [VQ_GGUF_ARRAY] = {"array", 0},
	[VQ_GGUF_U64] = {"u64", 8},       [VQ_GGUF_I64] = {"i64", 8},
	[VQ_GGUF_F64] = {"f64", 8},
};

const char *vq_gguf_type_name(uint32_t type)
{
	return type < VQ_GGUF_N_TYPES ? types[type].name : "?";
}

size_t vq_gguf_type_size(uint32_t type)
{
	return type < VQ_GGUF_N_TYPES ? types[type].size : 0;
}

static int refuse(const struct vq_gguf_file *g, const struct vq_gguf_key *k, const char *wanted,
		  const char *got, struct vq_err *err)
{
	char shown[64];

	vq_gguf_shown(shown, sizeof(shown), k->name, k->n_name);
	return vq_fail(err, VQ_E_DATA, "%s: key '%s': want %s, got %s", g->path, shown, wanted,
		       got);
}

static int refuse_type(const struct vq_gguf_file *g, const struct vq_gguf_key *k,
		       const char *wanted, struct vq_err *err)
{
	char got[64];

	snprintf(got, sizeof(got), "%s%s", vq_gguf_type_name(k->type),
		 k->type == VQ_GGUF_ARRAY ? " (numbers that differ by layer are not supported)"
					  : "");
	return refuse(g, k, wanted, got, err);
}

/* A whole number: 1; -1 for another type. */
static int whole(const struct vq_gguf_key *k, int64_t *out)
{
	uint64_t v = 0;
	size_t n = vq_gguf_type_size(k->type);

	if (n)
		memcpy(&v, k->p, n);
	switch (k->type) {
	case VQ_GGUF_I8: *out = (int8_t)v; return 1;
	case VQ_GGUF_I16: *out = (int16_t)v; return 1;
	case VQ_GGUF_I32: *out = (int32_t)v; return 1;
	case VQ_GGUF_I64: *out = (int64_t)v; return 1;
	case VQ_GGUF_U8:
	case VQ_GGUF_U16:
	case VQ_GGUF_U32: *out = (int64_t)v; return 1;
	case VQ_GGUF_U64: *out = v > INT64_MAX ? INT64_MAX : (int64_t)v; return 1;
	default: return -1;
	}
}

int vq_gguf_get_u32(const struct vq_gguf_file *g, const char *name, uint32_t lo, uint32_t hi,
		    uint32_t *out, struct vq_err *err)
{
	const struct vq_gguf_key *k = vq_gguf_find(g, name);
	char wanted[64], got[32];
	int64_t v;

	if (!k)
		return 0;
	snprintf(wanted, sizeof(wanted), "a whole number of %u..%u", lo, hi);
	if (whole(k, &v) < 0)
		return refuse_type(g, k, wanted, err);
	if (v < lo || v > hi) {
		snprintf(got, sizeof(got), "%lld", (long long)v);
		return refuse(g, k, wanted, got, err);
	}
	*out = (uint32_t)v;
	return 1;
}

int vq_gguf_get_f64(const struct vq_gguf_file *g, const char *name, double *out, struct vq_err *err)
{
	const struct vq_gguf_key *k = vq_gguf_find(g, name);
	uint32_t bits;
	double v;

	if (!k)
		return 0;
	if (k->type == VQ_GGUF_F32) {
		memcpy(&bits, k->p, sizeof(bits));
		v = (double)vq_bits_f32(bits);
	} else if (k->type == VQ_GGUF_F64) {
		memcpy(&v, k->p, sizeof(v));
	} else {
		return refuse_type(g, k, "a number of type f32 or f64", err);
	}
	if (!isfinite(v))
		return refuse(g, k, "a finite number", "NaN or infinity", err);
	*out = v;
	return 1;
}

int vq_gguf_get_bool(const struct vq_gguf_file *g, const char *name, int *out, struct vq_err *err)
{
	const struct vq_gguf_key *k = vq_gguf_find(g, name);

	if (!k)
		return 0;
	if (k->type != VQ_GGUF_BOOL)
		return refuse_type(g, k, "a bool", err);
	if (*k->p > 1)
		return refuse(g, k, "a bool, 0 or 1", "another number", err);
	*out = *k->p;
	return 1;
}

int vq_gguf_get_text(const struct vq_gguf_file *g, const char *name, char **out, struct vq_err *err)
{
	const struct vq_gguf_key *k = vq_gguf_find(g, name);
	const uint8_t *p;
	const char *s;
	size_t n;

	if (!k)
		return 0;
	if (k->type != VQ_GGUF_STRING)
		return refuse_type(g, k, "a string", err);
	p = k->p;
	s = vq_gguf_next_text(&p, &n);
	if (memchr(s, '\0', n))
		return refuse(g, k, "a text", "one with a zero byte", err);
	*out = vq_alloc(n + 1, 1, err);
	if (!*out)
		return VQ_E_SYS;
	memcpy(*out, s, n);
	(*out)[n] = '\0';
	return 1;
}

int vq_gguf_get_array(const struct vq_gguf_file *g, const char *name, enum vq_gguf_type item,
		      const struct vq_gguf_key **out, struct vq_err *err)
{
	const struct vq_gguf_key *k = vq_gguf_find(g, name);
	char wanted[64], got[64];

	if (!k)
		return 0;
	snprintf(wanted, sizeof(wanted), "an array of %s", vq_gguf_type_name(item));
	snprintf(got, sizeof(got), "%s%s", k->type == VQ_GGUF_ARRAY ? "one of " : "",
		 vq_gguf_type_name(k->item));
	if (k->type != VQ_GGUF_ARRAY || k->item != item)
		return refuse(g, k, wanted, got, err);
	*out = k;
	return 1;
}

const char *vq_gguf_next_text(const uint8_t **p, size_t *n)
{
	const char *s = (const char *)*p + 8;
	uint64_t len;

	memcpy(&len, *p, sizeof(len));
	*n = (size_t)len;
	*p += 8 + *n;
	return s;
}
