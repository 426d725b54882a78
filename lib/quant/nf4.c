/* NF4 and NF3: codes, blocks, double quantization. */
#include "quant/nf4.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "quant/rtn.h"

#define TILE       (64 * VQ_NF_BLOCK) /* weights that one piece of work takes */
#define MIN_ABSMAX 1e-38f

/* A stored format, so the values stand here; a test makes them again from their rule. */
static const float nf4[16] = {
	-1.0f,
	-0.6961928009986877f,
	-0.5250730514526367f,
	-0.39491748809814453f,
	-0.28444138169288635f,
	-0.18477343022823334f,
	-0.09105003625154495f,
	0.0f,
	0.07958029955625534f,
	0.16093020141124725f,
	0.24611230194568634f,
	0.33791524171829224f,
	0.44070982933044434f,
	0.5626170039176941f,
	0.7229568362236023f,
	1.0f,
};

static const float nf3[8] = {
	-1.0f,
	-0.5350227355957031f,
	-0.24693140387535095f,
	0.0f,
	0.1833375245332718f,
	0.38199394941329956f,
	0.6229856610298157f,
	1.0f,
};

const float *vq_nf_codes(uint32_t bits)
{
	return bits == 4 ? nf4 : bits == 3 ? nf3 : NULL;
}

float vq_nf_threshold(uint32_t bits, uint32_t i)
{
	const float *c = vq_nf_codes(bits);

	return (c[i] + c[i + 1]) / 2;
}

/* Midpoints of n ascending values. */
static void midpoints(const float *v, uint32_t n, float *mid)
{
	uint32_t i;

	for (i = 0; i + 1 < n; i++)
		mid[i] = (v[i] + v[i + 1]) / 2;
}

/* How many of the n - 1 midpoints lie below x; n is a power of two. */
static inline uint8_t nearest(const float *mid, uint32_t n, float x)
{
	uint32_t at = 0, step;

	for (step = n / 2; step; step /= 2)
		at += x > mid[at + step - 1] ? step : 0;
	return (uint8_t)at;
}

uint8_t vq_nf_nearest(uint32_t bits, float x)
{
	float mid[15];

	midpoints(vq_nf_codes(bits), 1u << bits, mid);
	return nearest(mid, 1u << bits, x);
}

/* One block: its codes; returns absmax. */
static float quantize_block(const float *mid, uint32_t n_codes, const float *w, size_t n,
			    uint8_t *codes)
{
	float absmax = 0, inverse;
	size_t i;

	for (i = 0; i < n; i++)
		absmax = fabsf(w[i]) > absmax ? fabsf(w[i]) : absmax;
	inverse = 1 / (absmax > MIN_ABSMAX ? absmax : MIN_ABSMAX);
	for (i = 0; i < n; i++) {
		float x = w[i] * inverse;

		x = x < -1 ? -1 : x > 1 ? 1 : x;
		codes[i] = nearest(mid, n_codes, x);
	}
	return absmax;
}

static void quantize_blocks(const float *values, uint32_t n_codes, uint32_t block, const float *w,
			    size_t n, uint8_t *codes, float *absmax)
{
	float mid[255];
	size_t at;

	midpoints(values, n_codes, mid);
	for (at = 0; at < n; at += block)
		absmax[at / block] = quantize_block(mid, n_codes, w + at,
						    n - at < block ? n - at : block, codes + at);
}

void vq_nf_quantize(uint32_t bits, const float *w, size_t n, uint8_t *codes, float *absmax)
{
	quantize_blocks(vq_nf_codes(bits), 1u << bits, VQ_NF_BLOCK, w, n, codes, absmax);
}

void vq_nf_dequantize(uint32_t bits, const uint8_t *codes, const float *absmax, size_t first,
		      size_t n, float *w)
{
	const float *c = vq_nf_codes(bits);
	size_t i;

	for (i = first; i < first + n; i++)
		w[i - first] = c[codes[i]] * absmax[i / VQ_NF_BLOCK];
}

/* --- absmax --- */

void vq_nf_dynamic_map(float map[256])
{
	static const double ten[7] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};
	double lo = 0.1f, step;
	uint32_t e, i, n = 1;
	float *up = map + 128;

	/* -0.99.., ..., -1e-6: 127; 0; 1e-6, ..., 0.99..: 127; 1 */
	map[127] = 0;
	map[255] = 1;
	for (e = 0; e < 7; e++, n *= 2) {
		step = (1 - lo) / n;
		for (i = 0; i < n; i++) {
			float a = (float)(lo + i * step), b = (float)(lo + (i + 1) * step);

			*up++ = (float)(ten[e] * (double)((a + b) / 2));
		}
	}
	for (i = 0; i < 127; i++)
		map[i] = -map[254 - i];
}

void vq_nf_absmax_quantize(struct vq_nf_absmax *a, const float *absmax)
{
	float map[256], rest[VQ_NF_DOUBLE];
	double sum = 0;
	size_t i, at, n;

	vq_nf_dynamic_map(map);
	for (i = 0; i < a->n; i++)
		sum += (double)absmax[i];
	a->offset = a->n ? (float)(sum / (double)a->n) : 0;
	for (at = 0; at < a->n; at += n) {
		n = a->n - at < VQ_NF_DOUBLE ? a->n - at : VQ_NF_DOUBLE;
		for (i = 0; i < n; i++)
			rest[i] = absmax[at + i] - a->offset;
		quantize_blocks(map, 256, VQ_NF_DOUBLE, rest, n, a->q + at,
				a->scale + at / VQ_NF_DOUBLE);
	}
}

void vq_nf_absmax_dequantize(const struct vq_nf_absmax *a, float *absmax)
{
	float map[256];
	size_t i;

	vq_nf_dynamic_map(map);
	for (i = 0; i < a->n; i++)
		absmax[i] = map[a->q[i]] * a->scale[i / VQ_NF_DOUBLE] + a->offset;
}

/* --- other forms of the codes --- */

void vq_nf_pack_nibbles(const uint8_t *codes, size_t n, uint8_t *out)
{
	size_t i;

	for (i = 0; i < n; i += 2)
		out[i / 2] = (uint8_t)(codes[i] << 4 | (i + 1 < n ? codes[i + 1] : 0));
}

void vq_nf_bytes(uint32_t bits, uint8_t *bytes)
{
	const float *c = vq_nf_codes(bits);
	uint32_t i;

	for (i = 0; i < 1u << bits; i++)
		bytes[i] = (uint8_t)(128 + (int)vq_rne(127 * c[i]));
}

/* --- records --- */

json_t *vq_nf_grid_json(uint32_t bits)
{
	return json_pack("{s:s, s:i, s:i, s:i}", "type", "nf", "bits", (int)bits, "block",
			 (int)VQ_NF_BLOCK, "double", (int)VQ_NF_DOUBLE);
}

int vq_nf_grid_parse(const json_t *grid, uint32_t *bits, const char *label, struct vq_err *err)
{
	const char *type = NULL;
	uint32_t b = 0, block = 0, twice = 0;

	*bits = 0;
	if (!json_object_get(grid, "type"))
		return VQ_OK;
	if (vq_json_str(grid, "type", "", &type, label, err) < 0 ||
	    vq_json_u32(grid, "bits", 0, &b, label, err) < 0 ||
	    vq_json_u32(grid, "block", 0, &block, label, err) < 0 ||
	    vq_json_u32(grid, "double", 0, &twice, label, err) < 0)
		return VQ_E_DATA;
	if (strcmp(type, "nf") != 0 || !vq_nf_codes(b) || block != VQ_NF_BLOCK ||
	    twice != VQ_NF_DOUBLE)
		return vq_fail(err, VQ_E_DATA,
			       "%s: grid: want type nf of 3 or 4 bits, block %u, double %u; got "
			       "'%.20s', %u, %u, %u",
			       label, VQ_NF_BLOCK, VQ_NF_DOUBLE, type, b, block, twice);
	*bits = b;
	return VQ_OK;
}

int vq_nf_absmax_check(const struct vq_nf_absmax *a, const char *label, struct vq_err *err)
{
	size_t n = vq_nf_n_scales(a->n), i;

	if (!isfinite(a->offset))
		return vq_fail(err, VQ_E_DATA, "%s: the offset of absmax is no number", label);
	for (i = 0; i < n; i++)
		if (!(isfinite(a->scale[i]) && a->scale[i] >= 0))
			return vq_fail(err, VQ_E_DATA,
				       "%s: scale %zu of absmax is no number of 0 or more", label,
				       i);
		/* The map goes from less than -0.99 to 1. */
		else if (!isfinite(a->scale[i] + fabsf(a->offset)))
			return vq_fail(err, VQ_E_DATA,
				       "%s: scale %zu of absmax and its offset leave float32",
				       label, i);
	return VQ_OK;
}

/* --- a whole weight --- */

int vq_nf_alloc(struct vq_nf *f, uint32_t bits, uint32_t n_out, uint32_t n_in, struct vq_err *err)
{
	size_t n;

	memset(f, 0, sizeof(*f));
	if (!vq_nf_codes(bits))
		return vq_fail(err, VQ_E_DATA, "NF: want 3 or 4 bits, got %u", bits);
	if (vq_mul_size(&n, n_out, n_in) < 0 || n > SIZE_MAX - VQ_NF_BLOCK)
		return vq_fail(err, VQ_E_DATA, "NF: %u x %u is too large", n_out, n_in);
	f->bits = bits;
	f->n_out = n_out;
	f->n_in = n_in;
	f->absmax.n = vq_nf_n_blocks(n_out, n_in);
	f->codes = vq_alloc(n, 1, err);
	f->absmax.q = f->codes ? vq_alloc(f->absmax.n, 1, err) : NULL;
	f->absmax.scale = f->absmax.q ? vq_alloc_f32(vq_nf_n_scales(f->absmax.n), err) : NULL;
	if (f->absmax.scale)
		return VQ_OK;
	vq_nf_free(f);
	return VQ_E_SYS;
}

void vq_nf_free(struct vq_nf *f)
{
	vq_free(f->codes);
	vq_free(f->absmax.q);
	vq_free(f->absmax.scale);
	memset(f, 0, sizeof(*f));
}

int vq_nf_values(const struct vq_nf *f, float *w, struct vq_err *err)
{
	float *absmax = vq_alloc_f32(f->absmax.n, err);

	if (!absmax)
		return VQ_E_SYS;
	vq_nf_absmax_dequantize(&f->absmax, absmax);
	vq_nf_dequantize(f->bits, f->codes, absmax, 0, (size_t)f->n_out * f->n_in, w);
	vq_free(absmax);
	return VQ_OK;
}

struct fit {
	struct vq_nf *f;
	struct vq_tensor t;
	size_t n;
	float *absmax; /* as found, then as dequantized */
	double *sums;  /* [n_tiles, 4] squares: error, weight, bytes' error, w' */
};

static void fit_tile(const struct fit *f, size_t first, float *buf)
{
	size_t n = f->n - first < TILE ? f->n - first : TILE;

	/* The type was looked at before: the conversion cannot fail. */
	if (vq_tensor_to_f32(&f->t, first, n, buf, NULL) == VQ_OK)
		vq_nf_quantize(f->f->bits, buf, n, f->f->codes + first,
			       f->absmax + first / VQ_NF_BLOCK);
}

static void measure_tile(const struct fit *f, size_t first, float *buf)
{
	const float *c = vq_nf_codes(f->f->bits);
	size_t n = f->n - first < TILE ? f->n - first : TILE, i;
	double *s = f->sums + 4 * (first / TILE);
	float off[16];
	uint8_t bytes[16];

	vq_nf_bytes(f->f->bits, bytes);
	for (i = 0; i < 1u << f->f->bits; i++)
		off[i] = (float)(bytes[i] - 128) / 127 - c[i];
	if (vq_tensor_to_f32(&f->t, first, n, buf, NULL) < 0)
		return;
	for (i = 0; i < n; i++) {
		float m = f->absmax[(first + i) / VQ_NF_BLOCK];
		uint8_t u = f->f->codes[first + i];
		double q = (double)(c[u] * m), b = (double)off[u] * (double)m,
		       d = q - (double)buf[i];

		s[0] += d * d;
		s[1] += (double)buf[i] * (double)buf[i];
		s[2] += b * b;
		s[3] += q * q;
	}
}

typedef void tile_fn(const struct fit *f, size_t first, float *buf);

static int all_tiles(const struct fit *f, tile_fn *fn, struct vq_err *err)
{
	long long i, n_tiles = (long long)((f->n + TILE - 1) / TILE);
	int failed = 0;

#pragma omp parallel
	{
		float *buf = vq_alloc_f32(TILE, NULL);

		if (!buf) {
#pragma omp atomic write
			failed = 1;
		}
#pragma omp for schedule(static)
		for (i = 0; i < n_tiles; i++)
			if (buf)
				fn(f, (size_t)i * TILE, buf);
		vq_free(buf);
	}
	return failed ? vq_fail(err, VQ_E_SYS, "memory: cannot have %u weights", TILE) : VQ_OK;
}

static struct vq_nf_error total(const struct fit *f)
{
	size_t i, n_tiles = (f->n + TILE - 1) / TILE;
	double s[4] = {0};

	for (i = 0; i < 4 * n_tiles; i++)
		s[i % 4] += f->sums[i];
	return (struct vq_nf_error){s[1] > 0 ? s[0] / s[1] : 0, s[3] > 0 ? s[2] / s[3] : 0};
}

int vq_nf_fit(struct vq_nf *nf, const void *w, enum vq_dtype type, struct vq_nf_error *error,
	      struct vq_err *err)
{
	struct fit f = {nf, {type, 2, {nf->n_out, nf->n_in}, w}, 0, NULL, NULL};
	int rc;

	if (type != VQ_F32 && type != VQ_F16 && type != VQ_BF16)
		return vq_fail(err, VQ_E_DATA, "want f32, f16 or bf16 weights, got %s",
			       vq_dtype_name(type));
	f.n = (size_t)nf->n_out * nf->n_in; /* vq_nf_alloc saw that it fits */
	rc = vq_rtn_check_finite(w, type, f.n, err);
	if (rc < 0)
		return rc;
	f.absmax = vq_alloc_f32(nf->absmax.n, err);
	f.sums = f.absmax ? vq_calloc(f.n / TILE + 1, 4 * sizeof(double), err) : NULL;
	rc = f.sums ? all_tiles(&f, fit_tile, err) : VQ_E_SYS;
	if (rc == VQ_OK) {
		vq_nf_absmax_quantize(&nf->absmax, f.absmax);
		vq_nf_absmax_dequantize(&nf->absmax, f.absmax);
		rc = all_tiles(&f, measure_tile, err);
	}
	if (rc == VQ_OK)
		*error = total(&f);
	vq_free(f.sums);
	vq_free(f.absmax);
	return rc;
}
