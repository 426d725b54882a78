/* Codes as the words and blocks of other engines, beside what their packers are known to make. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/num.h"
#include "base/rng.h"
#include "format/ggml_block.h"
#include "format/words.h"

static void nibbles_go_in_natural_order_and_down_columns(void **state)
{
	const uint8_t v[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
	uint32_t w[4] = {0, 77, 0, 77};

	(void)state;
	vq_words_pack(4, v, 10, 1, w, 2);
	assert_int_equal(w[0], 0x87654321);
	assert_int_equal(w[2], 0xa9); /* filled with 0 */
	assert_int_equal(w[1] + w[3], 154);
	assert_int_equal(vq_words_count(4, 10), 2);
}

static void a_symmetric_zero_point_of_gptq_is_the_known_word(void **state)
{
	uint8_t v[16];
	uint32_t w[2];

	(void)state;
	memset(v, 8 - 1, sizeof(v));
	vq_words_pack(4, v, 8, 2, w, 1); /* every other */
	assert_int_equal(w[0], 0x77777777);
}

/* AutoGPTQ's three bits: ten codes, the eleventh over the end, ten more, and so on. */
static void three_bits_spill_into_the_next_word_as_autogptq_has_it(void **state)
{
	uint8_t v[32];
	uint32_t w[3], want[3] = {0}, i;

	(void)state;
	for (i = 0; i < 32; i++)
		v[i] = (uint8_t)((i * 5 + i / 7) & 7);
	for (i = 0; i < 10; i++)
		want[0] |= (uint32_t)v[i] << (3 * i);
	want[0] |= (uint32_t)v[10] << 30;
	want[1] = v[10] >> 2 & 1;
	for (i = 0; i < 10; i++)
		want[1] |= (uint32_t)v[11 + i] << (3 * i + 1);
	want[1] |= (uint32_t)v[21] << 31;
	want[2] = v[21] >> 1 & 3;
	for (i = 0; i < 10; i++)
		want[2] |= (uint32_t)v[22 + i] << (3 * i + 2);
	vq_words_pack(3, v, 32, 1, w, 1);
	assert_memory_equal(w, want, sizeof(w));
}

static void every_width_comes_back(void **state)
{
	struct vq_rng rng = vq_rng_new(1, "words");
	uint8_t v[101];
	uint32_t w[26], b, i, k;

	(void)state;
	for (b = 1; b <= 8; b++) {
		for (i = 0; i < sizeof(v); i++)
			v[i] = (uint8_t)(vq_rng_u64(rng, i) & ((1u << b) - 1));
		vq_words_pack(b, v, sizeof(v), 1, w, 1);
		for (i = 0; i < sizeof(v); i++)
			for (k = 0; k < b; k++)
				assert_int_equal(w[(i * b + k) / 32] >> (i * b + k) % 32 & 1,
						 v[i] >> k & 1);
	}
}

static void awq_has_its_own_order(void **state)
{
	uint8_t v[16 * 3];
	uint32_t w[3 * 2], o, k;

	(void)state;
	for (o = 0; o < 16; o++)
		for (k = 0; k < 3; k++)
			v[o * 3 + k] = (uint8_t)((o + k) & 15);
	vq_words_awq(v, 16, 3, w);
	assert_int_equal(w[0], 0x75316420); /* input 0, outputs 0..7 */
	assert_int_equal(w[1], 0xfdb9eca8);
	assert_int_equal(w[2], 0x86427531); /* input 1 */
}

static void blocks_of_gguf_have_the_halves_of_a_byte_sixteen_apart(void **state)
{
	uint8_t u[32], out[34], i;
	int8_t q[32];

	(void)state;
	for (i = 0; i < 32; i++) {
		u[i] = i & 15;
		q[i] = (int8_t)(i * 8 - 128);
	}
	u[31] = 3;
	vq_ggml_q4_0(u, 0x1234, out);
	assert_memory_equal(out, "\x34\x12\x00\x11", 4);
	assert_int_equal(out[17], 0x3f);
	vq_ggml_q4_1(u, 0x1234, 0x5678, out);
	assert_memory_equal(out, "\x34\x12\x78\x56\x00\x11", 6);
	assert_int_equal(out[19], 0x3f);
	vq_ggml_q8_0(q, 0x1234, out);
	assert_memory_equal(out, "\x34\x12\x80\x88", 4);
	assert_int_equal(out[33], 120);
	assert_int_equal(vq_ggml_bytes(VQ_GGML_Q4_0, 64), 36);
	assert_int_equal(vq_ggml_bytes(VQ_GGML_F16, 3), 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nibbles_go_in_natural_order_and_down_columns),
		cmocka_unit_test(a_symmetric_zero_point_of_gptq_is_the_known_word),
		cmocka_unit_test(three_bits_spill_into_the_next_word_as_autogptq_has_it),
		cmocka_unit_test(every_width_comes_back),
		cmocka_unit_test(awq_has_its_own_order),
		cmocka_unit_test(blocks_of_gguf_have_the_halves_of_a_byte_sixteen_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
