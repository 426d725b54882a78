/* Exporting: the parts of a quantized matrix as safetensors hold them.  Formats are those of format/words.h and, for
 * NF4, of bitsandbytes (functional.py, as_dict). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "format/words.h"
#include "task/export_parts.h"

#define LEVELS_INT8 255.0f

/* --- codes --- */

/* Down the inputs: words [n_in * bits / 32, n_out]. */
static void words_down(const struct vq_packed *p, const uint8_t *codes, uint32_t *w)
{
	long long o;

#pragma omp parallel for schedule(static)
	for (o = 0; o < (long long)p->n_out; o++)
		vq_words_pack(p->bits, codes + (size_t)o * p->n_in, p->n_in, 1, w + o, p->n_out);
}

/* Along the inputs: words [n_out, n_in * bits / 32]. */
static void words_along(const struct vq_packed *p, const uint8_t *codes, uint32_t *w)
{
	size_t n = vq_words_count(p->bits, p->n_in);
	long long o;

#pragma omp parallel for schedule(static)
	for (o = 0; o < (long long)p->n_out; o++)
		vq_words_pack(p->bits, codes + (size_t)o * p->n_in, p->n_in, 1, w + (size_t)o * n,
			      1);
}

static int fill_codes(const struct vq_export_tensor *t, enum vq_export_part part, void **data,
		      struct vq_err *err)
{
	const struct vq_packed *p = &t->p;
	size_t n = (size_t)p->n_out * p->n_in, i;
	uint8_t *codes = vq_export_codes(t, err);
	/* As many bytes as the codes fill, and for bytes one each. */
	void *out = codes ? vq_alloc(part == VQ_PART_CT_INT ? n : n * p->bits / 8, 1, err) : NULL;

	if (!out) {
		vq_free(codes);
		return VQ_E_SYS;
	}
	if (part == VQ_PART_AWQ_WEIGHT)
		vq_words_awq(codes, p->n_out, p->n_in, out);
	else if (part == VQ_PART_GPTQ_WEIGHT)
		words_down(p, codes, out);
	else if (part == VQ_PART_CT_PACKED)
		words_along(p, codes, out);
	else
		for (i = 0; i < n; i++)
			((int8_t *)out)[i] = (int8_t)(codes[i] - (1 << (p->bits - 1)));
	vq_free(codes);
	*data = out;
	return VQ_OK;
}

/* --- grids --- */

static void *scale_down(const uint16_t *scale, uint32_t n_out, uint32_t n, struct vq_err *err)
{
	uint16_t *out = vq_alloc((size_t)n_out * n, sizeof(*out), err);
	uint32_t o, g;

	for (o = 0; out && o < n_out; o++)
		for (g = 0; g < n; g++)
			out[(size_t)g * n_out + o] = scale[(size_t)o * n + g];
	return out;
}

/* Zero points [n_out, n] as words: a bit string along the outputs of each group, in rows of words or in columns. */
static void *zero_words(uint32_t bits, const uint8_t *zero, uint32_t n_out, uint32_t n, int columns,
			struct vq_err *err)
{
	size_t words = vq_words_count(bits, n_out);
	uint32_t *w = vq_alloc(words * n, sizeof(*w), err), g;

	for (g = 0; w && g < n; g++)
		vq_words_pack(bits, zero + g, n_out, n, columns ? w + g : w + g * words,
			      columns ? n : 1);
	return w;
}

static void *zero_awq(const uint8_t *zero, uint32_t n_out, uint32_t n, struct vq_err *err)
{
	uint32_t *w = vq_alloc((size_t)n_out / 8 * n, sizeof(*w), err);

	if (w)
		vq_words_awq(zero, n_out, n, w);
	return w;
}

static int fill_grid(const struct vq_export *x, const struct vq_export_tensor *t,
		     enum vq_export_part part, void **data, struct vq_err *err)
{
	const struct vq_packed *p = &t->p;
	uint16_t *scale = NULL;
	uint8_t *zero = NULL;
	uint32_t n = 0;
	size_t i;
	int rc = vq_export_grid(t, x->group, &scale, &zero, &n, err);

	if (rc < 0)
		return rc;
	*data = NULL;
	if (part == VQ_PART_SCALE_ALONG) {
		*data = scale;
		scale = NULL;
	} else if (part == VQ_PART_SCALE_DOWN) {
		*data = scale_down(scale, p->n_out, n, err);
	} else if (part == VQ_PART_AWQ_ZERO) {
		*data = zero_awq(zero, p->n_out, n, err);
	} else if (part == VQ_PART_CT_PACKED_ZERO) {
		*data = zero_words(p->bits, zero, p->n_out, n, 1, err);
	} else if (part == VQ_PART_CT_INT_ZERO) {
		for (i = 0; i < (size_t)p->n_out * n; i++)
			zero[i] = (uint8_t)(zero[i] - (1 << (p->bits - 1)));
		*data = zero;
		zero = NULL;
	} else { /* GPTQ: the first format stores zero points less 1 */
		for (i = 0; !x->o->gptq_v2 && i < (size_t)p->n_out * n; i++)
			zero[i]--;
		*data = zero_words(p->bits, zero, p->n_out, n, 0, err);
	}
	vq_free(scale);
	vq_free(zero);
	return *data ? VQ_OK : VQ_E_SYS;
}

static int fill_group_index(const struct vq_export *x, const struct vq_export_tensor *t,
			    void **data, struct vq_err *err)
{
	int32_t *g = vq_alloc(t->p.n_in, sizeof(*g), err);
	uint32_t k;

	if (!g)
		return VQ_E_SYS;
	for (k = 0; k < t->p.n_in; k++)
		g[k] = x->group ? (int32_t)(k / x->group) : 0;
	*data = g;
	return VQ_OK;
}

/* --- compressed-tensors --- */

static int fill_shape(const struct vq_export_tensor *t, void **data, struct vq_err *err)
{
	int64_t *s = vq_alloc(2, sizeof(*s), err);

	if (!s)
		return VQ_E_SYS;
	s[0] = t->p.n_out;
	s[1] = t->p.n_in;
	*data = s;
	return VQ_OK;
}

static float input_scale(int sym, float lo, float hi)
{
	return sym ? fmaxf(-lo, hi) / floorf(LEVELS_INT8 / 2) : (hi - lo) / LEVELS_INT8;
}

int vq_export_one_range(struct vq_export_tensor *t, float *lo, float *hi, struct vq_err *err)
{
	uint32_t i;
	int rc = vq_export_ranges(t, err);

	if (rc < 0)
		return rc;
	*lo = *hi = 0;
	for (i = 0; i < t->act.n_ranges; i++) {
		*lo = fminf(*lo, t->act.lo[i]);
		*hi = fmaxf(*hi, t->act.hi[i]);
	}
	if (!(input_scale(t->act.sym, *lo, *hi) > 0)) { /* engines divide by it */
		*lo = t->act.sym ? -127 : -128;
		*hi = 127;
	}
	return VQ_OK;
}

/* Of that range: scale f32, and the zero point i8 by which -128 stands for the least. */
static int fill_input(struct vq_export_tensor *t, enum vq_export_part part, void **data,
		      struct vq_err *err)
{
	float lo = 0, hi = 0, s;
	void *out = vq_alloc(1, sizeof(float), err);
	int rc = out ? vq_export_one_range(t, &lo, &hi, err) : VQ_E_SYS;

	if (rc < 0) {
		vq_free(out);
		return rc;
	}
	s = input_scale(t->act.sym, lo, hi);
	if (part == VQ_PART_CT_INPUT_SCALE)
		*(float *)out = s;
	else
		*(int8_t *)out = (int8_t)(vq_rne(-lo / s) - 128);
	*data = out;
	return VQ_OK;
}

/* --- NF4 --- */

char *vq_export_nf_state(const struct vq_export_tensor *t, struct vq_err *err)
{
	json_t *j = json_pack("{s:s, s:i, s:s, s:[I, I], s:i, s:s, s:f}", "quant_type", "nf4",
			      "blocksize", (int)VQ_NF_BLOCK, "dtype", "float16", "shape",
			      (json_int_t)t->p.n_out, (json_int_t)t->p.n_in, "nested_blocksize",
			      (int)VQ_NF_DOUBLE, "nested_dtype", "float32", "nested_offset",
			      (double)t->absmax.offset);
	char *text = json_dumps(j, JSON_COMPACT); /* 17 digits: the float comes back as it is */

	json_decref(j);
	if (!text)
		vq_fail(err, VQ_E_SYS, "memory: cannot describe NF4");
	return text;
}

static int fill_nf_codes(const struct vq_export_tensor *t, void **data, struct vq_err *err)
{
	size_t n = (size_t)t->p.n_out * t->p.n_in;
	uint8_t *codes = vq_export_codes(t, err);
	uint8_t *out = codes ? vq_alloc((n + 1) / 2, 1, err) : NULL;

	if (out)
		vq_nf_pack_nibbles(codes, n, out);
	vq_free(codes);
	*data = out;
	return out ? VQ_OK : VQ_E_SYS;
}

static int copy_of(const void *from, size_t n, void **data, struct vq_err *err)
{
	*data = vq_alloc(n, 1, err);
	if (!*data)
		return VQ_E_SYS;
	memcpy(*data, from, n);
	return VQ_OK;
}

static int fill_nf(const struct vq_export_tensor *t, enum vq_export_part part, void **data,
		   struct vq_err *err)
{
	const struct vq_nf_absmax *a = &t->absmax;
	float map[256];
	char *text;
	int rc;

	switch (part) {
	case VQ_PART_NF_CODES: return fill_nf_codes(t, data, err);
	case VQ_PART_NF_ABSMAX: return copy_of(a->q, a->n, data, err);
	case VQ_PART_NF_NESTED_ABSMAX:
		return copy_of(a->scale, vq_nf_n_scales(a->n) * sizeof(float), data, err);
	case VQ_PART_NF_MAP: return copy_of(vq_nf_codes(4), 16 * sizeof(float), data, err);
	case VQ_PART_NF_NESTED_MAP:
		vq_nf_dynamic_map(map);
		return copy_of(map, sizeof(map), data, err);
	default: break;
	}
	text = vq_export_nf_state(t, err);
	rc = text ? copy_of(text, strlen(text), data, err) : VQ_E_SYS;
	free(text);
	return rc;
}

/* --- CLIP's last norm, which no feature passes --- */

static int fill_constant(const struct vq_export *x, uint16_t half, void **data, struct vq_err *err)
{
	uint32_t n = x->config.vision.layer.hidden, i;
	uint16_t *v = vq_alloc(n, sizeof(*v), err);

	if (!v)
		return VQ_E_SYS;
	for (i = 0; i < n; i++)
		v[i] = half;
	*data = v;
	return VQ_OK;
}

int vq_export_fill(const struct vq_export *x, struct vq_export_tensor *t, enum vq_export_part part,
		   void **data, struct vq_err *err)
{
	switch (part) {
	case VQ_PART_AWQ_WEIGHT:
	case VQ_PART_GPTQ_WEIGHT:
	case VQ_PART_CT_PACKED:
	case VQ_PART_CT_INT: return fill_codes(t, part, data, err);
	case VQ_PART_AWQ_ZERO:
	case VQ_PART_GPTQ_ZERO:
	case VQ_PART_SCALE_DOWN:
	case VQ_PART_SCALE_ALONG:
	case VQ_PART_CT_PACKED_ZERO:
	case VQ_PART_CT_INT_ZERO: return fill_grid(x, t, part, data, err);
	case VQ_PART_GPTQ_GROUP: return fill_group_index(x, t, data, err);
	case VQ_PART_CT_SHAPE: return fill_shape(t, data, err);
	case VQ_PART_CT_INPUT_SCALE:
	case VQ_PART_CT_INPUT_ZERO: return fill_input(t, part, data, err);
	case VQ_PART_ONES: return fill_constant(x, vq_f32_to_f16(1), data, err);
	case VQ_PART_ZEROS: return fill_constant(x, 0, data, err);
	default: return fill_nf(t, part, data, err);
	}
}
