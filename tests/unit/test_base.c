/* base/: conversions, random numbers, parsing, JSON, errors. */
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/parse.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "base/str.h"
#include "folder.h"

/* The definition of half precision, IEEE 754 binary16, in double. */
static double half_value(uint16_t h)
{
	int e = (h >> 10) & 31, m = h & 1023;
	double v = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);

	return h & 0x8000 ? -v : v;
}

static void every_half_converts_to_its_value_and_back(void **state)
{
	uint32_t h;

	(void)state;
	for (h = 0; h < 65536; h++) {
		float f = vq_f16_to_f32((uint16_t)h);

		if (((h >> 10) & 31) == 31)
			continue;
		assert_true((double)f == half_value((uint16_t)h));
		assert_int_equal(vq_f32_to_f16(f), h);
	}
}

static void float_to_half_rounds_to_the_nearest_with_ties_to_even(void **state)
{
	uint32_t h;

	(void)state;
	for (h = 0; h < 0x7bff; h++) { /* midpoints of neighbours are exact in float */
		float lo = vq_f16_to_f32((uint16_t)h), hi = vq_f16_to_f32((uint16_t)(h + 1));
		float mid = lo + (hi - lo) / 2;

		assert_int_equal(vq_f32_to_f16(mid), h & 1 ? h + 1 : h);
		assert_int_equal(vq_f32_to_f16(nextafterf(mid, 0)), h);
		assert_int_equal(vq_f32_to_f16(nextafterf(mid, INFINITY)), h + 1);
	}
	assert_int_equal(vq_f32_to_f16(65519.9f), 0x7bff);
	assert_int_equal(vq_f32_to_f16(65520.0f), 0x7c00);
	assert_int_equal(vq_f32_to_f16(-INFINITY), 0xfc00);
	assert_true(vq_f32_to_f16(NAN) > 0x7c00);
}

static void array_conversions_equal_the_single_ones(void **state)
{
	uint16_t src[1003], back[1003];
	float dst[1003];
	struct vq_rng r = vq_rng_new(1, "test");
	size_t i;

	(void)state;
	for (i = 0; i < 1003; i++)
		src[i] = (uint16_t)(vq_rng_u64(r, i) & 0xbbff); /* finite */
	vq_f16_to_f32_n(dst, src, 1003);
	for (i = 0; i < 1003; i++)
		assert_true(dst[i] == vq_f16_to_f32(src[i]));
	vq_f32_to_f16_n(back, dst, 1003);
	assert_memory_equal(back, src, sizeof(src));
	vq_bf16_to_f32_n(dst, src, 1003);
	for (i = 0; i < 1003; i++)
		assert_int_equal(vq_f32_to_bf16(dst[i]), src[i]);
}

/* Of every kind: rounded, subnormal, infinite, NaN. */
static void array_conversions_equal_the_single_ones_on_any_bits(void **state)
{
	enum { N = 65536 + 3 };
	static uint16_t half[N], got[N];
	static float f[N], back[N];
	struct vq_rng r = vq_rng_new(2, "test");
	size_t i;

	(void)state;
	for (i = 0; i < N; i++) {
		half[i] = (uint16_t)i;
		f[i] = vq_bits_f32((uint32_t)vq_rng_u64(r, i));
		if (i % 2) /* near the range of a half */
			f[i] = vq_bits_f32((vq_f32_bits(f[i]) & 0x8fffffff) | 0x30000000);
	}
	vq_f32_to_f16_n(got, f, N);
	for (i = 0; i < N; i++)
		assert_int_equal(got[i], vq_f32_to_f16(f[i]));
	vq_f32_to_f16_held_n(got, f, N); /* infinity becomes the number before it */
	for (i = 0; i < N; i++)
		assert_int_equal(got[i],
				 vq_f32_to_f16(f[i]) - ((vq_f32_to_f16(f[i]) & 0x7fff) == 0x7c00));
	vq_f16_to_f32_n(back, half, N);
	for (i = 0; i < N; i++)
		assert_int_equal(vq_f32_bits(back[i]), vq_f32_bits(vq_f16_to_f32(half[i])));
}

static void random_numbers_are_uniform_and_normal(void **state)
{
	struct vq_rng r = vq_rng_new(42, "moments");
	double mean = 0, square = 0, uniform = 0;
	int i, n = 200000;

	(void)state;
	for (i = 0; i < n; i++) {
		double x = vq_rng_normal(r, (uint64_t)i);

		mean += x / n;
		square += x * x / n;
		uniform += vq_rng_uniform(r, (uint64_t)i) / n;
	}
	assert_true(fabs(mean) < 0.01 && fabs(square - 1) < 0.02 && fabs(uniform - 0.5) < 0.005);
	assert_true(vq_rng_u64(r, 0) != vq_rng_u64(vq_rng_new(42, "other"), 0));
}

static void a_choice_is_ascending_and_different(void **state)
{
	uint32_t out[64], i;

	(void)state;
	assert_int_equal(vq_rng_choose(vq_rng_new(3, "choice"), 256, 64, out, NULL), VQ_OK);
	for (i = 1; i < 64; i++)
		assert_true(out[i] > out[i - 1] && out[i] < 256);
	assert_int_equal(vq_rng_choose(vq_rng_new(3, "choice"), 3, 4, out, NULL), VQ_E_DATA);
}

static void numbers_are_parsed_whole_or_refused(void **state)
{
	uint32_t u;
	double d;

	(void)state;
	assert_int_equal(vq_parse_u32(&u, "16", 1, 16), VQ_OK);
	assert_int_equal(u, 16);
	assert_true(vq_parse_u32(&u, "17", 1, 16) < 0);
	assert_true(vq_parse_u32(&u, "-1", 0, 16) < 0);
	assert_true(vq_parse_u32(&u, " 1", 0, 16) < 0);
	assert_true(vq_parse_u32(&u, "1x", 0, 16) < 0);
	assert_true(vq_parse_u32(&u, "", 0, 16) < 0);
	assert_true(vq_parse_u32(&u, "99999999999999999999", 0, 16) < 0);
	assert_int_equal(vq_parse_f64(&d, "0.5", 0, 1), VQ_OK);
	assert_true(vq_parse_f64(&d, "nan", 0, 1) < 0);
	assert_true(vq_parse_f64(&d, "0.5%", 0, 1) < 0);
	assert_int_equal(vq_parse_choice("layerwise", "rtn|layerwise|qvlm"), 1);
	assert_true(vq_parse_choice("layer", "rtn|layerwise|qvlm") < 0);
}

static void json_refuses_duplicates_and_names_the_place(void **state)
{
	static const char bad[] = "{\"a\": 1, \"a\": 2}";
	struct vq_err err = {0};
	uint32_t u;
	json_t *j = vq_json_parse(bad, strlen(bad), "x.json", &err);

	(void)state;
	assert_null(j);
	assert_int_equal(err.code, VQ_E_DATA);
	assert_non_null(strstr(err.text, "x.json: line 1"));
	memset(&err, 0, sizeof(err));
	j = vq_json_parse("{\"a\": -1}", 9, "x.json", &err);
	assert_non_null(j);
	assert_int_equal(vq_json_u32(j, "a", 0, &u, "x.json", &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "'a'"));
	json_decref(j);
}

static void sha256_equals_the_published_vector(void **state)
{
	char hex[VQ_SHA256_HEX];

	(void)state;
	vq_sha256_of("abc", 3, hex); /* FIPS 180-4, appendix */
	assert_string_equal(hex,
			    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void sizes_that_overflow_are_refused(void **state)
{
	struct vq_err err = {0};
	size_t n;

	(void)state;
	assert_int_equal(vq_mul_size(&n, SIZE_MAX / 2, 3), VQ_E_DATA);
	assert_null(vq_alloc(SIZE_MAX / 2, 4, &err));
	assert_int_equal(err.code, VQ_E_SYS);
}

static void the_first_error_stays(void **state)
{
	struct vq_err err = {0};

	(void)state;
	assert_int_equal(vq_fail(&err, VQ_E_DATA, "first"), VQ_E_DATA);
	assert_int_equal(vq_fail(&err, VQ_E_SYS, "second"), VQ_E_SYS);
	assert_string_equal(err.text, "first");
	vq_err_prefix(&err, "record %d", 3);
	assert_string_equal(err.text, "record 3: first");
}

static void an_output_has_its_name_only_when_it_is_whole(void **state)
{
	struct vq_output o;
	struct vq_err err = {0};

	(void)state;
	assert_int_equal(vq_output_open(&o, in_folder("x"), &err), VQ_OK);
	assert_int_equal(vq_write_full(o.fd, "abc", 3, o.label, &err), VQ_OK);
	assert_false(vq_path_exists(in_folder("x")));
	assert_true(vq_path_exists(in_folder("x.part")));
	assert_int_equal(vq_output_commit(&o, &err), VQ_OK);
	assert_true(vq_path_exists(in_folder("x")));
	assert_false(vq_path_exists(in_folder("x.part")));
	assert_int_equal(vq_output_open(&o, in_folder("y"), &err), VQ_OK);
	vq_output_abort(&o, 0);
	assert_false(vq_path_exists(in_folder("y.part")));
	assert_int_equal(vq_output_open(&o, in_folder("y"), &err), VQ_OK);
	vq_output_abort(&o, 1);
	assert_true(vq_path_exists(in_folder("y.part")));
	assert_false(vq_path_exists(in_folder("y")));
}

static void a_pipe_is_written_and_stays_a_pipe_and_a_folder_is_refused(void **state)
{
	struct vq_output o;
	struct vq_err err = {0};
	struct stat st;
	char *text;
	size_t n;
	int fd;

	(void)state;
	assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
	fd = open(in_folder("pipe"), O_RDONLY | O_NONBLOCK);
	assert_true(fd >= 0);
	assert_int_equal(vq_output_open(&o, in_folder("pipe"), &err), VQ_OK);
	assert_int_equal(vq_write_full(o.fd, "abc", 3, o.label, &err), VQ_OK);
	assert_int_equal(vq_output_commit(&o, &err), VQ_OK);
	assert_int_equal(stat(in_folder("pipe"), &st), 0);
	assert_true(S_ISFIFO(st.st_mode));
	assert_int_equal(vq_fd_read(fd, 2, "pipe", &text, &n, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "pipe: want at most 2 bytes"));
	close(fd);
	memset(&err, 0, sizeof(err));
	assert_int_equal(vq_output_open(&o, folder, &err), VQ_E_SYS);
	assert_non_null(strstr(err.text, "folder"));
}

static void a_descriptor_is_read_to_its_end(void **state)
{
	size_t sizes[] = {0, 1, 65534, 65535, 65536, 300000}, n, i;
	char *block = malloc(300000), *text;
	struct vq_err err = {0};
	int fd;

	(void)state;
	assert_non_null(block);
	memset(block, 'x', 300000);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		put_file("z", block, sizes[i]);
		fd = open(in_folder("z"), O_RDONLY);
		assert_int_equal(vq_fd_read(fd, 300000, "z", &text, &n, &err), VQ_OK);
		assert_int_equal(n, sizes[i]);
		assert_memory_equal(text, block, n);
		assert_int_equal(text[n], '\0');
		vq_free(text);
		close(fd);
	}
	free(block);
}

static void large_pages_grow_in_place_and_keep_what_they_hold(void **state)
{
	struct vq_err err = {0};
	struct vq_pages p;
	uint8_t *at;

	(void)state;
	assert_int_equal(vq_pages_reserve(&p, 10 * VQ_LARGE_PAGE, 0, &err), VQ_OK);
	at = p.data;
	assert_int_equal((uintptr_t)at % VQ_LARGE_PAGE, 0);
	assert_int_equal(vq_pages_grow(&p, 3, &err), VQ_OK);
	memcpy(p.data, "abc", 3);
	assert_int_equal(vq_pages_grow(&p, 10 * VQ_LARGE_PAGE - 1, &err), VQ_OK);
	assert_ptr_equal(p.data, at);
	assert_memory_equal(p.data, "abc", 4);
	assert_int_equal(p.data[10 * VQ_LARGE_PAGE - 2], 0);
	assert_int_equal(vq_pages_grow(&p, 11 * VQ_LARGE_PAGE, &err), VQ_E_SYS);
	assert_non_null(strstr(err.text, "memory: cannot have"));
	vq_pages_free(&p);
	assert_int_equal(vq_pages_reserve(&p, SIZE_MAX, 0, &err), VQ_E_SYS);
	vq_pages_free(&p);
}

/* Three reads of a thread, and a bit: no size is a multiple of anything. */
static void a_loaded_file_is_what_the_mapped_one_is_or_cut(void **state)
{
	const size_t n = (size_t)50 * 1000 * 1000 + 7;
	uint32_t *block = malloc(n / 4 * 4 + 4);
	struct vq_err err = {0};
	struct vq_map a, b;
	struct vq_pages p;
	size_t i;
	int fd;

	(void)state;
	assert_non_null(block);
	for (i = 0; i <= n / 4; i++)
		block[i] = (uint32_t)i * 2654435761u;
	put_file("large", block, n);
	free(block);
	assert_int_equal(vq_map_open(&a, in_folder("large"), VQ_E_SYS, &err), VQ_OK);
	assert_int_equal(vq_map_load(&b, in_folder("large"), VQ_E_SYS, &err), VQ_OK);
	assert_int_equal(a.n, n);
	assert_int_equal(b.n, n);
	assert_int_equal((uintptr_t)b.data % VQ_LARGE_PAGE, 0);
	assert_memory_equal(a.data, b.data, n);
	assert_int_equal(vq_pages_lock(b.data, 4096, &err), VQ_OK);
	vq_map_close(&a);
	vq_map_close(&b);
	fd = open(in_folder("large"), O_RDONLY);
	assert_int_equal(vq_pages_load(&p, fd, n + 1, "large", &err), VQ_E_DATA);
	assert_string_equal(err.text,
			    "large: cut while it was read: want 50000008 bytes, got 50000007");
	close(fd);
	memset(&err, 0, sizeof(err));
	assert_int_equal(vq_pages_load(&p, -1, n, "none", &err), VQ_E_SYS);
	assert_non_null(strstr(err.text, "none: cannot read: Bad file descriptor"));
	put_file("empty", "", 0);
	assert_int_equal(vq_map_load(&b, in_folder("empty"), VQ_E_SYS, &err), VQ_OK);
	assert_null(b.data);
	vq_map_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_half_converts_to_its_value_and_back),
		cmocka_unit_test(float_to_half_rounds_to_the_nearest_with_ties_to_even),
		cmocka_unit_test(array_conversions_equal_the_single_ones),
		cmocka_unit_test(array_conversions_equal_the_single_ones_on_any_bits),
		cmocka_unit_test(random_numbers_are_uniform_and_normal),
		cmocka_unit_test(a_choice_is_ascending_and_different),
		cmocka_unit_test(numbers_are_parsed_whole_or_refused),
		cmocka_unit_test(json_refuses_duplicates_and_names_the_place),
		cmocka_unit_test(sha256_equals_the_published_vector),
		cmocka_unit_test(sizes_that_overflow_are_refused),
		cmocka_unit_test(the_first_error_stays),
		cmocka_unit_test(an_output_has_its_name_only_when_it_is_whole),
		cmocka_unit_test(a_pipe_is_written_and_stays_a_pipe_and_a_folder_is_refused),
		cmocka_unit_test(a_descriptor_is_read_to_its_end),
		cmocka_unit_test(large_pages_grow_in_place_and_keep_what_they_hold),
		cmocka_unit_test(a_loaded_file_is_what_the_mapped_one_is_or_cut),
	};

	return cmocka_run_group_tests_name("base", tests, folder_setup, folder_teardown);
}
