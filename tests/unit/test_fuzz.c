/* The fuzz targets over their corpora, cuts of these, and seeded mutations.  With VQLM_FUZZ_SEEDS=DIR nothing is run: what
 * would be mutated goes into DIR/TARGET, for a fuzzer to begin with (tests/fuzz/run.sh). */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "stream/writer.h"
#include "emulated.h"
#include "gguf_bytes.h"
#include "torch_file.h"

#define vq_fuzz fuzz_image
#include "../fuzz/fuzz_image.c"
#undef vq_fuzz
#define vq_fuzz fuzz_tokenizer
#include "../fuzz/fuzz_tokenizer.c"
#undef vq_fuzz
#define vq_fuzz fuzz_dataset
#include "../fuzz/fuzz_dataset.c"
#undef vq_fuzz
#define vq_fuzz fuzz_safetensors
#include "../fuzz/fuzz_safetensors.c"
#undef vq_fuzz
#define vq_fuzz fuzz_checkpoint
#include "../fuzz/fuzz_checkpoint.c"
#undef vq_fuzz
#define vq_fuzz fuzz_stream
#include "../fuzz/fuzz_stream.c"
#undef vq_fuzz
#define vq_fuzz fuzz_vqm
#include "../fuzz/fuzz_vqm.c"
#undef vq_fuzz
#define vq_fuzz fuzz_torch
#include "../fuzz/fuzz_torch.c"
#undef vq_fuzz
#define vq_fuzz fuzz_tree
#include "../fuzz/fuzz_tree.c"
#undef vq_fuzz
#define vq_fuzz fuzz_answers
#include "../fuzz/fuzz_answers.c"
#undef vq_fuzz
#define vq_fuzz fuzz_config
#include "../fuzz/fuzz_config.c"
#undef vq_fuzz
#define vq_fuzz fuzz_gguf
#include "../fuzz/fuzz_gguf.c"
#undef vq_fuzz

typedef int (*target)(const uint8_t *, size_t);

#define CUTS 40

static int n_runs;

/* A copy of exactly n bytes, so that a sanitizer sees a read past the end. */
static void run(target f, const uint8_t *data, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);

	assert_non_null(copy);
	memcpy(copy, data, n);
	if (f(copy, n))
		fail_msg("a promise was broken on %zu bytes (run %d)", n, n_runs);
	free(copy);
	n_runs++;
}

/* Changes a few places: a bit, a byte, a number, a stretch copied elsewhere. */
static void mutate(uint8_t *data, size_t n, struct vq_rng r)
{
	uint64_t k, i, at, from, len;

	for (k = 0; k < 1 + vq_rng_u64(r, 0) % 4; k++) {
		i = 1 + 8 * k;
		at = vq_rng_u64(r, i) % n;
		from = vq_rng_u64(r, i + 1) % n;
		len = vq_rng_u64(r, i + 2) % 16 + 1;
		len = len > n - at ? n - at : len;
		len = len > n - from ? n - from : len;
		switch (vq_rng_u64(r, i + 3) % 4) {
		case 0: data[at] ^= (uint8_t)(1 << vq_rng_u64(r, i + 4) % 8); break;
		case 1: data[at] = (uint8_t)vq_rng_u64(r, i + 4); break;
		case 2: memset(data + at, vq_rng_u64(r, i + 4) & 1 ? 0xff : 0, len); break;
		default: memmove(data + at, data + from, len); break;
		}
	}
}

/* The bytes as DIR/TARGET/LABEL-N; 0 without VQLM_FUZZ_SEEDS. */
static int seed(const char *name, const char *label, const uint8_t *data, size_t n)
{
	const char *dir = getenv("VQLM_FUZZ_SEEDS"), *base = strrchr(label, '/');
	char path[512];
	FILE *f;

	if (!dir)
		return 0;
	name += strlen("fuzz_");
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	mkdir(path, 0777);
	snprintf(path, sizeof(path), "%s/%s/%s-%d", dir, name, base ? base + 1 : label, n_runs++);
	f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
	return 1;
}

static void replay_as(const char *name, target f, const char *label, const uint8_t *data, size_t n,
		      int mutations)
{
	uint8_t *copy;
	int i;

	if (seed(name, label, data, n))
		return;
	copy = malloc(n ? n : 1);
	assert_non_null(copy);
	run(f, data, n);
	for (i = 0; i < CUTS && n; i++)
		run(f, data, n * (size_t)i / CUTS);
	for (i = 0; i < mutations && n; i += (int)stride(10)) {
		memcpy(copy, data, n);
		mutate(copy, n, vq_rng_new((uint64_t)i, label));
		run(f, copy, n);
	}
	free(copy);
}

static void replay_file_as(const char *name, target f, const char *path, size_t limit,
			   int mutations)
{
	char *data;
	size_t n;

	assert_int_equal(vq_file_read(path, 1 << 28, VQ_E_SYS, &data, &n, NULL), VQ_OK);
	replay_as(name, f, path, (const uint8_t *)data, n < limit ? n : limit, mutations);
	vq_free(data);
}

/* Every file of tests/data/TARGET, in the order of their names. */
static void replay_found_as(const char *name, target f, int mutations)
{
	struct dirent **list = NULL;
	char dir[256], path[512];
	int i, n;

	snprintf(dir, sizeof(dir), "tests/data/%s", name + strlen("fuzz_"));
	n = scandir(dir, &list, NULL, alphasort);
	for (i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, list[i]->d_name);
		if (list[i]->d_name[0] != '.')
			replay_file_as(name, f, path, SIZE_MAX, mutations);
		free(list[i]);
	}
	free(list);
}

#define replay(f, ...)      replay_as(#f, f, __VA_ARGS__)
#define replay_file(f, ...) replay_file_as(#f, f, __VA_ARGS__)
#define replay_found(f, m)  replay_found_as(#f, f, m)

static void figure(const char *what)
{
	assert_true(n_runs > 0);
	print_message("# figure: %s: %d inputs, no promise broken\n", what, n_runs);
	n_runs = 0;
}

static void pictures(void **state)
{
	(void)state;
	replay_found(fuzz_image, 60);
	figure("pictures");
}

static void tokenizers(void **state)
{
	static const char small[] = "{\"added_tokens\": [{\"id\": 3, \"content\": \"<i>\", "
				    "\"rstrip\": true}], \"normalizer\": "
				    "{\"type\": \"Prepend\", \"prepend\": \"\xe2\x96\x81\"}, "
				    "\"model\": {\"type\": \"BPE\", "
				    "\"unk_token\": \"a\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": "
				    "2}, \"merges\": [\"a b\"]}}";

	static const char bytes[] =
		"{\"added_tokens\": [{\"id\": 3, \"content\": \"<i>\", \"lstrip\": true, "
		"\"normalized\": true}], \"normalizer\": {\"type\": \"NFC\"}, "
		"\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": "
		"\"Split\", \"pattern\": {\"Regex\": \"(?:a+)+=|\\\\p{L}\"}, \"behavior\": "
		"\"Contiguous\"}, {\"type\": \"ByteLevel\"}]}, \"model\": {\"type\": \"BPE\", "
		"\"vocab\": {\"\u0120\": 0, \"I\": 1, \"\u0120I\": 2}, "
		"\"merges\": [[\"\u0120\", \"I\"]]}}";

	(void)state;
	replay(fuzz_tokenizer, "bytes", (const uint8_t *)bytes, sizeof(bytes) - 1, 3000);
	replay_file(fuzz_tokenizer, "tests/data/tokenizer/good-cuts.json", SIZE_MAX, 100);
	replay_file(fuzz_tokenizer, "pipelines/demo/mini-llava/tokenizer.model", SIZE_MAX, 150);
	replay_file(fuzz_tokenizer, "pipelines/demo/mini-llava/tokenizer.json", SIZE_MAX, 100);
	replay(fuzz_tokenizer, "small", (const uint8_t *)small, sizeof(small) - 1, 3000);
	replay_found(fuzz_tokenizer, 200);
	figure("tokenizers");
}

static void data_sets(void **state)
{
	static const char text[] = "[{\"id\": \"1\", \"image\": \"a.png\", \"conversations\": "
				   "[{\"from\": \"human\", \"value\": "
				   "\"<image>\\nq\"}, {\"from\": \"gpt\", \"value\": \"A\"}]}, "
				   "{\"question_id\": 2, \"text\": "
				   "\"q\", \"image\": \"b\"}]";
	static const char lines[] = "{\"id\": 1, \"text\": \"q\"}\n{\"id\": 2, \"text\": \"r\"}\n";

	(void)state;
	replay(fuzz_dataset, "array", (const uint8_t *)text, sizeof(text) - 1, 2000);
	replay(fuzz_dataset, "lines", (const uint8_t *)lines, sizeof(lines) - 1, 1000);
	replay_found(fuzz_dataset, 200);
	figure("data sets");
}

static void safetensors(void **state)
{
	static const char head[] =
		"{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],"
		"\"data_offsets\":[0,24]},\"b\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":["
		"24,32]}"
		"} ";
	uint8_t file[8 + sizeof(head) - 1 + 32] = {sizeof(head) - 1};

	(void)state;
	memcpy(file + 8, head, sizeof(head) - 1);
	assert_int_equal(fuzz_safetensors(file, sizeof(file)), 0);
	replay(fuzz_safetensors, "small", file, sizeof(file), 4000);
	replay_found(fuzz_safetensors, 200);
	figure("safetensors");
}

/* A stream with every kind of payload, at the given level. */
static uint8_t *make_stream(int level, size_t *n)
{
	static const uint16_t halves[64] = {0x3c00, 0x4000, 0xbc00};
	struct vq_tensor t = {VQ_F16, 2, {8, 8}, halves};
	struct vq_writer *w;
	struct vq_err err = {0};
	FILE *f = tmpfile();
	json_t *head = json_pack("{s:s}", "producer", "test");
	uint8_t *data;

	assert_non_null(f);
	assert_int_equal(vq_writer_open(&w, fileno(f), "tmp", level, &err), VQ_OK);
	assert_int_equal(vq_writer_begin(w, head, &err), VQ_OK);
	assert_int_equal(vq_writer_put_json(w, VQ_KIND_META, "config", head, &err), VQ_OK);
	assert_int_equal(vq_writer_put_tensor(w, VQ_KIND_TENSOR, "x.weight", &t, head, &err),
			 VQ_OK);
	assert_int_equal(vq_writer_put_bytes(w, 99, "odd", "abc", 3, &err), VQ_OK);
	assert_int_equal(vq_writer_end(w, &err), VQ_OK);
	vq_writer_close(w);
	json_decref(head);
	*n = (size_t)lseek(fileno(f), 0, SEEK_END);
	data = malloc(*n);
	assert_non_null(data);
	assert_int_equal(pread(fileno(f), data, *n, 0), *n);
	fclose(f);
	return data;
}

static void streams(void **state)
{
	int level;

	(void)state;
	for (level = 0; level < 2; level++) {
		size_t n;
		uint8_t *data = make_stream(level, &n);

		replay(fuzz_stream, "stream", data, n, 2000);
		free(data);
	}
	replay_found(fuzz_stream, 200);
	figure("streams");
}

/* A packed model with a member of every sort, but without a model that would hold together. */
static void packed_models(void **state)
{
	struct vq_vqm_writer *w;
	struct vq_err err = {0};
	FILE *f = tmpfile();
	uint8_t *data;
	size_t n;

	(void)state;
	assert_non_null(f);
	assert_int_equal(vq_vqm_create(&w, fileno(f), "tmp", &err), VQ_OK);
	assert_int_equal(vq_vqm_add(w, "model.json", "{\"config\":{}}", 13, &err), VQ_OK);
	assert_int_equal(vq_vqm_add(w, "x.json", "{}", 2, &err), VQ_OK);
	assert_int_equal(vq_vqm_add(w, "x", "0123456789", 10, &err), VQ_OK);
	assert_int_equal(vq_vqm_finish(w, NULL, &err), VQ_OK);
	vq_vqm_abort(w);
	n = (size_t)lseek(fileno(f), 0, SEEK_END);
	data = malloc(n);
	assert_non_null(data);
	assert_int_equal(pread(fileno(f), data, n, 0), n);
	fclose(f);
	replay(fuzz_vqm, "vqm", data, n, 2000);
	free(data);
	replay_found(fuzz_vqm, 200);
	figure("packed models");
}

/* A file of two views and a transposed one, and its pickle alone. */
static void torch_files(void **state)
{
	static const float numbers[6] = {1, 2, 3, 4, 5, 6};
	static const int32_t dims[] = {2, 3}, rows[] = {3, 1}, turned[] = {1, 2};
	struct bytes p = {0}, f;

	(void)state;
	pickle_begin(&p);
	pickle_tensor(&p, "a", "FloatStorage", "0", 6, 0, 2, dims, rows);
	pickle_tensor(&p, "b", "HalfStorage", "0", 6, 3, 1, rows, rows + 1);
	pickle_tensor(&p, "c", "FloatStorage", "0", 6, 0, 2, dims, turned);
	pickle_end(&p);
	f = torch_file(&p, numbers, sizeof(numbers));
	assert_int_equal(fuzz_torch(f.p, f.n), 0);
	replay(fuzz_torch, "file", f.p, f.n, 6000);
	replay(fuzz_torch, "pickle", p.p, p.n, 6000);
	free(f.p);
	free(p.p);
	replay_found(fuzz_torch, 200);
	figure("PyTorch files");
}

static void checkpoints(void **state)
{
	/* dim 4, hidden 4, 1 layer, 2 heads, 1 of keys, 4 tokens, 2 positions: 128 floats. */
	static const int32_t shape[7] = {4, 4, 1, 2, 1, 4, 2};
	uint8_t file[sizeof(shape) + 128 * sizeof(float)] = {0}, *stream;
	struct vq_ckpt *c;
	char path[64];
	size_t n;
	int fd, level;

	(void)state;
	memcpy(file, shape, sizeof(shape));
	fd = fuzz_file(file, sizeof(file), path, sizeof(path));
	assert_true(fd >= 0);
	assert_int_equal(vq_ckpt_open(&c, path, NULL),
			 VQ_OK); /* the mutations begin with a good one */
	assert_int_equal(vq_ckpt_count(c), 11);
	vq_ckpt_close(c);
	close(fd);
	replay(fuzz_checkpoint, "llama2.c", file, sizeof(file), 2000);
	for (level = 0; level <= 1; level++) {
		stream = make_stream(level, &n);
		replay(fuzz_checkpoint, "stream", stream, n, 500);
		free(stream);
	}
	replay_found(fuzz_checkpoint, 200);
	figure("checkpoints");
}

static void gguf_files(void **state)
{
	uint8_t *data;
	struct vq_ckpt *c;
	char path[64];
	size_t n;
	int fd, merges;

	(void)state;
	for (merges = 0; merges <= 1; merges++) {
		data = gguf_llama(merges, &n);
		fd = fuzz_file(data, n, path, sizeof(path));
		assert_true(fd >= 0);
		assert_int_equal(vq_ckpt_open(&c, path, NULL),
				 VQ_OK); /* a good one to begin with */
		assert_int_equal(vq_ckpt_count(c), 12);
		vq_ckpt_close(c);
		close(fd);
		replay(fuzz_gguf, merges ? "merges" : "pieces", data, n, 3000);
		free(data);
	}
	data = gguf_clip(&n);
	assert_int_equal(fuzz_gguf(data, n), 0);
	replay(fuzz_gguf, "clip", data, n, 2000);
	free(data);
	replay_found(fuzz_gguf, 200);
	figure("GGUF files");
}

/* A model's folder in three files, and what is in it twice over. */
static void archives(void **state)
{
	static const char *const names[] = {"m/config.json", "m/model.safetensors", "m/sub/x"};
	static const char small[] = "{}";
	uint8_t tar[8 * FUZZ_BLOCK] = {0};
	struct zip z = {{0}, {0}, 0};
	struct bytes zip;
	size_t i, at = 0;

	(void)state;
	for (i = 0; i < 3; i++) {
		at = fuzz_tar(tar, at, names[i], small, 2);
		zip_put(&z, names[i], small, 2, 0);
	}
	zip = zip_end(&z);
	replay(fuzz_tree, "tar", tar, sizeof(tar), 3000);
	replay(fuzz_tree, "zip", zip.p, zip.n, 3000);
	free(zip.p);
	replay_found(fuzz_tree, 200);
	figure("archives");
}

/* The demo's files as fuzz_config wants them, the configuration of the LLaVA authors, and a canonical form. */
static void configurations(void **state)
{
	static const char *const files[] = {"config.json", "preprocessor_config.json",
					    "tokenizer_config.json", "generation_config.json"};
	static const char flat[] =
		"{\"architectures\":[\"LlavaLlamaForCausalLM\"],\"mm_hidden_size\":1024,"
		"\"mm_projector_type\":\"mlp2x_gelu\",\"mm_vision_select_feature\":\"patch\","
		"\"mm_vision_select_layer\":-2,\"mm_vision_tower\":\"openai/clip\","
		"\"model_type\":\"llava\",\"torch_dtype\":\"float16\",\"use_mm_proj\":true}";
	static const char *const others[] = {
		"{\"model_type\":\"llama\"}",
		"{\"model_type\":\"phi\",\"hidden_size\":64,\"num_attention_heads\":2,"
		"\"partial_rotary_factor\":0.4,\"layer_norm_eps\":1e-05}",
		"{\"model_type\":\"qwen\",\"hidden_size\":64,\"intermediate_size\":128,"
		"\"num_attention_heads\":2,\"kv_channels\":32,\"seq_length\":512}",
		"{\"model_type\":\"stablelm\",\"use_qkv_bias\":true,\"partial_rotary_factor\":0."
		"25}",
		"{\"model_type\":\"moe_llava_llama\",\"mm_vision_tower\":\"openai/clip\","
		"\"num_hidden_layers\":4,\"mm_projector_type\":\"mlp2x_gelu\","
		"\"moe\":{\"moe_enable\":true,\"moe_mode\":\"sparse\",\"moe_layers_idx\":[0,2],"
		"\"num_experts\":[4,4],\"top_k_experts\":2,\"use_residual\":false}}",
	};
	static const char tiles[] =
		"{\"model_type\":\"idefics3\",\"scale_factor\":4,\"image_token_id\":9,"
		"\"tie_word_embeddings\":true,\"text_config\":{\"model_type\":\"llama\","
		"\"hidden_size\":576,\"num_attention_heads\":9,\"num_key_value_heads\":3},"
		"\"vision_config\":{\"model_type\":\"idefics3\",\"hidden_size\":768,"
		"\"num_attention_heads\":12,\"image_size\":512,\"patch_size\":16}}\0"
		"{\"image_processor_type\":\"Idefics3ImageProcessor\",\"size\":{\"longest_edge\":"
		"2048},\"max_image_size\":{\"longest_edge\":512},\"resample\":1,"
		"\"do_image_splitting\":true,\"rescale_factor\":0.0039}\0{}\0{}";
	struct vq_err err = {0};
	struct vq_config c;
	struct vq_ckpt *k;
	struct bytes all = {0};
	char path[128], *text;
	json_t *j;
	size_t i, n;

	(void)state;
	for (i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(path, sizeof(path), "pipelines/demo/mini-llava/%s", files[i]);
		assert_int_equal(vq_file_read(path, 1 << 20, VQ_E_SYS, &text, &n, &err), VQ_OK);
		put_bytes(&all, text, n + 1); /* with the zero behind it */
		vq_free(text);
	}
	replay(fuzz_config, "demo", all.p, all.n, 2000);
	free(all.p);
	replay(fuzz_config, "flat", (const uint8_t *)flat, sizeof(flat) - 1, 1000);
	assert_int_equal(fuzz_config((const uint8_t *)tiles, sizeof(tiles) - 1), 0);
	replay(fuzz_config, "tiles", (const uint8_t *)tiles, sizeof(tiles) - 1, 2000);
	for (i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		replay(fuzz_config, "other", (const uint8_t *)others[i], strlen(others[i]), 500);
	assert_int_equal(vq_ckpt_open(&k, "pipelines/demo/mini-llava", &err), VQ_OK);
	assert_int_equal(vq_config_from_ckpt(&c, k, NULL, &err), VQ_OK);
	vq_ckpt_close(k);
	j = vq_config_json(&c, &err);
	text = vq_json_text(j, &err);
	assert_non_null(text);
	assert_memory_equal(text, "{\"arch\"", 7);
	replay(fuzz_config, "canonical", (const uint8_t *)text, strlen(text), 2000);
	vq_free(text);
	json_decref(j);
	replay_found(fuzz_config, 200);
	figure("configurations");
}

/* One of each: our answers, LLaVA's two, problems, windows of a text, choices and what was made of them. */
static void answers(void **state)
{
	static const char *const files[] = {
		"{\"vqlm\":\"answers\",\"producer\":\"t\",\"model\":{},\"ids\":[\"1\",\"2\"]}\n"
		"{\"question_id\":\"1\",\"text\":\"A\"}\n{\"question_id\":\"2\",\"text\":\"B\"}\n"
		"{\"vqlm\":\"totals\"}\n",
		"{\"question_id\":1,\"text\":\"The answer is "
		"B.\"}\n{\"question_id\":2,\"text\":\"x\"}\n",
		"{\"correct\":[{\"question_id\":\"1\",\"pred\":\"A\"}],\"incorrect\":[]}",
		"{\"results\":{\"1\":0,\"2\":1},\"outputs\":{\"1\":\"A\"}}",
		"{\"1\":{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":1,\"hint\":\"\","
		"\"image\":null,"
		"\"grade\":\"grade3\",\"subject\":\"natural science\",\"split\":\"test\"}}",
		"{\"vqlm\":\"perplexity\",\"params\":{},\"ids\":[\"0\"]}\n"
		"{\"question_id\":\"0\",\"nll\":1.5,\"n\":3}\n{\"vqlm\":\"totals\"}\n",
		"{\"vqlm\":\"choices\",\"ids\":[\"piqa/0\"]}\n{\"question_id\":\"piqa/"
		"0\",\"nll\":[1,2]}\n"
		"{\"vqlm\":\"totals\"}\n",
		"{\"id\":\"0\",\"task\":\"piqa\",\"context\":\"c\",\"choices\":[\" a\",\" "
		"b\"],\"answer\":1}\n",
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		replay(fuzz_answers, "answers", (const uint8_t *)files[i], strlen(files[i]), 700);
	replay_found(fuzz_answers, 200);
	figure("answers");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pictures),      cmocka_unit_test(tokenizers),
		cmocka_unit_test(data_sets),     cmocka_unit_test(safetensors),
		cmocka_unit_test(checkpoints),   cmocka_unit_test(streams),
		cmocka_unit_test(packed_models), cmocka_unit_test(torch_files),
		cmocka_unit_test(archives),      cmocka_unit_test(configurations),
		cmocka_unit_test(answers),       cmocka_unit_test(gguf_files),
	};

	vq_log_setup("test_fuzz", 0); /* damaged JPEGs warn */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
