/* kernel/layout: the r32k4 layout. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "kernel/qgemm.h"

static void codes_come_back_and_take_exactly_their_bits(void **state)
{
	const uint32_t outs[] = {1, 31, 32, 33, 70}, ins[] = {1, 3, 4, 5, 127, 172};
	struct vq_rng rng = vq_rng_new(5, "test");
	uint32_t bits, o, i;
	size_t k;

	(void)state;
	for (bits = 2; bits <= 8; bits++)
		for (o = 0; o < 5; o++)
			for (i = 0; i < 6; i++) {
				size_t n = (size_t)outs[o] * ins[i];
				size_t bytes = vq_packed_plane_bytes(bits, outs[o], ins[i]);
				uint8_t *u = vq_alloc(n, 1, NULL), *v = vq_alloc(n, 1, NULL);
				uint8_t *p = vq_alloc(bytes + 16, 1, NULL);

				assert_int_equal(bytes * 8, (size_t)vq_ceil_div(outs[o], 32) * 32 *
								    (vq_ceil_div(ins[i], 4) * 4) *
								    bits);
				memset(p, 0xa5, bytes + 16);
				for (k = 0; k < n; k++)
					u[k] = vq_rng_u64(rng, k + bits) & ((1u << bits) - 1);
				vq_pack_codes(bits, u, outs[o], ins[i], p);
				for (k = 0; k < 16; k++)
					assert_int_equal(p[bytes + k], 0xa5);
				vq_unpack_codes(bits, p, outs[o], ins[i], v);
				assert_memory_equal(u, v, n);
				vq_free(u);
				vq_free(v);
				vq_free(p);
			}
}

/* The bytes themselves, since files hold them: row 17, input 6 of a matrix, all else 0. */
static void a_code_lies_where_the_layout_says(void **state)
{
	static const struct {
		uint32_t bits, code, at;
		uint8_t byte;
	} want[] = {
		/* step 1, e = 4 * 17 + 2 = 70 */
		{4, 0xb, 64 + 6, 0xb0},         /* second half of the line: high nibble */
		{8, 0xc3, 128 + 70, 0xc3},      /* second line */
		{2, 3, 32 + 6, 3 << 4},         /* field 2 */
		{3, 4, 48 + 32 + 6, 1 << 4},    /* top bit alone: 1-bit plane, field 4 */
		{6, 0x30, 96 + 64 + 6, 3 << 4}, /* top bits: 2-bit plane behind 64 bytes of nibbles */
		{7, 0x40, 112 + 96 + 6, 1 << 4}, {5, 0x10, 80 + 64 + 6, 1 << 4},
	};
	uint8_t u[32 * 8], p[2 * 128];
	size_t i, k;

	(void)state;
	for (i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		memset(u, 0, sizeof(u));
		u[17 * 8 + 6] = (uint8_t)want[i].code;
		vq_pack_codes(want[i].bits, u, 32, 8, p);
		for (k = 0; k < 2 * 16 * want[i].bits; k++)
			assert_int_equal(p[k], k == want[i].at ? want[i].byte : 0);
	}
}

static void scales_and_zeros_come_back_and_the_padding_is_zero(void **state)
{
	uint16_t s[33 * 3], ps[64 * 3], s2[33 * 3];
	uint8_t z[33 * 3], pz[64 * 3], z2[33 * 3];
	uint32_t i;

	(void)state;
	assert_int_equal(vq_packed_n_scales(33, 3), 64 * 3);
	for (i = 0; i < 33 * 3; i++) {
		s[i] = (uint16_t)(1000 + i);
		z[i] = (uint8_t)(i + 1);
	}
	vq_pack_scales(s, 33, 3, ps);
	vq_pack_zeros(z, 33, 3, pz);
	assert_int_equal(ps[(0 * 3 + 2) * 32 + 5], s[5 * 3 + 2]);
	assert_int_equal(ps[(1 * 3 + 1) * 32 + 0], s[32 * 3 + 1]);
	assert_int_equal(ps[(1 * 3 + 1) * 32 + 1], 0);
	assert_int_equal(pz[(1 * 3 + 1) * 32 + 31], 0);
	vq_unpack_scales(ps, 33, 3, s2);
	vq_unpack_zeros(pz, 33, 3, z2);
	assert_memory_equal(s, s2, sizeof(s));
	assert_memory_equal(z, z2, sizeof(z));
}

static void sizes_that_do_not_fit_are_marked(void **state)
{
	(void)state;
	assert_int_equal(vq_packed_plane_bytes(8, UINT32_MAX, UINT32_MAX), SIZE_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(codes_come_back_and_take_exactly_their_bits),
		cmocka_unit_test(a_code_lies_where_the_layout_says),
		cmocka_unit_test(scales_and_zeros_come_back_and_the_padding_is_zero),
		cmocka_unit_test(sizes_that_do_not_fit_are_marked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
