/* The body of every row of the table of ops.h: included by ops_generic.c, ops_avx2.c and ops_avx512.c, which
 * define VQ_TARGET (a target attribute) and VQ_OPS (the table's name).  Sixteen lanes whatever the
 * registers are, compares and selects by bits, no fused operation: hence equal results. */
#include <math.h>
#include <string.h>

#include "kernel/ops.h"

#define LANES  16
#define INLINE static inline __attribute__((always_inline)) VQ_TARGET

/* Vectors go to the inlined helpers by address: by value they would warn of an ABI that never matters. */
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef float vfu __attribute__((vector_size(64), aligned(4), may_alias));

#define ALL(c)             ((vf){} + (c))
#define LOAD(p)            (*(const vfu *)(p))
#define STORE(p, x)        (*(vfu *)(p) = (x))
#define SELECT(mask, a, b) ((vf)(((mask) & (vi)(a)) | (~(mask) & (vi)(b))))

/* The last n < LANES elements; the other lanes get fill. */
INLINE void load_part(vf *out, const float *p, size_t n, float fill)
{
	float t[LANES];
	size_t i;

	for (i = 0; i < LANES; i++)
		t[i] = i < n ? p[i] : fill;
	*out = LOAD(t);
}

INLINE void store_part(float *p, size_t n, const vf *x)
{
	float t[LANES];

	STORE(t, *x);
	memcpy(p, t, n * sizeof(float));
}

INLINE float sum(const vf *x)
{
	float t[LANES];
	size_t i, w;

	STORE(t, *x);
	for (w = LANES / 2; w > 0; w /= 2)
		for (i = 0; i < w; i++)
			t[i] += t[i + w];
	return t[0];
}

/* exp(x) = 2^n exp(r), |r| <= ln 2 / 2, with the polynomial of Cephes' expf (Moshier, 1989).  Adding 1.5 2^23
 * rounds to an integer whose low bits are n.  Selects keep NaN, since its compares are false. */
INLINE void exp16(vf *io)
{
	const vf magic = ALL(12582912.0f), lowest = ALL(-87.336544f), highest = ALL(88.72283f);
	vf x = *io, t, n, r, p;
	vi low = x<lowest, high = x> highest, e, half;

	x = SELECT(low, lowest, x);
	x = SELECT(high, highest, x);
	t = x * ALL(1.44269504088896341f) + magic;
	n = t - magic;
	r = x - n * ALL(0.693359375f);
	r = r - n * ALL(-2.12194440e-4f);
	p = ALL(1.9875691500e-4f);
	p = p * r + ALL(1.3981999507e-3f);
	p = p * r + ALL(8.3334519073e-3f);
	p = p * r + ALL(4.1665795894e-2f);
	p = p * r + ALL(1.6666665459e-1f);
	p = p * r + ALL(5.0000001201e-1f);
	p = p * (r * r) + r + ALL(1.0f);
	/* In two factors, since 2^128 alone is no float. */
	e = (vi)t - (vi)magic;
	half = e >> 1;
	p = p * (vf)((half + 127) << 23) * (vf)((e - half + 127) << 23);
	p = SELECT(low, ALL(0.0f), p);
	*io = SELECT(high, ALL(INFINITY), p);
}

INLINE void sigmoid16(vf *io)
{
	vf e = -*io;

	exp16(&e);
	*io = ALL(1.0f) / (ALL(1.0f) + e);
}

INLINE void silu16(vf *io)
{
	vf g = *io;

	sigmoid16(&g);
	*io *= g;
}

INLINE void quick_gelu16(vf *io)
{
	vf g = *io * ALL(1.702f);

	sigmoid16(&g);
	*io *= g;
}

/* (1 + tanh u) / 2 = sigmoid(2u) */
INLINE void gelu_tanh16(vf *io)
{
	vf x = *io, g = ALL(1.5957691216057308f) * (x + ALL(0.044715f) * (x * x * x));

	sigmoid16(&g);
	*io *= g;
}

/* With erfc(z) = t p(t) exp(-z^2), t = 1 / (1 + 0.3275911 z), z >= 0: within 1.5e-7 (Abramowitz and Stegun, 1964, 7.1.26). */
INLINE void gelu_erf16(vf *io)
{
	vf x = *io, z, t, p, e;
	vi positive = x > ALL(0.0f);

	z = SELECT(positive, x, -x) * ALL(0.70710678118654752f);
	t = ALL(1.0f) / (ALL(1.0f) + ALL(0.3275911f) * z);
	p = ALL(1.061405429f);
	p = p * t + ALL(-1.453152027f);
	p = p * t + ALL(1.421413741f);
	p = p * t + ALL(-0.284496736f);
	p = p * t + ALL(0.254829592f);
	e = -(z * z);
	exp16(&e);
	p = ALL(0.5f) * (p * t * e);
	*io = x * SELECT(positive, ALL(1.0f) - p, p);
}

static VQ_TARGET void rmsnorm(const float *x, uint32_t n, const float *w, float eps, float *out)
{
	uint32_t whole = n / LANES * LANES, i;
	vf s = ALL(0.0f), v = s, u;
	float scale;

	for (i = 0; i < whole; i += LANES) {
		v = LOAD(x + i);
		s += v * v;
	}
	if (whole < n) {
		load_part(&v, x + whole, n - whole, 0);
		s += v * v;
	}
	scale = 1.0f / sqrtf(sum(&s) / (float)n + eps);
	for (i = 0; i < whole; i += LANES)
		STORE(out + i, LOAD(x + i) * ALL(scale) * LOAD(w + i));
	if (whole == n)
		return;
	load_part(&u, w + whole, n - whole, 0);
	v = v * ALL(scale) * u;
	store_part(out + whole, n - whole, &v);
}

static VQ_TARGET void layernorm(const float *x, uint32_t n, const float *w, const float *b,
				float eps, float *out)
{
	uint32_t whole = n / LANES * LANES, i;
	vf s = ALL(0.0f), v = s, wv, bv;
	float mean, scale;

	for (i = 0; i < whole; i += LANES)
		s += LOAD(x + i);
	if (whole < n) {
		load_part(&v, x + whole, n - whole, 0);
		s += v;
	}
	mean = sum(&s) / (float)n;
	s = ALL(0.0f);
	for (i = 0; i < whole; i += LANES) {
		v = LOAD(x + i) - ALL(mean);
		s += v * v;
	}
	if (whole < n) {
		load_part(&v, x + whole, n - whole, mean);
		v -= ALL(mean);
		s += v * v;
	}
	scale = 1.0f / sqrtf(sum(&s) / (float)n + eps);
	for (i = 0; i < whole; i += LANES)
		STORE(out + i, (LOAD(x + i) - ALL(mean)) * ALL(scale) * LOAD(w + i) + LOAD(b + i));
	if (whole == n)
		return;
	load_part(&wv, w + whole, n - whole, 0);
	load_part(&bv, b + whole, n - whole, 0);
	v = v * ALL(scale) * wv + bv;
	store_part(out + whole, n - whole, &v);
}

static VQ_TARGET float row_max(const float *x, size_t n)
{
	size_t whole = n / LANES * LANES, i;
	vf m, v;
	float t[LANES], top;

	load_part(&m, x + whole, n - whole, -INFINITY);
	for (i = 0; i < whole; i += LANES) {
		v = LOAD(x + i);
		m = SELECT(v > m, v, m);
	}
	STORE(t, m);
	for (top = t[0], i = 1; i < LANES; i++)
		if (t[i] > top)
			top = t[i];
	return top;
}

static VQ_TARGET void softmax(float *x, size_t n)
{
	size_t whole = n / LANES * LANES, i;
	vf s = ALL(0.0f), v, top = ALL(row_max(x, n)), scale;

	for (i = 0; i < whole; i += LANES) {
		v = LOAD(x + i) - top;
		exp16(&v);
		STORE(x + i, v);
		s += v;
	}
	load_part(&v, x + whole, n - whole, -INFINITY);
	v -= top;
	exp16(&v);
	s += v;
	scale = ALL(1.0f / sum(&s));
	v *= scale;
	store_part(x + whole, n - whole, &v);
	for (i = 0; i < whole; i += LANES)
		STORE(x + i, LOAD(x + i) * scale);
}

/* out = f(x) * mul, with f16 the same on a vector in place. */
#define ELEMENTWISE(f)                                                                  \
	static VQ_TARGET void f(const float *x, const float *mul, size_t n, float *out) \
	{                                                                               \
		size_t i;                                                               \
		vf v, m;                                                                \
                                                                                        \
		for (i = 0; i + LANES <= n; i += LANES) {                               \
			v = LOAD(x + i);                                                \
			f##16(&v);                                                      \
			if (mul)                                                        \
				v *= LOAD(mul + i);                                     \
			STORE(out + i, v);                                              \
		}                                                                       \
		if (i == n)                                                             \
			return;                                                         \
		load_part(&v, x + i, n - i, 0);                                         \
		f##16(&v);                                                              \
		if (mul) {                                                              \
			load_part(&m, mul + i, n - i, 0);                               \
			v *= m;                                                         \
		}                                                                       \
		store_part(out + i, n - i, &v);                                         \
	}

ELEMENTWISE(silu)
ELEMENTWISE(quick_gelu)
ELEMENTWISE(gelu_tanh)
ELEMENTWISE(gelu_erf)

static VQ_TARGET void exp_n(const float *x, size_t n, float *out)
{
	size_t i;
	vf v;

	for (i = 0; i + LANES <= n; i += LANES) {
		v = LOAD(x + i);
		exp16(&v);
		STORE(out + i, v);
	}
	load_part(&v, x + i, n - i, 0);
	exp16(&v);
	store_part(out + i, n - i, &v);
}

/* Four sums side by side, since an addition takes several cycles. */
static VQ_TARGET float dot(const float *x, const float *y, size_t n)
{
	vf s0 = ALL(0.0f), s1 = s0, s2 = s0, s3 = s0, a, b;
	size_t i;

	for (i = 0; i + 4 * LANES <= n; i += 4 * LANES) {
		s0 += LOAD(x + i) * LOAD(y + i);
		s1 += LOAD(x + i + LANES) * LOAD(y + i + LANES);
		s2 += LOAD(x + i + 2 * LANES) * LOAD(y + i + 2 * LANES);
		s3 += LOAD(x + i + 3 * LANES) * LOAD(y + i + 3 * LANES);
	}
	for (; i + LANES <= n; i += LANES)
		s0 += LOAD(x + i) * LOAD(y + i);
	load_part(&a, x + i, n - i, 0);
	load_part(&b, y + i, n - i, 0);
	s0 = (s0 + s1) + (s2 + s3) + a * b;
	return sum(&s0);
}

static VQ_TARGET void rotary(float *x, uint32_t n_heads, uint32_t head_dim, const float *c,
			     const float *s)
{
	uint32_t half = head_dim / 2, whole = half / LANES * LANES, h, i;

	for (h = 0; h < n_heads; h++, x += head_dim) {
		for (i = 0; i < whole; i += LANES) {
			vf a = LOAD(x + i), b = LOAD(x + half + i), cv = LOAD(c + i),
			   sv = LOAD(s + i);

			STORE(x + i, a * cv - b * sv);
			STORE(x + half + i, b * cv + a * sv);
		}
		for (; i < half; i++) {
			float a = x[i], b = x[half + i];

			x[i] = a * c[i] - b * s[i];
			x[half + i] = b * c[i] + a * s[i];
		}
	}
}

const struct vq_ops VQ_OPS = {
	VQ_OPS_NAME, rmsnorm, layernorm, softmax, {silu, quick_gelu, gelu_erf, gelu_tanh},
	exp_n,       dot,     rotary};
