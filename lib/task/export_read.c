/* Reading exported safetensors back.  The matrix w of each format, by input k and output o, in groups of n_in / n_groups:
 *
 *   awq   (q - z) s      nibble at 4 {0,4,1,5,2,6,3,7}[o % 8] of qweight[k][o / 8], z alike in qzeros
 *   gptq  (q - z) s      bits k b.. down column o of qweight, z: bits o b.. along row g_idx[k] of qzeros, plus 1 in v1
 *   compressed-tensors   (q - z) s, bits k b.. along row o of weight_packed, z: bits o b.. down column g, 2^(b-1) without;
 *                        or bytes, signed
 *   bnb   code[n] a      n the nibble of element e = o n_in + k, even e high; a = map[absmax[e / 64]] nested[e / 16384] + offset */
#include "task/export_read.h"

#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "format/checkpoint.h"

struct vq_export_read {
	const struct vq_export *x;
	struct vq_ckpt *ckpt;
	struct vq_read_gguf *gguf; /* instead */
	json_t *state;             /* of the NF4 matrix that was found last */
};

int vq_export_read_open(struct vq_export_read **out, const struct vq_export *x, struct vq_err *err)
{
	struct vq_export_read *r = vq_calloc(1, sizeof(*r), err);
	int rc = r ? VQ_OK : VQ_E_SYS;

	if (rc == VQ_OK)
		rc = x->o->to == VQ_EXPORT_GGUF ? vq_read_gguf_open(&r->gguf, x, err)
						: vq_ckpt_open(&r->ckpt, x->folder.part, err);
	if (rc < 0) {
		vq_free(r);
		return rc;
	}
	r->x = x;
	*out = r;
	return VQ_OK;
}

void vq_export_read_close(struct vq_export_read *r)
{
	if (!r)
		return;
	vq_ckpt_close(r->ckpt);
	vq_read_gguf_close(r->gguf);
	json_decref(r->state);
	vq_free(r);
}

/* --- rows --- */

/* Bits at.. at + b of a bit string of words that are `stride` apart. */
static uint32_t bits_of(const uint32_t *w, size_t stride, size_t at, uint32_t b)
{
	size_t word = at / 32, shift = at % 32;
	uint64_t two = w[word * stride];

	if (shift + b > 32)
		two |= (uint64_t)w[(word + 1) * stride] << 32;
	return (uint32_t)(two >> shift) & ((1u << b) - 1);
}

static size_t group_of(const struct vq_export_seen *s, uint32_t k)
{
	return s->g ? (size_t)s->g[k] : (size_t)k * s->n_groups / s->n_in;
}

static void row_awq(const struct vq_export_seen *s, uint32_t o, double *out, double *bound)
{
	static const uint32_t at[8] = {0, 4, 1, 5, 2, 6, 3, 7};
	uint32_t shift = 4 * at[o % 8], k;
	size_t words = s->n_out / 8;

	(void)bound; /* exact */
	for (k = 0; k < s->n_in; k++) {
		size_t g = group_of(s, k);
		uint32_t q = s->w[k * words + o / 8] >> shift & 15;
		uint32_t z = s->z[g * words + o / 8] >> shift & 15;

		out[k] = ((double)q - z) * (double)vq_f16_to_f32(s->s[g * s->n_out + o]);
	}
}

static void row_gptq(const struct vq_export_seen *s, uint32_t o, double *out, double *bound)
{
	size_t words = (size_t)s->n_out * s->bits / 32;
	uint32_t k;

	(void)bound; /* exact */
	for (k = 0; k < s->n_in; k++) {
		size_t g = group_of(s, k);
		uint32_t q = bits_of(s->w + o, s->n_out, (size_t)k * s->bits, s->bits);
		uint32_t z = bits_of(s->z + g * words, 1, (size_t)o * s->bits, s->bits);

		out[k] = ((double)q - z - (s->version == 1)) *
			 (double)vq_f16_to_f32(s->s[g * s->n_out + o]);
	}
}

static void row_packed(const struct vq_export_seen *s, uint32_t o, double *out, double *bound)
{
	size_t words = ((size_t)s->n_in * s->bits + 31) / 32;
	uint32_t k;

	(void)bound; /* exact */
	for (k = 0; k < s->n_in; k++) {
		size_t g = group_of(s, k);
		uint32_t q = bits_of(s->w + o * words, 1, (size_t)k * s->bits, s->bits);
		uint32_t z = s->z ? bits_of(s->z + g, s->n_groups, (size_t)o * s->bits, s->bits)
				  : 1u << (s->bits - 1);

		out[k] = ((double)q - z) * (double)vq_f16_to_f32(s->s[o * (size_t)s->n_groups + g]);
	}
}

static void row_bytes(const struct vq_export_seen *s, uint32_t o, double *out, double *bound)
{
	uint32_t k;

	(void)bound; /* exact */
	for (k = 0; k < s->n_in; k++) {
		size_t g = o * (size_t)s->n_groups + group_of(s, k);

		out[k] = (double)(s->b[(size_t)o * s->n_in + k] - (s->bz ? s->bz[g] : 0)) *
			 (double)vq_f16_to_f32(s->s[g]);
	}
}

static void row_nf(const struct vq_export_seen *s, uint32_t o, double *out, double *bound)
{
	uint32_t k;

	(void)bound; /* exact */
	for (k = 0; k < s->n_in; k++) {
		size_t e = (size_t)o * s->n_in + k, b = e / 64;
		float absmax = s->nested_map[s->absmax[b]] * s->nested[b / 256] + (float)s->offset;
		uint32_t n = s->nf[e / 2] >> (e % 2 ? 0 : 4) & 15;

		out[k] = (double)(s->map[n] * absmax);
	}
}

static void row_floats(const struct vq_export_seen *s, uint32_t o, double *out, double *bound)
{
	size_t at = (size_t)o * s->n_in;
	const uint16_t *half = (const uint16_t *)s->floats->data + at;
	uint32_t k;

	(void)bound; /* exact, or set by who knows what they were */
	for (k = 0; k < s->n_in; k++)
		out[k] = s->floats->dtype == VQ_F32
				 ? (double)((const float *)s->floats->data)[at + k]
			 : s->floats->dtype == VQ_F16 ? (double)vq_f16_to_f32(half[k])
						      : (double)vq_bf16_to_f32(half[k]);
}

/* --- finding --- */

/* MODULE.SUFFIX of a type and shape (b 0: one dimension); *data stays when it is not wanted and not there. */
static int part(const struct vq_export_read *r, const char *module, const char *suffix,
		enum vq_dtype type, uint64_t a, uint64_t b, int wanted, const void *data_out,
		struct vq_err *err)
{
	const void **data = (const void **)(uintptr_t)data_out;
	const struct vq_tensor *t;
	char name[256];

	snprintf(name, sizeof(name), "%s.%s", module, suffix);
	t = vq_ckpt_find(r->ckpt, name, NULL);
	if (!t && !wanted)
		return VQ_OK;
	if (!t)
		return vq_fail(err, VQ_E_NO, "verify: '%s' is missing", name);
	if (t->dtype != type || t->n_dims != (b ? 2u : 1u) || t->dims[0] != a ||
	    (b && t->dims[1] != b))
		return vq_fail(err, VQ_E_NO, "verify: '%s': want %s [%llu, %llu]", name,
			       vq_dtype_name(type), (unsigned long long)a, (unsigned long long)b);
	*data = t->data;
	return VQ_OK;
}

/* Groups by the shape of the scales. */
static uint32_t groups(const struct vq_export_read *r, const char *module, const char *suffix,
		       int dim)
{
	const struct vq_tensor *t;
	char name[256];

	snprintf(name, sizeof(name), "%s.%s", module, suffix);
	t = vq_ckpt_find(r->ckpt, name, NULL);
	return t && t->n_dims == 2 ? (uint32_t)t->dims[dim] : 0;
}

static int find_words(struct vq_export_read *r, const char *m, struct vq_export_seen *s,
		      struct vq_err *err)
{
	int gptq = r->x->o->to == VQ_EXPORT_GPTQ, rc;
	uint64_t n_in = s->n_in, n_out = s->n_out, b = s->bits;

	s->row = gptq ? row_gptq : row_awq;
	s->version = r->x->o->gptq_v2 ? 2 : 1;
	s->n_groups = groups(r, m, "scales", 0);
	rc = part(r, m, "scales", VQ_F16, s->n_groups, n_out, 1, &s->s, err);
	if (rc == VQ_OK && gptq)
		rc = part(r, m, "g_idx", VQ_I32, n_in, 0, 1, &s->g, err);
	if (rc == VQ_OK)
		rc = part(r, m, "qweight", VQ_I32, gptq ? n_in * b / 32 : n_in,
			  gptq ? n_out : n_out / 8, 1, &s->w, err);
	return rc < 0 ? rc
		      : part(r, m, "qzeros", VQ_I32, s->n_groups, n_out * b / 32, 1, &s->z, err);
}

static int find_ct(struct vq_export_read *r, const char *m, int sym, struct vq_export_seen *s,
		   struct vq_err *err)
{
	uint64_t n_in = s->n_in, n_out = s->n_out, b = s->bits;
	const int64_t *shape = NULL;
	int rc;

	s->n_groups = groups(r, m, "weight_scale", 1);
	rc = part(r, m, "weight_scale", VQ_F16, n_out, s->n_groups, 1, &s->s, err);
	if (rc == VQ_OK)
		rc = part(r, m, "weight", VQ_I8, n_out, n_in, 0, &s->b, err);
	if (rc < 0)
		return rc;
	s->row = s->b ? row_bytes : row_packed;
	if (s->b)
		return part(r, m, "weight_zero_point", VQ_I8, n_out, s->n_groups, !sym, &s->bz,
			    err);
	rc = part(r, m, "weight_packed", VQ_I32, n_out, (n_in * b + 31) / 32, 1, &s->w, err);
	if (rc == VQ_OK)
		rc = part(r, m, "weight_zero_point", VQ_I32, (n_out * b + 31) / 32, s->n_groups,
			  !sym, &s->z, err);
	if (rc == VQ_OK)
		rc = part(r, m, "weight_shape", VQ_I64, 2, 0, 1, &shape, err);
	if (rc == VQ_OK && ((uint64_t)shape[0] != n_out || (uint64_t)shape[1] != n_in))
		rc = vq_fail(err, VQ_E_NO, "verify: '%s.weight_shape' is another", m);
	return rc;
}

static int find_nf(struct vq_export_read *r, const char *m, struct vq_export_seen *s,
		   struct vq_err *err)
{
	size_t n = (size_t)s->n_out * s->n_in, blocks = (n + 63) / 64;
	const struct vq_tensor *t;
	char name[256];
	int rc = part(r, m, "weight", VQ_U8, (n + 1) / 2, 1, 1, &s->nf, err);

	s->row = row_nf;
	if (rc == VQ_OK)
		rc = part(r, m, "weight.absmax", VQ_U8, blocks, 0, 1, &s->absmax, err);
	if (rc == VQ_OK)
		rc = part(r, m, "weight.nested_absmax", VQ_F32, (blocks + 255) / 256, 0, 1,
			  &s->nested, err);
	if (rc == VQ_OK)
		rc = part(r, m, "weight.quant_map", VQ_F32, 16, 0, 1, &s->map, err);
	if (rc == VQ_OK)
		rc = part(r, m, "weight.nested_quant_map", VQ_F32, 256, 0, 1, &s->nested_map, err);
	if (rc < 0)
		return rc;
	snprintf(name, sizeof(name), "%s.weight.quant_state.bitsandbytes__nf4", m);
	t = vq_ckpt_find(r->ckpt, name, NULL);
	json_decref(r->state);
	r->state = t ? json_loadb(t->data, (size_t)t->dims[0], 0, NULL) : NULL;
	if (!json_is_real(json_object_get(r->state, "nested_offset")))
		return vq_fail(err, VQ_E_NO, "verify: '%s' has no nested_offset", name);
	s->offset = json_real_value(json_object_get(r->state, "nested_offset"));
	return VQ_OK;
}

static int find_floats(const struct vq_export_read *r, const struct vq_export_item *i,
		       const char *name, struct vq_export_seen *s, struct vq_err *err)
{
	const struct vq_tensor *t = vq_ckpt_find(r->ckpt, name, NULL);

	if (!t || t->n_dims != i->name->n_dims || t->dims[0] != i->name->dims[0] + i->n_more ||
	    memcmp(t->dims + 1, i->name->dims + 1, (t->n_dims - 1) * sizeof(t->dims[0])) != 0 ||
	    (t->dtype != VQ_F16 &&
	     (i->as == VQ_AS_HALF || (t->dtype != VQ_F32 && t->dtype != VQ_BF16))))
		return vq_fail(err, VQ_E_NO, "verify: '%s' is missing or of another type or shape",
			       name);
	s->floats = t;
	s->row = row_floats;
	return VQ_OK;
}

int vq_export_read_find(struct vq_export_read *r, const struct vq_export_item *i,
			struct vq_export_seen *s, struct vq_err *err)
{
	char name[192];

	*s = (struct vq_export_seen){.n_out = i->n_out, .n_in = i->n_in, .bits = i->bits};
	if (r->gguf)
		return vq_read_gguf_find(r->gguf, i, s, err);
	vq_export_spell(r->x, i->name->name, name, sizeof(name));
	if (i->as != VQ_AS_CODES)
		return find_floats(r, i, name, s, err);
	name[strlen(name) - strlen(".weight")] = '\0';
	switch (r->x->o->to) {
	case VQ_EXPORT_AWQ:
	case VQ_EXPORT_GPTQ: return find_words(r, name, s, err);
	case VQ_EXPORT_CT: return find_ct(r, name, i->sym, s, err);
	default: return find_nf(r, name, s, err);
	}
}
