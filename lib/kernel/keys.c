/* Keys and values laid out for attention. */
#include "kernel/keys.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"

#define PANEL   VQ_KEY_PANEL
#define PIECE   256u /* numbers converted at a time */
#define NOTHING 1e-30f

static size_t size_of(enum vq_kv_type type)
{
	return type == VQ_KV_F32 ? 4 : type == VQ_KV_F16 ? 2 : 1;
}

int vq_kv_bits(enum vq_kv_type type)
{
	return (int)size_of(type) * 8;
}

uint32_t vq_keys_width(uint32_t dim)
{
	return vq_ceil_div(dim, PANEL) * PANEL;
}

/* A whole number of lines, n of which make `tokens` of `width` elements. */
static int part_bytes(size_t *bytes, size_t tokens, uint32_t width, size_t size)
{
	if (vq_mul_size(bytes, tokens, width) < 0 || vq_mul_size(bytes, *bytes, size) < 0 ||
	    *bytes > SIZE_MAX - VQ_ALIGN)
		return VQ_E_DATA;
	*bytes = (*bytes + VQ_ALIGN - 1) / VQ_ALIGN * VQ_ALIGN;
	return VQ_OK;
}

static size_t tokens_of(uint32_t room)
{
	return ((size_t)room + PANEL - 1) / PANEL * PANEL;
}

/* Bytes of the keys, the values and one of the two rows of scales. */
static int parts(enum vq_kv_type type, uint32_t dim, uint32_t room, size_t part[3])
{
	size_t tokens = tokens_of(room), size = size_of(type);

	if (part_bytes(&part[0], tokens, dim, size) < 0 ||
	    part_bytes(&part[1], tokens, vq_keys_width(dim), size) < 0 ||
	    part_bytes(&part[2], tokens, type == VQ_KV_I8, sizeof(float)) < 0)
		return VQ_E_DATA;
	return VQ_OK;
}

int vq_keys_bytes(enum vq_kv_type type, uint32_t dim, uint32_t room, size_t *bytes)
{
	size_t part[3];

	/* None is more than half of the address space, but their sum might be. */
	if (parts(type, dim, room, part) < 0 || part[0] > SIZE_MAX / 4 || part[1] > SIZE_MAX / 4 ||
	    part[2] > SIZE_MAX / 8)
		return VQ_E_DATA;
	*bytes = part[0] + part[1] + 2 * part[2];
	return VQ_OK;
}

struct vq_keys vq_keys_at(enum vq_kv_type type, uint32_t dim, uint32_t room, void *base)
{
	struct vq_keys h = {type, dim, base, NULL, NULL, NULL};
	size_t part[3];
	char *p = base;

	(void)parts(type, dim, room, part); /* base has the bytes that were asked for */
	h.v = p + part[0];
	if (type == VQ_KV_I8) {
		h.k_scale = (float *)(void *)(p + part[0] + part[1]);
		h.v_scale = (float *)(void *)(p + part[0] + part[1] + part[2]);
	}
	return h;
}

/* --- numbers into a type and back --- */

/* The scale of a row, and in *inverse what its numbers are multiplied with. */
static float scale_of(const float *x, uint32_t n, float *inverse)
{
	float most = 0;
	uint32_t i;

	*inverse = 0;
	for (i = 0; i < n; i++) {
		if (!(fabsf(x[i]) <= FLT_MAX))
			return NAN;
		if (fabsf(x[i]) > most)
			most = fabsf(x[i]);
	}
	if (most < NOTHING)
		return 0;
	*inverse = 127.0f / most;
	return most / 127.0f;
}

/* rint by way of a sum that has no room for a fraction: |x| is at most 127.0001. */
static int8_t code_of(float x)
{
	const float magic = 12582912.0f; /* 1.5 2^23 */

	return (int8_t)(int)((x + magic) - magic);
}

/* n numbers of a row in the type; inverse as scale_of has it. */
static void convert(enum vq_kv_type type, const float *x, uint32_t n, float inverse, void *out)
{
	uint32_t i;

	switch (type) {
	case VQ_KV_F32: memcpy(out, x, n * sizeof(float)); break;
	case VQ_KV_F16: vq_f32_to_f16_held_n(out, x, n); break;
	case VQ_KV_I8:
		for (i = 0; i < n; i++)
			((int8_t *)out)[i] = inverse == 0 ? 0 : code_of(x[i] * inverse);
		break;
	}
}

static float number(enum vq_kv_type type, const void *p, size_t i, float scale)
{
	switch (type) {
	case VQ_KV_F32: return ((const float *)p)[i];
	case VQ_KV_F16: return vq_f16_to_f32(((const uint16_t *)p)[i]);
	case VQ_KV_I8: return scale * (float)((const int8_t *)p)[i];
	}
	return 0;
}

/* --- rows in and out --- */

/* n elements of `size` bytes, to places PANEL apart. */
static void scatter(void *to, const void *from, uint32_t n, size_t size)
{
	uint32_t i;

	switch (size) {
	case 4:
		for (i = 0; i < n; i++)
			((uint32_t *)to)[(size_t)i * PANEL] = ((const uint32_t *)from)[i];
		break;
	case 2:
		for (i = 0; i < n; i++)
			((uint16_t *)to)[(size_t)i * PANEL] = ((const uint16_t *)from)[i];
		break;
	default:
		for (i = 0; i < n; i++)
			((uint8_t *)to)[(size_t)i * PANEL] = ((const uint8_t *)from)[i];
	}
}

static void store_key(const struct vq_keys *h, uint32_t at, const float *x)
{
	size_t size = size_of(h->type), panel = (size_t)h->dim * PANEL * size;
	char *to = (char *)h->k + at / PANEL * panel;
	float inverse = 0, part[PIECE];
	uint32_t i;

	if (at % PANEL == 0)
		memset(to, 0, panel);
	if (h->type == VQ_KV_I8) {
		if (at % PANEL == 0)
			memset(h->k_scale + at, 0, PANEL * sizeof(float));
		h->k_scale[at] = scale_of(x, h->dim, &inverse);
	}
	for (i = 0; i < h->dim; i += PIECE) {
		uint32_t n = h->dim - i < PIECE ? h->dim - i : PIECE;

		convert(h->type, x + i, n, inverse, part);
		scatter(to + ((size_t)i * PANEL + at % PANEL) * size, part, n, size);
	}
}

/* TURN names a function of `lanes` rows of as many numbers, `stride` bytes apart: they become columns of a panel.
 * Row i is laid among the numbers of row i + lanes / 2, log2(lanes) times. */
#define TURN(name, number, lanes, low, high)                                                       \
	static void name(const char *in, size_t stride, char *to)                                  \
	{                                                                                          \
		typedef number v __attribute__((vector_size(16)));                                 \
		v x[lanes], y[lanes];                                                              \
		uint32_t i, step;                                                                  \
                                                                                                   \
		_Pragma("GCC unroll 16") for (i = 0; i < (lanes); i++)                             \
			memcpy(&x[i], in + i * stride, sizeof(v));                                 \
		_Pragma("GCC unroll 4") for (step = 1; step < (lanes); step *= 2)                  \
		{                                                                                  \
			_Pragma("GCC unroll 16") for (i = 0; i < (lanes); i++) y[i] = x[i];        \
			_Pragma("GCC unroll 8") for (i = 0; i < (lanes) / 2; i++)                  \
			{                                                                          \
				x[2 * i] = __builtin_shufflevector(y[i], y[i + (lanes) / 2], low); \
				x[2 * i + 1] =                                                     \
					__builtin_shufflevector(y[i], y[i + (lanes) / 2], high);   \
			}                                                                          \
		}                                                                                  \
		_Pragma("GCC unroll 16") for (i = 0; i < (lanes); i++)                             \
			memcpy(to + i * PANEL * sizeof(number), &x[i], sizeof(v));                 \
	}

#define LOW_32  0, 4, 1, 5
#define HIGH_32 2, 6, 3, 7
#define LOW_16  0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_16 4, 12, 5, 13, 6, 14, 7, 15
#define LOW_8   0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_8  8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31

TURN(turn_32, uint32_t, 4, LOW_32, HIGH_32)
TURN(turn_16, uint16_t, 8, LOW_16, HIGH_16)
TURN(turn_8, uint8_t, 16, LOW_8, HIGH_8)

/* The n numbers of PANEL rows, `stride` bytes apart, as columns of a panel: in squares of 16 bytes, then what is left. */
static void turn(const char *in, size_t stride, uint32_t n, size_t size, char *to)
{
	uint32_t lanes = 16 / (uint32_t)size, whole = n / lanes * lanes, i, t;

	for (i = 0; i < whole; i += lanes)
		for (t = 0; t < PANEL; t += lanes)
			(size == 4   ? turn_32
			 : size == 2 ? turn_16
				     : turn_8)(in + t * stride + i * size, stride,
					       to + (i * PANEL + t) * size);
	for (t = 0; t < PANEL; t++)
		scatter(to + (whole * PANEL + t) * size, in + t * stride + whole * size, n - whole,
			size);
}

/* A whole panel of keys, the first at `at`. */
static void store_panel(const struct vq_keys *h, uint32_t at, const float *x, size_t stride)
{
	size_t size = size_of(h->type);
	char *to = (char *)h->k + (size_t)at * h->dim * size;
	float inverse[PANEL] = {0}, part[PANEL][PIECE / 4];
	uint32_t i, t;

	for (t = 0; t < PANEL && h->type == VQ_KV_I8; t++)
		h->k_scale[at + t] = scale_of(x + t * stride, h->dim, &inverse[t]);
	for (i = 0; i < h->dim; i += PIECE / 4) {
		uint32_t n = h->dim - i < PIECE / 4 ? h->dim - i : PIECE / 4;

		for (t = 0; t < PANEL; t++)
			convert(h->type, x + t * stride + i, n, inverse[t], part[t]);
		turn((const char *)part, sizeof(part[0]), n, size, to + (size_t)i * PANEL * size);
	}
}

static void store_value(const struct vq_keys *h, uint32_t at, const float *x)
{
	size_t size = size_of(h->type), width = vq_keys_width(h->dim);
	char *to = (char *)h->v + at * width * size;
	float inverse = 0;
	uint32_t i;

	if (h->type == VQ_KV_I8)
		h->v_scale[at] = scale_of(x, h->dim, &inverse);
	for (i = 0; i < h->dim; i += PIECE) {
		uint32_t n = h->dim - i < PIECE ? h->dim - i : PIECE;

		convert(h->type, x + i, n, inverse, to + i * size);
	}
	memset(to + h->dim * size, 0, (width - h->dim) * size);
}

void vq_keys_store(const struct vq_keys *h, uint32_t at, uint32_t n, const float *k, const float *v,
		   size_t stride)
{
	uint32_t t;

	for (t = 0; t < n; t++)
		store_value(h, at + t, v + t * stride);
	for (t = 0; t < n;)
		if ((at + t) % PANEL == 0 && n - t >= PANEL) {
			store_panel(h, at + t, k + t * stride, stride);
			t += PANEL;
		} else {
			store_key(h, at + t, k + t * stride);
			t++;
		}
}

void vq_keys_load(const struct vq_keys *h, uint32_t first, uint32_t n, float *k, float *v)
{
	size_t width = vq_keys_width(h->dim), t;
	uint32_t i;

	for (t = first; t < (size_t)first + n; t++)
		for (i = 0; i < h->dim; i++) {
			size_t in_k = (t / PANEL * h->dim + i) * PANEL + t % PANEL;

			*k++ = number(h->type, h->k, in_k, h->k_scale ? h->k_scale[t] : 1);
			*v++ = number(h->type, h->v, t * width + i, h->v_scale ? h->v_scale[t] : 1);
		}
}

void vq_keys_copy(const struct vq_keys *to, const struct vq_keys *from, uint32_t n)
{
	size_t size = size_of(from->type), tokens = tokens_of(n);

	memcpy(to->k, from->k, tokens * from->dim * size);
	memcpy(to->v, from->v, (size_t)n * vq_keys_width(from->dim) * size);
	if (from->type == VQ_KV_I8) {
		memcpy(to->k_scale, from->k_scale, n * sizeof(float));
		memcpy(to->v_scale, from->v_scale, n * sizeof(float));
	}
}
