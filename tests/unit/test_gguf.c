/* GGUF files: values of every type, and blocks whose weights are known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "format/ggml_block.h"
#include "format/ggml_read.h"
#include "format/gguf_read.h"

/* --- values --- */

struct file {
	uint8_t b[1024];
	size_t n;
};

static void put(struct file *f, const void *p, size_t n)
{
	assert_true(f->n + n <= sizeof(f->b));
	memcpy(f->b + f->n, p, n);
	f->n += n;
}

static void put_number(struct file *f, uint64_t v, size_t n)
{
	put(f, &v, n);
}

static void put_key(struct file *f, const char *name, uint32_t type, const void *p, size_t n)
{
	put_number(f, strlen(name), 8);
	put(f, name, strlen(name));
	put_number(f, type, 4);
	put(f, p, n);
}

/* Keys of all types, and a tensor of shape [2, 3] with 0, 1, .. 5 in float32. */
static void make(struct file *f, uint32_t version)
{
	static const int64_t minus = -5;
	static const uint64_t most = UINT64_MAX, seven = 7;
	static const float quarter = 0.25f;
	static const double third = 1.0 / 3;
	static const char text[] = "\3\0\0\0\0\0\0\0abc";
	static const char list[] = "\10\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0x\2\0\0\0\0\0\0\0yz";
	uint64_t i;

	f->n = 0;
	put(f, "GGUF", 4);
	put_number(f, version, 4);
	put_number(f, 1, 8);
	put_number(f, 16, 8);
	put_key(f, "u8", VQ_GGUF_U8, &seven, 1);
	put_key(f, "i8", VQ_GGUF_I8, &seven, 1);
	put_key(f, "u16", VQ_GGUF_U16, &seven, 2);
	put_key(f, "i16", VQ_GGUF_I16, &seven, 2);
	put_key(f, "u32", VQ_GGUF_U32, &seven, 4);
	put_key(f, "i32", VQ_GGUF_I32, &seven, 4);
	put_key(f, "u64", VQ_GGUF_U64, &seven, 8);
	put_key(f, "i64", VQ_GGUF_I64, &seven, 8);
	put_key(f, "minus", VQ_GGUF_I16, &minus, 2);
	put_key(f, "most", VQ_GGUF_U64, &most, 8);
	put_key(f, "f32", VQ_GGUF_F32, &quarter, 4);
	put_key(f, "f64", VQ_GGUF_F64, &third, 8);
	put_key(f, "yes", VQ_GGUF_BOOL, "\1", 1);
	put_key(f, "maybe", VQ_GGUF_BOOL, "\2", 1);
	put_key(f, "text", VQ_GGUF_STRING, text, sizeof(text) - 1);
	put_key(f, "list", VQ_GGUF_ARRAY, list, sizeof(list) - 1);
	put_number(f, 1, 8);
	put(f, "t", 1);
	put_number(f, 2, 4);
	put_number(f, 3, 8);
	put_number(f, 2, 8);
	put_number(f, VQ_GGML_F32, 4);
	put_number(f, 0, 8);
	while (f->n % 32)
		put(f, "", 1);
	for (i = 0; i < 6; i++) {
		float v = (float)i;

		put(f, &v, sizeof(v));
	}
}

static void refused(const struct vq_gguf_file *g, const char *name, uint32_t lo, uint32_t hi,
		    const char *text)
{
	struct vq_err err = {0};
	uint32_t v = 99;

	assert_int_equal(vq_gguf_get_u32(g, name, lo, hi, &v, &err), VQ_E_DATA);
	assert_int_equal(v, 99);
	assert_string_equal(err.text, text);
}

static void values_of_every_type(void **state)
{
	static const char *const whole[] = {"u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"};
	static const float numbers[6] = {0, 1, 2, 3, 4, 5};
	const struct vq_gguf_key *list;
	struct vq_gguf_file g;
	struct file f;
	uint32_t v = 0, version;
	const uint8_t *p;
	double d = 0;
	char *text;
	int yes = 0;
	size_t i, n;

	(void)state;
	for (version = 2; version <= 3; version++) {
		make(&f, version);
		assert_int_equal(vq_gguf_parse(&g, f.b, f.n, "x", NULL), VQ_OK);
		assert_int_equal(g.version, version);
		for (i = 0; i < 8; i++, v = 0) {
			assert_int_equal(vq_gguf_get_u32(&g, whole[i], 7, 7, &v, NULL), 1);
			assert_int_equal(v, 7);
		}
		assert_int_equal(vq_gguf_get_u32(&g, "none", 0, 9, &v, NULL), 0);
		refused(&g, "minus", 0, 9, "x: key 'minus': want a whole number of 0..9, got -5");
		refused(&g, "most", 0, UINT32_MAX,
			"x: key 'most': want a whole number of 0..4294967295, got "
			"9223372036854775807");
		refused(&g, "f32", 0, 9, "x: key 'f32': want a whole number of 0..9, got f32");
		assert_int_equal(vq_gguf_get_f64(&g, "f32", &d, NULL), 1);
		assert_true(d == 0.25);
		assert_int_equal(vq_gguf_get_f64(&g, "f64", &d, NULL), 1);
		assert_true(d == 1.0 / 3);
		assert_int_equal(vq_gguf_get_f64(&g, "u8", &d, NULL), VQ_E_DATA);
		assert_int_equal(vq_gguf_get_bool(&g, "yes", &yes, NULL), 1);
		assert_int_equal(yes, 1);
		assert_int_equal(vq_gguf_get_bool(&g, "maybe", &yes, NULL), VQ_E_DATA);
		assert_int_equal(vq_gguf_get_text(&g, "text", &text, NULL), 1);
		assert_string_equal(text, "abc");
		vq_free(text);
		assert_int_equal(vq_gguf_get_array(&g, "list", VQ_GGUF_F32, &list, NULL),
				 VQ_E_DATA);
		assert_int_equal(vq_gguf_get_array(&g, "list", VQ_GGUF_STRING, &list, NULL), 1);
		assert_int_equal(list->n, 2);
		p = list->p;
		assert_memory_equal(vq_gguf_next_text(&p, &n), "x", 1);
		assert_int_equal(n, 1);
		assert_memory_equal(vq_gguf_next_text(&p, &n), "yz", 2);
		assert_int_equal(n, 2);
		assert_int_equal(g.n_tensors, 1);
		assert_string_equal(g.tensors[0].name, "t");
		assert_int_equal(g.tensors[0].n_dims, 2);
		assert_int_equal(g.tensors[0].dims[0], 2);
		assert_int_equal(g.tensors[0].dims[1], 3);
		assert_memory_equal(g.tensors[0].data, numbers, sizeof(numbers));
		vq_gguf_close(&g);
	}
}

/* Nothing that is cut short is taken for whole. */
static void every_cut_is_refused(void **state)
{
	struct vq_gguf_file g;
	struct vq_err err;
	struct file f;
	size_t i;

	(void)state;
	make(&f, 3);
	for (i = 0; i < f.n; i++) {
		err = (struct vq_err){0};
		assert_int_equal(vq_gguf_parse(&g, f.b, i, "x", &err), VQ_E_DATA);
		assert_memory_equal(err.text, "x: ", 3);
	}
}

/* --- blocks --- */

#define ONE 0x3c00 /* float16 */

static void set_half(uint8_t *p, uint16_t h)
{
	memcpy(p, &h, sizeof(h));
}

/* Codes 0, 1, .. 15, then 15, 14, .. 0. */
static void set_codes(uint8_t *q)
{
	uint32_t j;

	for (j = 0; j < 16; j++)
		q[j] = (uint8_t)(j | (15 - j) << 4);
}

static float code(uint32_t i)
{
	return (float)(i < 16 ? i : 31 - i);
}

static void blocks_of_32(void **state)
{
	static const uint8_t low[4] = {0xff, 0xff, 0, 0};
	uint8_t b[34];
	float x[32];
	uint32_t i;

	(void)state;
	set_half(b, 0x4000); /* 2 */
	set_codes(b + 2);
	vq_ggml_values(VQ_GGML_Q4_0, b, x);
	for (i = 0; i < 32; i++)
		assert_true(x[i] == (code(i) - 8) * 2);
	set_half(b + 2, 0xbc00); /* -1 */
	set_codes(b + 4);
	vq_ggml_values(VQ_GGML_Q4_1, b, x);
	for (i = 0; i < 32; i++)
		assert_true(x[i] == code(i) * 2 - 1);
	memcpy(b + 2, low, 4);
	set_codes(b + 6);
	vq_ggml_values(VQ_GGML_Q5_0, b, x);
	for (i = 0; i < 32; i++)
		assert_true(x[i] == (code(i) - (i < 16 ? 0 : 16)) * 2);
	set_half(b + 2, 0xbc00);
	memcpy(b + 4, low, 4);
	set_codes(b + 8);
	vq_ggml_values(VQ_GGML_Q5_1, b, x);
	for (i = 0; i < 32; i++)
		assert_true(x[i] == (code(i) + (i < 16 ? 16 : 0)) * 2 - 1);
	for (i = 0; i < 32; i++)
		b[2 + i] = (uint8_t)(i * 8 - 128);
	vq_ggml_values(VQ_GGML_Q8_0, b, x);
	for (i = 0; i < 32; i++)
		assert_true(x[i] == ((float)i * 8 - 128) * 2);
}

/* 0xe4 has 0, 1, 2, 3 in its pairs of bits, the lowest first; 0x5a has 10 and 5 in its halves. */
static void super_blocks(void **state)
{
	uint8_t b[210];
	float x[256];
	uint32_t i;

	(void)state;
	memset(b, 0xe4, sizeof(b));
	for (i = 0; i < 16; i++)
		b[i] = (uint8_t)(i | (15 - i) << 4);
	set_half(b + 80, ONE);
	set_half(b + 82, ONE);
	vq_ggml_values(VQ_GGML_Q2_K, b, x);
	for (i = 0; i < 256; i++)
		assert_true(x[i] == (float)(i / 16 * (i % 128 / 32)) - (float)(15 - i / 16));

	memset(b, 0xe4, sizeof(b));
	memset(b, 0x0f, 32); /* the high bit of elements 0..127 */
	for (i = 0; i < 8; i++)
		b[96 + i] = (uint8_t)(i | (15 - i) << 4);
	set_half(b + 108, ONE);
	vq_ggml_values(VQ_GGML_Q3_K, b, x);
	for (i = 0; i < 256; i++) {
		int part = (int)i / 16, s = (part < 8 ? part : 23 - part) + part / 4 * 16 - 32;

		assert_true(x[i] == (float)(s * ((int)i % 128 / 32 - (i < 128 ? 0 : 4))));
	}

	memset(b, 0x5a, sizeof(b));
	set_half(b, ONE);
	set_half(b + 2, ONE);
	for (i = 0; i < 4; i++) {
		b[4 + i] = (uint8_t)((i + 1) | 2 << 6);
		b[8 + i] = (uint8_t)((i + 5) | 1 << 6);
		b[12 + i] = (uint8_t)(i | (i + 4) << 4);
	}
	vq_ggml_values(VQ_GGML_Q4_K, b, x);
	for (i = 0; i < 256; i++) {
		int p = (int)i / 32, s = p < 4 ? p + 1 : p - 4 + 32, m = p < 4 ? p + 5 : p + 16;

		assert_true(x[i] == (float)(s * (i % 64 < 32 ? 10 : 5) - m));
	}
	memset(b + 16, 0xaa, 32); /* the high bit of every second part */
	vq_ggml_values(VQ_GGML_Q5_K, b, x);
	for (i = 0; i < 256; i++) {
		int p = (int)i / 32, s = p < 4 ? p + 1 : p - 4 + 32, m = p < 4 ? p + 5 : p + 16;

		assert_true(x[i] == (float)(s * ((i % 64 < 32 ? 10 : 5) + p % 2 * 16) - m));
	}

	memset(b, 0x5a, 128);
	memset(b + 128, 0xe4, 64);
	for (i = 0; i < 16; i++)
		b[192 + i] = (uint8_t)(i - 8);
	set_half(b + 208, ONE);
	vq_ggml_values(VQ_GGML_Q6_K, b, x);
	for (i = 0; i < 256; i++) {
		int u = (i % 128 < 64 ? 10 : 5) + (int)i % 128 / 32 * 16;

		assert_true(x[i] == (float)(((int)i / 16 - 8) * (u - 32)));
	}
}

static void halves_say_when_a_weight_does_not_fit(void **state)
{
	uint8_t b[2][34] = {{0}};
	uint16_t h[64];

	(void)state;
	set_half(b[0], ONE);
	set_half(b[1], 0x7bff); /* 65504 */
	b[0][2] = 127;
	b[1][2] = 1;
	assert_int_equal(vq_ggml_halves(VQ_GGML_Q8_0, b[0], 2, h), 1);
	assert_int_equal(h[0], 0x57f0); /* 127 */
	assert_int_equal(h[32], 0x7bff);
	assert_int_equal(h[33], 0);
	b[1][3] = 2;
	assert_int_equal(vq_ggml_halves(VQ_GGML_Q8_0, b[0], 2, h), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_of_every_type),
		cmocka_unit_test(every_cut_is_refused),
		cmocka_unit_test(blocks_of_32),
		cmocka_unit_test(super_blocks),
		cmocka_unit_test(halves_say_when_a_weight_does_not_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
