/* format/safetensors: what is read, what is refused, what is written. */
#include "folder.h"

#include "base/mem.h"
#include "format/safetensors.h"

static void refused(const char *header, size_t n_data, const char *const *words)
{
	struct vq_err err = {0};
	struct vq_st st;

	put_safetensors("x.safetensors", header, n_data);
	assert_int_equal(vq_st_open(&st, in_folder("x.safetensors"), VQ_E_DATA, &err), VQ_E_DATA);
	assert_says(&err, SAYS("x.safetensors"));
	assert_says(&err, words);
}

static void tensors_are_found_with_type_shape_and_data(void **state)
{
	struct vq_err err = {0};
	struct vq_st st;
	const struct vq_tensor *t;

	(void)state;
	put_safetensors("x.safetensors",
			"{\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[1,13]},"
			"\"__metadata__\":{\"format\":\"pt\"},"
			"\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}   ",
			13);
	assert_int_equal(vq_st_open(&st, in_folder("x.safetensors"), VQ_E_DATA, &err), VQ_OK);
	assert_int_equal(st.n, 2);
	assert_string_equal(st.entries[0].name, "a");
	assert_string_equal(json_string_value(json_object_get(st.metadata, "format")), "pt");
	t = vq_st_find(&st, "b");
	assert_non_null(t);
	assert_int_equal(t->dtype, VQ_F16);
	assert_int_equal(t->n_dims, 2);
	assert_int_equal(t->dims[0], 2);
	assert_int_equal(t->dims[1], 3);
	assert_int_equal(*(const uint8_t *)t->data, 1); /* at an odd address: unaligned is fine */
	assert_null(vq_st_find(&st, "c"));
	assert_null(vq_st_find(&st, "__metadata__"));
	vq_st_close(&st);
}

static void scalars_empty_tensors_and_no_tensors_are_fine(void **state)
{
	struct vq_err err = {0};
	struct vq_st st;
	size_t n;

	(void)state;
	put_safetensors("x.safetensors",
			"{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
			"\"e\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[4,4]},"
			"\"f\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[0,0]}}",
			4);
	assert_int_equal(vq_st_open(&st, in_folder("x.safetensors"), VQ_E_DATA, &err), VQ_OK);
	assert_int_equal(vq_tensor_count(vq_st_find(&st, "s"), &n), VQ_OK);
	assert_int_equal(n, 1);
	assert_int_equal(vq_tensor_count(vq_st_find(&st, "e"), &n), VQ_OK);
	assert_int_equal(n, 0);
	vq_st_close(&st);
	put_safetensors("x.safetensors", "{}", 0);
	assert_int_equal(vq_st_open(&st, in_folder("x.safetensors"), VQ_E_DATA, &err), VQ_OK);
	assert_int_equal(st.n, 0);
	assert_null(vq_st_find(&st, "s"));
	vq_st_close(&st);
}

static void holes_overlaps_and_trailing_bytes_are_refused(void **state)
{
	(void)state;
	refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
		"\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]}}",
		5, SAYS("'b'", "hole", "begin at 2", "got 3"));
	refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3,
		SAYS("'a'", "hole", "begin at 0", "got 1"));
	refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
		"\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
		3, SAYS("'b'", "overlap", "begin at 2", "got 1"));
	refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 3,
		SAYS("1 bytes after the last tensor"));
	refused("{}", 4, SAYS("4 bytes after"));
}

static void a_key_that_comes_twice_is_refused(void **state)
{
	(void)state;
	refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
		"\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
		2, SAYS("duplicate"));
	refused("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
		2, SAYS("duplicate"));
}

static void sizes_that_do_not_fit_are_refused(void **state)
{
	(void)state;
	refused("{\"a\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,10]}}", 10,
		SAYS("'a'", "[2, 3]", "wants 12 bytes", "give 10"));
	refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,"
		"0]}}",
		0, SAYS("'a'", "too large"));
	refused("{\"a\":{\"dtype\":\"F64\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}"
		"}",
		0, SAYS("'a'", "too large"));
	refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775808],\"data_offsets\":[0,1]}}",
		1, SAYS("bad JSON"));
	refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1,
		SAYS("'a'", "dimension 0"));
	refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}",
		1, SAYS("'a'", "at most 8", "got 9"));
	refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1.5],\"data_offsets\":[0,1]}}", 1,
		SAYS("'a'", "dimension 0"));
}

static void entries_without_their_members_are_refused(void **state)
{
	(void)state;
	refused("{\"a\":7}", 0, SAYS("'a'", "object"));
	refused("{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, SAYS("'a'", "dtype"));
	refused("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, SAYS("'a'", "shape"));
	refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, SAYS("'a'", "data_offsets"));
	refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1,
		SAYS("'a'", "data_offsets"));
	refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1,
		SAYS("'a'", "data_offsets"));
	refused("{\"__metadata__\":{\"x\":1}}", 0, SAYS("__metadata__", "string"));
	refused("{\"__metadata__\":[]}", 0, SAYS("__metadata__", "object"));
	refused("[]", 0, SAYS("'{'"));
	refused(" {}", 0, SAYS("'{'"));
	refused("{\"a\"", 0, SAYS("bad JSON"));
	refused("{\"\xff\":1}", 0, SAYS("bad JSON"));
}

static void an_unknown_dtype_is_named(void **state)
{
	(void)state;
	refused("{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
		SAYS("'a'", "F8_E4M3", "not supported"));
}

static void a_header_over_the_limit_is_refused(void **state)
{
	struct vq_err err = {0};
	struct vq_st st;
	const uint8_t over[] = {0x01, 0xe1, 0xf5, 0x05, 0, 0, 0, 0, '{', '}'}; /* 100,000,001 */
	const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'};

	(void)state;
	put_file("x.safetensors", over, sizeof(over));
	assert_int_equal(vq_st_open(&st, in_folder("x.safetensors"), VQ_E_DATA, &err), VQ_E_DATA);
	assert_says(&err, SAYS("at most 100000000", "got 100000001"));
	put_file("x.safetensors", huge, sizeof(huge));
	err.code = VQ_OK;
	assert_int_equal(vq_st_open(&st, in_folder("x.safetensors"), VQ_E_DATA, &err), VQ_E_DATA);
	assert_says(&err, SAYS("at most 100000000", "got 18446744073709551615"));
}

static void a_file_cut_at_any_byte_is_refused(void **state)
{
	static const char header[] =
		"{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
		"\"b\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[4,8]}}";
	const size_t whole = 8 + strlen(header) + 8;
	size_t n;

	(void)state;
	for (n = 0; n <= whole; n++) {
		struct vq_err err = {0};
		struct vq_st st;

		put_safetensors("x.safetensors", header, 8);
		assert_int_equal(truncate(in_folder("x.safetensors"), (off_t)n), 0);
		if (n == whole) {
			assert_int_equal(
				vq_st_open(&st, in_folder("x.safetensors"), VQ_E_DATA, &err), 0);
			vq_st_close(&st);
		} else {
			assert_int_equal(
				vq_st_open(&st, in_folder("x.safetensors"), VQ_E_DATA, &err),
				VQ_E_DATA);
		}
	}
}

static void an_absent_file_has_the_status_that_the_caller_gives(void **state)
{
	struct vq_err err = {0};
	struct vq_st st;

	(void)state;
	assert_int_equal(vq_st_open(&st, in_folder("none"), VQ_E_SYS, &err), VQ_E_SYS);
	err.code = VQ_OK;
	assert_int_equal(vq_st_open(&st, in_folder("none"), VQ_E_DATA, &err), VQ_E_DATA);
	assert_says(&err, SAYS("none"));
}

/* Damage in one byte of the header may leave a valid file, but must never crash or leak. */
static void a_damaged_byte_of_the_header_never_crashes(void **state)
{
	static const char header[] =
		"{\"a\":{\"dtype\":\"F16\",\"shape\":[2,1],\"data_offsets\":[0,4]},"
		"\"__metadata__\":{\"k\":\"v\"},"
		"\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[4,8]}}";
	const char with[] = "\"{}[]:,0917-\\ \xff\n";
	char text[sizeof(header)];
	size_t at, k, good = 0, bad = 0;

	(void)state;
	for (at = 0; at < sizeof(header) - 1; at++)
		for (k = 0; k < sizeof(with) - 1; k++) {
			struct vq_err err = {0};
			struct vq_st st;
			int rc;

			memcpy(text, header, sizeof(header));
			text[at] = with[k];
			put_safetensors("x.safetensors", text, 8);
			rc = vq_st_open(&st, in_folder("x.safetensors"), VQ_E_DATA, &err);
			assert_true(rc == VQ_OK || rc == VQ_E_DATA);
			if (rc == VQ_OK) {
				assert_true(st.n <= 2);
				vq_st_close(&st);
				good++;
			} else {
				assert_true(err.text[0]);
				bad++;
			}
		}
	assert_true(good > 0 && bad > good);
}

static void what_is_written_is_read_back(void **state)
{
	const float f[3] = {1, -2, 3.5f};
	const uint16_t h[2] = {0x3c00, 0xbc00};
	const uint8_t u[3] = {7, 8, 9};
	struct vq_st_entry e[] = {
		{(char *)(uintptr_t) "small", {VQ_U8, 1, {3}, u}},
		{(char *)(uintptr_t) "half", {VQ_F16, 2, {1, 2}, h}},
		{(char *)(uintptr_t) "full", {VQ_F32, 1, {3}, f}},
	};
	json_t *meta = json_pack("{s:s}", "k", "v");
	struct vq_err err = {0};
	struct vq_st st;

	(void)state;
	assert_int_equal(vq_st_write(in_folder("x.safetensors"), e, 3, meta, &err), VQ_OK);
	assert_int_equal(vq_st_open(&st, in_folder("x.safetensors"), VQ_E_DATA, &err), VQ_OK);
	assert_int_equal(st.n, 3);
	assert_memory_equal(vq_st_find(&st, "full")->data, f, sizeof(f));
	assert_memory_equal(vq_st_find(&st, "half")->data, h, sizeof(h));
	assert_memory_equal(vq_st_find(&st, "small")->data, u, sizeof(u));
	assert_int_equal((uintptr_t)vq_st_find(&st, "full")->data % 8, 0);
	assert_true(json_equal(st.metadata, meta));
	vq_st_close(&st);
	json_decref(meta);
}

static void two_tensors_of_one_name_are_not_written(void **state)
{
	const uint8_t u[1] = {7};
	struct vq_st_entry e[] = {
		{(char *)(uintptr_t) "same", {VQ_U8, 1, {1}, u}},
		{(char *)(uintptr_t) "same", {VQ_U8, 1, {1}, u}},
	};
	struct vq_err err = {0};

	(void)state;
	assert_int_equal(vq_st_write(in_folder("y.safetensors"), e, 2, NULL, &err), VQ_E_DATA);
	assert_int_not_equal(access(in_folder("y.safetensors"), F_OK), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tensors_are_found_with_type_shape_and_data),
		cmocka_unit_test(scalars_empty_tensors_and_no_tensors_are_fine),
		cmocka_unit_test(holes_overlaps_and_trailing_bytes_are_refused),
		cmocka_unit_test(a_key_that_comes_twice_is_refused),
		cmocka_unit_test(sizes_that_do_not_fit_are_refused),
		cmocka_unit_test(entries_without_their_members_are_refused),
		cmocka_unit_test(an_unknown_dtype_is_named),
		cmocka_unit_test(a_header_over_the_limit_is_refused),
		cmocka_unit_test(a_file_cut_at_any_byte_is_refused),
		cmocka_unit_test(an_absent_file_has_the_status_that_the_caller_gives),
		cmocka_unit_test(a_damaged_byte_of_the_header_never_crashes),
		cmocka_unit_test(what_is_written_is_read_back),
		cmocka_unit_test(two_tensors_of_one_name_are_not_written),
	};

	return cmocka_run_group_tests(tests, folder_setup, folder_teardown);
}
