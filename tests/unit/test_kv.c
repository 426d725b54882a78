/* Keys and values in the cache: every type, head and token finds its place again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "model/kv.h"

#define SEQS   3u
#define HEADS  2u
#define TOKENS 70u

static const uint32_t dims[] = {2, 20, 64, 80, 300};
#define N_DIMS (sizeof(dims) / sizeof(dims[0]))

static float *random_rows(size_t n, const char *purpose)
{
	struct vq_rng r = vq_rng_new(7, purpose);
	float *x = vq_alloc_f32(n, NULL);
	size_t i;

	for (i = 0; i < n; i++)
		x[i] = (float)vq_rng_normal(r, i);
	return x;
}

/* What a token of one head comes back as. */
static float kept(enum vq_kv_type type, const float *row, uint32_t dim, uint32_t i)
{
	float most = 0, q;
	uint32_t j;

	if (type == VQ_KV_F32)
		return row[i];
	if (type == VQ_KV_F16)
		return vq_f16_to_f32(vq_f32_to_f16(row[i]));
	for (j = 0; j < dim; j++)
		most = fmaxf(most, fabsf(row[j]));
	q = rintf(row[i] * (127.0f / most));
	return most / 127.0f * q;
}

static void store(const struct vq_kv_layer *l, uint32_t seq, uint32_t at, uint32_t n,
		  const float *k, const float *v)
{
	size_t stride = (size_t)HEADS * l->head_dim;
	uint32_t head;

	for (head = 0; head < HEADS; head++) {
		struct vq_keys h = vq_kv_head(l, seq, head);
		size_t in = at * stride + (size_t)head * l->head_dim;

		vq_keys_store(&h, at, n, k + in, v + in, stride);
	}
}

static void copy(const struct vq_kv_layer *l, uint32_t from, uint32_t to, uint32_t n)
{
	uint32_t head;

	for (head = 0; head < HEADS; head++) {
		struct vq_keys a = vq_kv_head(l, from, head), b = vq_kv_head(l, to, head);

		vq_keys_copy(&b, &a, n);
	}
}

static void check_head(const struct vq_kv_layer *l, uint32_t seq, uint32_t head, uint32_t n,
		       const float *k, const float *v)
{
	uint32_t dim = l->head_dim, t, i;
	size_t stride = (size_t)HEADS * dim;
	float *got = vq_alloc_f32(2 * (size_t)TOKENS * dim, NULL);
	struct vq_keys h = vq_kv_head(l, seq, head);

	vq_keys_load(&h, 0, n, got, got + (size_t)n * dim);
	for (t = 0; t < n; t++)
		for (i = 0; i < dim; i++) {
			const float *kr = k + t * stride + (size_t)head * dim;
			const float *vr = v + t * stride + (size_t)head * dim;

			assert_true(got[t * dim + i] == kept(l->type, kr, dim, i));
			assert_true(got[(n + t) * dim + i] == kept(l->type, vr, dim, i));
		}
	vq_free(got);
}

/* Sequences that are filled in different steps, one of them copied from another and then gone on with. */
static void check_type(enum vq_kv_type type, uint32_t dim)
{
	size_t stride = (size_t)HEADS * dim;
	float *k = random_rows(TOKENS * stride, "k"), *v = random_rows(TOKENS * stride, "v");
	uint32_t layer, head, t, n;
	struct vq_kv kv;

	assert_int_equal(vq_kv_new(&kv, 2, SEQS, TOKENS, HEADS, dim, type, NULL), VQ_OK);
	for (layer = 0; layer < 2; layer++) {
		store(&kv.layers[layer], 0, 0, TOKENS, k, v);
		for (t = 0; t < TOKENS; t += n) {
			n = t < 20 ? 1 : TOKENS - t;
			store(&kv.layers[layer], 2, t, n, k, v);
		}
	}
	vq_kv_share(&kv, 1, 37);
	assert_int_equal(kv.layers[1].shared[1], 37);
	for (layer = 0; layer < 2; layer++) {
		copy(&kv.layers[layer], 0, 1, 37);
		store(&kv.layers[layer], 1, 37, 3, k, v);
		for (head = 0; head < HEADS; head++) {
			check_head(&kv.layers[layer], 0, head, TOKENS, k, v);
			check_head(&kv.layers[layer], 1, head, 40, k, v);
			check_head(&kv.layers[layer], 2, head, TOKENS, k, v);
		}
	}
	vq_kv_reset(&kv);
	assert_int_equal(kv.shared[1], 0);
	vq_kv_free(&kv);
	vq_free(k);
	vq_free(v);
}

static void every_token_comes_back_as_its_type_rounds_it(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < N_DIMS; i++) {
		check_type(VQ_KV_F32, dims[i]);
		check_type(VQ_KV_F16, dims[i]);
		check_type(VQ_KV_I8, dims[i]);
	}
}

static void what_is_beyond_a_type_shows_or_is_held(void **state)
{
	float x[4] = {1e6f, -1e6f, NAN, 1}, y[4] = {INFINITY, 1, 2, 3}, tiny[4] = {1e-38f}, k[4],
	      v[4];
	struct vq_keys h;
	struct vq_kv kv;

	(void)state;
	assert_int_equal(vq_kv_new(&kv, 1, 1, 1, 1, 4, VQ_KV_F16, NULL), VQ_OK);
	h = vq_kv_head(&kv.layers[0], 0, 0);
	vq_keys_store(&h, 0, 1, x, y, 4);
	vq_keys_load(&h, 0, 1, k, v);
	assert_true(k[0] == 65504 && k[1] == -65504 && isnan(k[2]) && k[3] == 1 && v[0] == 65504);
	vq_kv_free(&kv);
	assert_int_equal(vq_kv_new(&kv, 1, 1, 1, 1, 4, VQ_KV_I8, NULL), VQ_OK);
	h = vq_kv_head(&kv.layers[0], 0, 0);
	vq_keys_store(&h, 0, 1, x, y, 4);
	vq_keys_load(&h, 0, 1, k, v);
	assert_true(isnan(k[0]) && isnan(v[0]) && isnan(v[1]));
	vq_keys_store(&h, 0, 1, tiny, tiny, 4);
	vq_keys_load(&h, 0, 1, k, v);
	assert_true(k[0] == 0 && v[3] == 0);
	vq_kv_free(&kv);
}

static void bytes_are_those_of_the_type(void **state)
{
	size_t f32, f16, i8, more;
	struct vq_kv kv;
	struct vq_err err = {0};

	(void)state;
	/* LLaVA-1.5-7B, 2,048 tokens. */
	assert_int_equal(vq_kv_bytes(32, 1, 2048, 32, 128, VQ_KV_F32, &f32), VQ_OK);
	assert_int_equal(vq_kv_bytes(32, 1, 2048, 32, 128, VQ_KV_F16, &f16), VQ_OK);
	assert_int_equal(vq_kv_bytes(32, 1, 2048, 32, 128, VQ_KV_I8, &i8), VQ_OK);
	assert_true(f32 == (size_t)32 * 2048 * 4096 * 2 * 4);
	assert_true(2 * f16 == f32);
	assert_true(i8 == f32 / 4 + (size_t)32 * 2048 * 32 * 2 * 4);
	assert_int_equal(vq_kv_bytes(32, 3, 2048, 32, 128, VQ_KV_F16, &more), VQ_OK);
	assert_true(more == 3 * f16);
	assert_int_equal(vq_kv_bytes(UINT32_MAX, UINT32_MAX, UINT32_MAX, 32, 128, VQ_KV_F16, &more),
			 VQ_E_DATA);
	assert_int_equal(vq_kv_new(&kv, 1024, UINT32_MAX, UINT32_MAX, 4096, 4096, VQ_KV_F32, &err),
			 VQ_E_SYS);
	assert_non_null(strstr(err.text, "too much"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_token_comes_back_as_its_type_rounds_it),
		cmocka_unit_test(what_is_beyond_a_type_shows_or_is_held),
		cmocka_unit_test(bytes_are_those_of_the_type),
	};

	return cmocka_run_group_tests_name("kv", tests, NULL, NULL);
}
