/* format/checkpoint: folders, shards, side files, identity. */
#include "folder.h"

#include "base/mem.h"
#include "base/sha256.h"
#include "format/checkpoint.h"

#define ONE(name) "{\"" name "\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}"
#define MAP(text) "{\"metadata\":{\"total_size\":8},\"weight_map\":{" text "}}"

static const char index_file[] = "model.safetensors.index.json";

/* Two shards, one tensor in each. */
static int sharded_setup(void **state)
{
	(void)state;
	if (folder_setup(state) < 0)
		return -1;
	put_text("config.json", "{\"model_type\":\"llama\"}");
	put_safetensors("model-1.safetensors", ONE("a"), 4);
	put_safetensors("model-2.safetensors", ONE("b"), 4);
	put_text(index_file, MAP("\"a\":\"model-1.safetensors\",\"b\":\"model-2.safetensors\""));
	return 0;
}

static void refused(const char *const *words)
{
	struct vq_err err = {0};
	struct vq_ckpt *c = NULL;

	assert_int_equal(vq_ckpt_open(&c, folder, &err), VQ_E_DATA);
	assert_null(c);
	assert_says(&err, words);
}

static void tensors_of_all_shards_are_found(void **state)
{
	struct vq_err err = {0};
	struct vq_ckpt *c;
	const char *where;

	(void)state;
	assert_int_equal(vq_ckpt_open(&c, folder, &err), VQ_OK);
	assert_int_equal(vq_ckpt_count(c), 2);
	assert_string_equal(vq_ckpt_name(c, 0), "a");
	assert_string_equal(vq_ckpt_name(c, 1), "b");
	assert_non_null(vq_ckpt_find(c, "b", &where));
	assert_string_equal(where, in_folder("model-2.safetensors"));
	assert_null(vq_ckpt_find(c, "c", NULL));
	assert_string_equal(json_string_value(json_object_get(vq_ckpt_config(c), "model_type")),
			    "llama");
	vq_ckpt_close(c);
}

static void a_single_file_needs_no_index(void **state)
{
	struct vq_err err = {0};
	struct vq_ckpt *c;

	(void)state;
	unlink(in_folder(index_file));
	put_safetensors("model.safetensors", ONE("z"), 4);
	assert_int_equal(vq_ckpt_open(&c, folder, &err), VQ_OK);
	assert_int_equal(vq_ckpt_count(c), 1);
	vq_ckpt_close(c);
}

static void side_files_are_read_whole_or_absent(void **state)
{
	struct vq_err err = {0};
	struct vq_ckpt *c;
	char *data;
	size_t n;

	(void)state;
	assert_int_equal(vq_ckpt_open(&c, folder, &err), VQ_OK);
	assert_int_equal(vq_ckpt_file(c, "config.json", &data, &n, &err), 1);
	assert_string_equal(data, "{\"model_type\":\"llama\"}");
	assert_int_equal(n, strlen(data));
	vq_free(data);
	assert_int_equal(vq_ckpt_file(c, "tokenizer.model", &data, &n, &err), 0);
	vq_ckpt_close(c);
}

static void the_identity_is_of_names_types_shapes_and_config(void **state)
{
	char first[VQ_SHA256_HEX], again[VQ_SHA256_HEX], other[VQ_SHA256_HEX];
	struct vq_err err = {0};
	struct vq_ckpt *c;

	(void)state;
	assert_int_equal(vq_ckpt_open(&c, folder, &err), VQ_OK);
	assert_int_equal(vq_ckpt_identity(c, first, &err), VQ_OK);
	vq_ckpt_close(c);
	unlink(in_folder(index_file)); /* the same tensors in one file are the same model */
	put_safetensors("model.safetensors",
			"{\"b\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
			"\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[4,8]}}",
			8);
	assert_int_equal(vq_ckpt_open(&c, folder, &err), VQ_OK);
	assert_int_equal(vq_ckpt_identity(c, again, &err), VQ_OK);
	vq_ckpt_close(c);
	assert_string_equal(first, again);
	put_text("config.json", "{\"model_type\":\"llama\" }");
	assert_int_equal(vq_ckpt_open(&c, folder, &err), VQ_OK);
	assert_int_equal(vq_ckpt_identity(c, other, &err), VQ_OK);
	vq_ckpt_close(c);
	assert_string_not_equal(first, other);
}

static void a_shard_path_that_leaves_the_folder_is_refused(void **state)
{
	(void)state;
	put_text(index_file, MAP("\"a\":\"../model-1.safetensors\""));
	refused(SAYS(index_file, "'a'", "../model-1.safetensors"));
	put_text(index_file, MAP("\"a\":\"/etc/passwd\""));
	refused(SAYS(index_file, "'a'", "/etc/passwd"));
	put_text(index_file, MAP("\"a\":\"sub/model-1.safetensors\""));
	refused(SAYS(index_file, "'a'"));
	put_text(index_file, MAP("\"a\":\"..\""));
	refused(SAYS(index_file, "'a'", "'..'"));
	put_text(index_file, MAP("\"a\":\"\""));
	refused(SAYS(index_file, "'a'"));
	put_text(index_file, MAP("\"a\":7"));
	refused(SAYS(index_file, "'a'"));
}

static void a_missing_shard_is_named(void **state)
{
	(void)state;
	unlink(in_folder("model-2.safetensors"));
	refused(SAYS("model-2.safetensors", "cannot open"));
}

static void a_tensor_that_is_not_in_its_shard_is_named(void **state)
{
	(void)state;
	put_text(index_file, MAP("\"a\":\"model-1.safetensors\",\"b\":\"model-1.safetensors\""));
	refused(SAYS("model-1.safetensors", "'b'", "not in the shard"));
}

static void a_tensor_in_two_shards_is_named(void **state)
{
	(void)state;
	put_safetensors("model-2.safetensors",
			"{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
			"\"b\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[4,8]}}",
			8);
	refused(SAYS("'a'", "model-1.safetensors", "model-2.safetensors"));
}

static void an_index_with_a_key_twice_or_without_a_map_is_refused(void **state)
{
	(void)state;
	put_text(index_file, MAP("\"a\":\"model-1.safetensors\",\"a\":\"model-2.safetensors\""));
	refused(SAYS(index_file, "duplicate"));
	put_text(index_file, "{\"metadata\":{}}");
	refused(SAYS(index_file, "weight_map"));
	put_text(index_file, MAP(""));
	refused(SAYS(index_file, "weight_map"));
	put_text(index_file, "{");
	refused(SAYS(index_file, "bad JSON"));
}

static void a_folder_without_config_or_weights_says_what_is_wanted(void **state)
{
	(void)state;
	unlink(in_folder(index_file));
	refused(SAYS("model.safetensors", index_file));
	unlink(in_folder("config.json"));
	refused(SAYS("no config.json"));
	put_text("config.json", "[]");
	refused(SAYS("config.json", "object"));
	put_text("config.json", "{\"a\":1,\"a\":2}");
	refused(SAYS("config.json", "duplicate"));
}

static void a_path_that_is_absent_fails_and_a_file_is_refused(void **state)
{
	struct vq_err err = {0};
	struct vq_ckpt *c = NULL;

	(void)state;
	assert_int_equal(vq_ckpt_open(&c, in_folder("none"), &err), VQ_E_SYS);
	assert_says(&err, SAYS("none"));
	err.code = VQ_OK;
	assert_int_equal(vq_ckpt_open(&c, in_folder("config.json"), &err), VQ_E_DATA);
	assert_says(&err, SAYS("config.json", "want a folder"));
}

#define WITH_SHARDS(f) cmocka_unit_test_setup_teardown(f, sharded_setup, folder_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SHARDS(tensors_of_all_shards_are_found),
		WITH_SHARDS(a_single_file_needs_no_index),
		WITH_SHARDS(side_files_are_read_whole_or_absent),
		WITH_SHARDS(the_identity_is_of_names_types_shapes_and_config),
		WITH_SHARDS(a_shard_path_that_leaves_the_folder_is_refused),
		WITH_SHARDS(a_missing_shard_is_named),
		WITH_SHARDS(a_tensor_that_is_not_in_its_shard_is_named),
		WITH_SHARDS(a_tensor_in_two_shards_is_named),
		WITH_SHARDS(an_index_with_a_key_twice_or_without_a_map_is_refused),
		WITH_SHARDS(a_folder_without_config_or_weights_says_what_is_wanted),
		WITH_SHARDS(a_path_that_is_absent_fails_and_a_file_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
