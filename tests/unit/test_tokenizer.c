/* format/tokenizer: token ids against sentencepiece and llama.cpp, decoding, both file kinds, bad files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "format/dataset.h"
#include "format/tokenizer.h"

#define MINI   "pipelines/demo/mini-llava/"
#define SQA    "pipelines/demo/mini-sqa/"
#define PYTHON "/usr/bin/python3 tests/vectors/tokenizer_ref.py"

static const char *llama_model(void)
{
	static char path[512];
	const char *d = getenv("VQLM_DATA");

	snprintf(path, sizeof(path), "%s/tokenizers/llama.model", d ? d : "../shared/data");
	return path;
}

static int have_llama(void)
{
	if (access(llama_model(), R_OK) == 0)
		return 1;
	print_message("# SKIP no tokenizers/llama.model under VQLM_DATA\n");
	return 0;
}

static struct vq_tokenizer *open_file(const char *path, const char *side)
{
	struct vq_tokenizer *t = NULL;
	struct vq_err err = {0};
	char *data, *more = NULL;
	size_t n, n_more = 0;

	assert_int_equal(vq_file_read(path, 1 << 28, VQ_E_SYS, &data, &n, &err), VQ_OK);
	if (side)
		assert_int_equal(vq_file_read(side, 1 << 28, VQ_E_SYS, &more, &n_more, &err),
				 VQ_OK);
	if (vq_tokenizer_new(&t, data, n, path, more, n_more, &err) < 0)
		fail_msg("%s", err.text);
	vq_free(data);
	vq_free(more);
	return t;
}

static struct vq_tokenizer *mini_json(void)
{
	return open_file(MINI "tokenizer.json", MINI "tokenizer_config.json");
}

static struct vq_tokenizer *mini_model(void)
{
	return open_file(MINI "tokenizer.model", MINI "tokenizer_config.json");
}

static int32_t *encode(const struct vq_tokenizer *t, const char *text, size_t n, int bos, size_t *k)
{
	struct vq_err err = {0};
	int32_t *ids;

	if (vq_tokenizer_encode(t, text, n, bos, &ids, k, &err) < 0)
		fail_msg("%s", err.text);
	return ids;
}

/* The ids of text must be those written as decimal words. */
static void expect_ids(const struct vq_tokenizer *t, const char *text, size_t n, int bos,
		       const char *want)
{
	char *end;
	size_t k, i;
	int32_t *ids = encode(t, text, n, bos, &k);

	for (i = 0;; i++) {
		long id = strtol(want, &end, 10);

		if (end == want)
			break;
		if (i >= k || ids[i] != id)
			fail_msg("'%.*s': id %zu is %d, want %ld", (int)n, text, i,
				 i < k ? ids[i] : -1, id);
		want = end;
	}
	assert_int_equal(i, k);
	vq_free(ids);
}

static void expect(const struct vq_tokenizer *t, const char *text, const char *want)
{
	expect_ids(t, text, strlen(text), 0, want);
}

static void llama_ids_equal_the_vectors_of_llama_cpp(void **state)
{
	static const char mark[] = "\n__ggml_vocab_test__\n";
	char path[600], *in, *out, *p, *line;
	struct vq_tokenizer *t;
	size_t n_in, n_out;
	int n = 0;

	(void)state;
	if (!have_llama())
		skip();
	t = open_file(llama_model(), NULL);
	snprintf(path, sizeof(path), "%.*sggml-vocab-llama-spm.gguf.inp",
		 (int)(strrchr(llama_model(), '/') + 1 - llama_model()), llama_model());
	assert_int_equal(vq_file_read(path, 1 << 20, VQ_E_SYS, &in, &n_in, NULL), VQ_OK);
	memcpy(strrchr(path, '.'), ".out", 5);
	assert_int_equal(vq_file_read(path, 1 << 20, VQ_E_SYS, &out, &n_out, NULL), VQ_OK);
	for (p = in, line = out; p; n++) {
		char *end = strstr(p, mark), *eol = strchr(line, '\n');

		if (eol)
			*eol = '\0';
		expect_ids(t, p, end ? (size_t)(end - p) : strlen(p), 0, line);
		line = eol ? eol + 1 : line + strlen(line);
		p = end ? end + sizeof(mark) - 1 : NULL;
	}
	assert_true(n > 40);
	print_message("# figure: %d of %d llama-spm vectors token-identical\n", n, n);
	vq_free(in);
	vq_free(out);
	vq_tokenizer_free(t);
}

/* Every line "text in hexadecimal, tab, ids" that the command prints. */
static int compare_live(const struct vq_tokenizer *t, const char *command, int bos)
{
	static char line[1 << 18], text[1 << 16];
	FILE *f = popen(command, "r");
	int n = 0;

	assert_non_null(f);
	for (; fgets(line, sizeof(line), f); n++) {
		char *tab = strchr(line, '\t');
		size_t i, len;

		assert_non_null(tab);
		len = (size_t)(tab - line) / 2;
		for (i = 0; i < len; i++) {
			char hex[3] = {line[2 * i], line[2 * i + 1], 0};

			text[i] = (char)strtol(hex, NULL, 16);
		}
		expect_ids(t, text, len, bos, tab + 1);
	}
	assert_int_equal(pclose(f), 0);
	return n;
}

static int have_sentencepiece(void)
{
	if (system("/usr/bin/python3 -c 'import sentencepiece, numpy' 2>/dev/null") == 0)
		return 1;
	print_message("# SKIP python3-sentencepiece is not installed\n");
	return 0;
}

static void demo_prompts_equal_sentencepiece(void **state)
{
	struct vq_tokenizer *json = mini_json(), *model = mini_model();
	int n;

	(void)state;
	if (!have_sentencepiece())
		skip();
	n = compare_live(json, PYTHON " " MINI "tokenizer.model prompts " SQA "llava_*.json", 1);
	assert_int_equal(n, 2556);
	n += compare_live(model, PYTHON " " MINI "tokenizer.model prompts " SQA "llava_*.json", 1);
	print_message("# figure: %d encodings of the demo prompts token-identical to sentencepiece "
		      "(tokenizer.json and tokenizer.model)\n",
		      n);
	vq_tokenizer_free(json);
	vq_tokenizer_free(model);
}

static void random_texts_equal_sentencepiece(void **state)
{
	struct vq_tokenizer *t = open_file(MINI "tokenizer.model", NULL);
	char command[800];
	int n;

	(void)state;
	if (!have_sentencepiece())
		skip();
	n = compare_live(t, PYTHON " " MINI "tokenizer.model random 2000", 0);
	vq_tokenizer_free(t);
	if (have_llama()) {
		t = open_file(llama_model(), NULL);
		snprintf(command, sizeof(command), PYTHON " '%s' random 4000", llama_model());
		n += compare_live(t, command, 0);
		vq_tokenizer_free(t);
	}
	assert_true(n >= 2000);
	print_message("# figure: %d random texts token-identical to sentencepiece\n", n);
}

static char *demo_prompt(const struct vq_item *it)
{
	struct vq_str b = {0};

	vq_str_printf(&b, "USER: %s ASSISTANT:", it->text);
	assert_false(b.failed);
	return b.s;
}

static void demo_prompts_equal_the_stored_hashes_with_both_files(void **state)
{
	struct vq_tokenizer *t[2] = {mini_json(), mini_model()};
	FILE *f = fopen("tests/vectors/tokens.tsv", "r");
	char line[512], *rest, hex[VQ_SHA256_HEX];
	int files = 0, k;

	(void)state;
	assert_non_null(f);
	for (; fgets(line, sizeof(line), f); files++) {
		const char *name = strtok_r(line, "\t", &rest);
		const char *count = strtok_r(NULL, "\t", &rest),
			   *want = strtok_r(NULL, "\n", &rest);

		for (k = 0; k < 2; k++) {
			struct vq_dataset d;
			struct sha256_ctx h;
			size_t n;
			uint32_t i;

			sha256_init(&h);
			assert_int_equal(vq_dataset_open(&d, name, NULL, NULL), VQ_OK);
			assert_int_equal(d.n, strtol(count, NULL, 10));
			for (i = 0; i < d.n; i++) {
				char *text = demo_prompt(&d.items[i]);
				int32_t *ids = encode(t[k], text, strlen(text), 1, &n);

				sha256_update(&h, 4 * n, (uint8_t *)ids);
				vq_free(ids);
				free(text);
			}
			vq_sha256_hex(&h, hex);
			assert_string_equal(hex, want);
			vq_dataset_close(&d);
		}
	}
	fclose(f);
	assert_int_equal(files, 3);
	vq_tokenizer_free(t[0]);
	vq_tokenizer_free(t[1]);
}

static void decoding_gives_the_text_back(void **state)
{
	struct vq_tokenizer *t = mini_json();
	struct vq_dataset d;
	uint32_t i;

	(void)state;
	assert_int_equal(vq_dataset_open(&d, SQA "llava_val_CQM-A.json", NULL, NULL), VQ_OK);
	for (i = 0; i < d.n; i++) {
		const char *text = d.items[i].text;
		size_t n;
		int32_t *ids;
		char *back;

		if (strncmp(text, "<image>", 7) == 0)
			text += 7;
		ids = encode(t, text, strlen(text), 1, &n);
		back = vq_tokenizer_decode(t, ids, n, NULL);
		assert_string_equal(back, text);
		vq_free(back);
		vq_free(ids);
	}
	vq_dataset_close(&d);
	vq_tokenizer_free(t);
}

static void a_stream_of_tokens_never_cuts_a_character(void **state)
{
	struct vq_tokenizer *t = mini_model();
	static const char text[] =
		"A \xc3\xa9 \xf0\x9f\xa6\x99 b"; /* both characters are bytes here */
	struct vq_token_stream s = {0};
	struct vq_str b = {0};
	size_t n, i, at;
	int32_t *ids = encode(t, text, strlen(text), 1, &n);
	int held = 0, c;

	(void)state;
	for (i = 0; i < n; i++) {
		vq_token_stream_push(&s, t, ids[i], &b);
		held += s.n_held > 0;
		for (at = 0; at < b.n; at += (size_t)c) {
			c = vq_utf8_next(b.s + at, b.n - at, NULL);
			assert_true(c > 0);
		}
	}
	vq_token_stream_end(&s, &b);
	assert_string_equal(b.s, text);
	assert_int_equal(held,
			 1 + 3); /* after the first of two bytes, and the first three of four */
	b.n = 0;
	vq_token_stream_push(&s, t, vq_tokenizer_id(t, "<0xF0>"), &b);
	vq_token_stream_push(&s, t, vq_tokenizer_id(t, "<0x9F>"), &b);
	vq_token_stream_push(&s, t,
			     vq_tokenizer_id(t, "\xe2\x96\x81"
						"A"),
			     &b);
	vq_token_stream_push(&s, t, vq_tokenizer_id(t, "<0x00>"), &b);
	vq_token_stream_end(&s, &b);
	assert_string_equal(b.s, "\xef\xbf\xbd\xef\xbf\xbd A\xef\xbf\xbd");
	vq_str_free(&b);
	vq_free(ids);
	vq_tokenizer_free(t);
}

static void pieces_and_names_of_tokens(void **state)
{
	struct vq_tokenizer *t = mini_json();
	int32_t a = vq_tokenizer_id(t, "\xe2\x96\x81"
				       "A");
	size_t n;

	(void)state;
	assert_int_equal(a, 259);
	assert_string_equal(vq_tokenizer_piece(t, a, &n), " A");
	assert_int_equal(n, 2);
	assert_string_equal(vq_tokenizer_piece(t, vq_tokenizer_id(t, "<0x0A>"), &n), "\n");
	assert_string_equal(vq_tokenizer_piece(t, vq_tokenizer_id(t, "<image>"), &n), "");
	assert_string_equal(vq_tokenizer_piece(t, -1, &n), "");
	assert_string_equal(vq_tokenizer_piece(t, 1 << 30, &n), "");
	assert_int_equal(vq_tokenizer_id(t, "no such token"), -1);
	assert_int_equal(vq_tokenizer_size(t), 1024);
	assert_int_equal(vq_tokenizer_bos(t), 1);
	assert_int_equal(vq_tokenizer_eos(t), 2);
	vq_tokenizer_free(t);
}

/* A small tokenizer.json with the given members; ids: a 0, b 1, ab 2, ▁ 3, ▁a 4, <unk> 5, abb 6. */
static struct vq_tokenizer *small(const char *members, const char *model_members)
{
	struct vq_str b = {0};
	struct vq_tokenizer *t = NULL;
	struct vq_err err = {0};

	vq_str_printf(&b,
		      "{%s \"model\": {\"type\": \"BPE\", \"unk_token\": \"<unk>\", %s \"vocab\": "
		      "{\"a\": 0, \"b\": 1, \"ab\": 2, \"\xe2\x96\x81\": 3, \"\xe2\x96\x81"
		      "a\": 4, \"<unk>\": 5, \"abb\": 6}, \"merges\": [\"a b\", [\"\xe2\x96\x81\", "
		      "\"a\"], [\"ab\", \"b\"]]}}",
		      members, model_members);
	if (vq_tokenizer_new(&t, b.s, b.n, "small", NULL, 0, &err) < 0)
		fail_msg("%s", err.text);
	vq_str_free(&b);
	return t;
}

static void merges_go_by_rank_and_the_leftmost_first(void **state)
{
	struct vq_tokenizer *t = small("", "");

	(void)state;
	expect(t, "abab", "2 2");
	expect(t, "aabbb", "0 6 1");
	expect(t, "axxb", "0 5 5 1");
	expect(t, "", "");
	vq_tokenizer_free(t);
	t = small("", "\"fuse_unk\": true,");
	expect(t, "axxb", "0 5 1");
	vq_tokenizer_free(t);
	t = small("", "\"ignore_merges\": true,");
	expect(t, "abb", "6");
	vq_tokenizer_free(t);
}

#define META_OF(x) \
	"\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\xe2\x96\x81\", " x "},"
#define IMAGE_TOKEN "\"added_tokens\": [{\"id\": 9, \"content\": \"<i>\", \"special\": true}],"

static void the_prefix_follows_the_file(void **state)
{
	struct vq_tokenizer *t;

	(void)state;
	t = small(
		"\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": "
		"\"Prepend\", \"prepend\": \"\xe2\x96\x81\"}, {\"type\": \"Replace\", \"pattern\": "
		"{\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"}]}," IMAGE_TOKEN,
		"");
	expect(t, "a<i>a a", "4 9 4 4");
	expect(t, " a", "3 4"); /* Prepend adds one even so */
	vq_tokenizer_free(t);
	t = small(META_OF("\"prepend_scheme\": \"always\"") IMAGE_TOKEN, "");
	expect(t, "a<i>a a", "4 9 4 4");
	expect(t, " a", "4"); /* Metaspace does not */
	vq_tokenizer_free(t);
	t = small(META_OF("\"prepend_scheme\": \"first\"") IMAGE_TOKEN, "");
	expect(t, "a<i>a a", "4 9 0 4");
	expect(t, "<i>a", "9 0");
	vq_tokenizer_free(t);
	t = small(META_OF("\"add_prefix_space\": false") IMAGE_TOKEN, "");
	expect(t, "a<i>a a", "0 9 0 4");
	vq_tokenizer_free(t);
}

static void added_tokens_are_found_the_longest_first_with_their_flags(void **state)
{
	struct vq_tokenizer *t = small(
		"\"added_tokens\": [{\"id\": 9, \"content\": \"<i>\", \"lstrip\": true}, {\"id\": "
		"10, \"content\": \"<i>b\", \"rstrip\": true}, {\"id\": 11, \"content\": \"B\", "
		"\"single_word\": true}],",
		"");

	(void)state;
	expect(t, "a <i>a", "0 9 0");
	expect(t, "a<i>b \n a", "0 10 0");
	expect(t, "a B", "0 5 11");
	expect(t, "BaB\xc3\xa9", "5 0 5 5");
	vq_tokenizer_free(t);
}

static void the_newer_llama_way_puts_one_prefix_first(void **state)
{
	static const char side[] = "{\"legacy\": false, \"added_tokens_decoder\": {\"1022\": "
				   "{\"content\": \"<image>\", \"special\": true}}}";
	struct vq_tokenizer *t, *legacy = mini_model();
	char *data;
	size_t n, k, m;
	int32_t *a, *b;

	(void)state;
	assert_int_equal(vq_file_read(MINI "tokenizer.model", 1 << 20, VQ_E_SYS, &data, &n, NULL),
			 VQ_OK);
	assert_int_equal(vq_tokenizer_new(&t, data, n, "mini", side, strlen(side), NULL), VQ_OK);
	a = encode(t, "USER: <image>\nWhat", 18, 1, &k);
	b = encode(legacy, "USER: <image>\nWhat", 18, 1, &m);
	assert_int_equal(k + 1, m); /* no "▁" before the line end */
	assert_memory_equal(a, b, 4 * 3);
	vq_free(a);
	vq_free(b);
	vq_free(data);
	vq_tokenizer_free(t);
	vq_tokenizer_free(legacy);
}

static void any_bytes_are_encoded_and_come_back_as_valid_text(void **state)
{
	struct vq_tokenizer *t[2] = {mini_json(), mini_model()};
	struct vq_rng r = vq_rng_new(7, "bytes");
	char text[64], *back[2];
	int round, k;

	(void)state;
	for (round = 0; round < 3000; round++) {
		size_t n = vq_rng_u64(r, (uint64_t)round * 65) % sizeof(text), i, len;
		struct vq_str want = {0};

		for (i = 0; i < n; i++)
			text[i] = (char)(vq_rng_u64(r, (uint64_t)round * 65 + i + 1) % 255 + 1);
		for (i = 0; i < n; i += len) {
			int c = vq_utf8_next(text + i, n - i, NULL);

			len = c < 1 ? 1 : (size_t)c;
			vq_str_add(&want, c < 1 ? "\xef\xbf\xbd" : text + i, c < 1 ? 3 : len);
		}
		for (k = 0; k < 2; k++) {
			size_t n_ids;
			int32_t *ids = encode(t[k], text, n, 0, &n_ids);

			back[k] = vq_tokenizer_decode(t[k], ids, n_ids, NULL);
			assert_string_equal(back[k], want.s ? want.s : "");
			vq_free(ids);
			vq_free(back[k]);
		}
		vq_str_free(&want);
	}
	vq_tokenizer_free(t[0]);
	vq_tokenizer_free(t[1]);
}

static void a_tokenizer_file_cut_anywhere_is_refused_or_complete(void **state)
{
	struct vq_tokenizer *t, *whole = mini_model();
	char *data;
	size_t n, cut, k, m;
	int32_t *want = encode(whole, "What is it?\nA. b", 16, 1, &m), *got;
	int accepted = 0;

	(void)state;
	assert_int_equal(vq_file_read(MINI "tokenizer.model", 1 << 20, VQ_E_SYS, &data, &n, NULL),
			 VQ_OK);
	for (cut = 0; cut < n; cut += cut < n - 600 ? 13 : 1) {
		if (vq_tokenizer_new(&t, data, cut, "cut", NULL, 0, NULL) < 0)
			continue;
		accepted++; /* only fields that do not matter can be missing */
		got = encode(t, "What is it?\nA. b", 16, 1, &k);
		assert_int_equal(k, m);
		assert_memory_equal(got, want, 4 * m);
		vq_free(got);
		vq_tokenizer_free(t);
	}
	assert_true(accepted <= 2);
	vq_free(data);
	assert_int_equal(vq_file_read(MINI "tokenizer.json", 1 << 20, VQ_E_SYS, &data, &n, NULL),
			 VQ_OK);
	for (cut = 0; cut + 1 < n; cut += 501)
		assert_int_equal(vq_tokenizer_new(&t, data, cut, "cut", NULL, 0, NULL), VQ_E_DATA);
	vq_free(data);
	vq_free(want);
	vq_tokenizer_free(whole);
}

static void a_damaged_model_file_never_crashes(void **state)
{
	struct vq_rng r = vq_rng_new(3, "damage");
	struct vq_tokenizer *t;
	char *data, *copy;
	size_t n, k;
	int round, i;

	(void)state;
	assert_int_equal(vq_file_read(MINI "tokenizer.model", 1 << 20, VQ_E_SYS, &data, &n, NULL),
			 VQ_OK);
	copy = vq_alloc(n, 1, NULL);
	for (round = 0; round < 400; round++) {
		memcpy(copy, data, n);
		for (i = 0; i < 4; i++)
			copy[1 + vq_rng_u64(r, (uint64_t)round * 8 + (uint64_t)i) % (n - 1)] =
				(char)vq_rng_u64(r, (uint64_t)round * 8 + 4 + (uint64_t)i);
		if (vq_tokenizer_new(&t, copy, n, "damaged", NULL, 0, NULL) == VQ_OK) {
			vq_free(encode(t, "What is it?\nA. \xe8\xaa\x9e", 18, 1, &k));
			vq_tokenizer_free(t);
		}
	}
	vq_free(copy);
	vq_free(data);
}

static void unsupported_and_bad_tokenizers_are_refused_with_the_reason(void **state)
{
	static const char *const bad[][2] = {
		{"{\"model\": {\"type\": \"WordPiece\"}}", "got model 'WordPiece'"},
		{"{\"model\": {\"type\": \"Unigram\"}}", "got model 'Unigram'"},
		{"{}", "got model 'none'"},
		{"{\"model\": {\"type\": \"BPE\"}}", "'vocab'"},
		{"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}",
		 "merge 0 of 'a' and 'b'"},
		{"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a\"]}}",
		 "merge 0: want"},
		{"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": "
		 "[]}}",
		 "id 0 is 'a' and 'b'"},
		{"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 99999999}, \"merges\": []}}",
		 "want an id of 0..1048575"},
		{"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}}",
		 "neither byte fallback nor an unknown token"},
		{"{\"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": {\"a\": 0}, "
		 "\"merges\": []}}",
		 "without the token <0x00>"},
		{"{\"model\": {\"type\": \"BPE\", \"unk_token\": \"a\", \"vocab\": {\"a\": 0}, "
		 "\"merges\": []}, \"pre_tokenizer\": {\"type\": \"ByteLevel\"}}",
		 "pre-tokenizer 'ByteLevel' (byte-level BPE)"},
		{"{\"model\": {\"type\": \"BPE\", \"unk_token\": \"a\", \"vocab\": {\"a\": 0}, "
		 "\"merges\": []}, \"normalizer\": {\"type\": \"NFKC\"}}",
		 "normalizer 'NFKC'"},
		{"{\"model\": {\"type\": \"BPE\", \"unk_token\": \"a\", \"vocab\": {\"a\": 0}, "
		 "\"merges\": []}, \"added_tokens\": [{\"id\": 1, \"content\": \"a\"}]}",
		 "token 'a' has two ids, 0 and 1"},
		{"", "empty file"},
		{"GGUF", "want tokenizer.json or a SentencePiece model"},
		{"\n\x02\n\x01", "piece 0"},
	};
	struct vq_tokenizer *t;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct vq_err err = {0};

		assert_int_equal(
			vq_tokenizer_new(&t, bad[i][0], strlen(bad[i][0]), "f", NULL, 0, &err),
			VQ_E_DATA);
		if (!strstr(err.text, bad[i][1]) || strncmp(err.text, "f: ", 3) != 0)
			fail_msg("%zu: '%s' does not say '%s'", i, err.text, bad[i][1]);
	}
}

static void a_megabyte_is_encoded_in_less_than_quadratic_time(void **state)
{
	struct vq_tokenizer *t = mini_json();
	size_t n = (size_t)1 << 20, k, i;
	char *text = vq_alloc(n, 1, NULL);
	double t0, small_s, big_s;

	(void)state;
	for (i = 0; i < n; i++)
		text[i] = "hehaesthe "[vq_rng_u64(vq_rng_new(1, "text"), i) % 10];
	t0 = vq_now();
	vq_free(encode(t, text, n / 16, 0, &k));
	small_s = vq_now() - t0;
	t0 = vq_now();
	vq_free(encode(t, text, n, 0, &k));
	big_s = vq_now() - t0;
	assert_true(big_s < 16 * 16 * small_s / 3); /* quadratic would be 256 times as long */
	print_message("# figure: tokenizer: %.1f MB/s on one stretch of 1 MiB\n",
		      (double)n / big_s / 1e6);
	vq_free(text);
	vq_tokenizer_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(llama_ids_equal_the_vectors_of_llama_cpp),
		cmocka_unit_test(demo_prompts_equal_sentencepiece),
		cmocka_unit_test(random_texts_equal_sentencepiece),
		cmocka_unit_test(demo_prompts_equal_the_stored_hashes_with_both_files),
		cmocka_unit_test(decoding_gives_the_text_back),
		cmocka_unit_test(a_stream_of_tokens_never_cuts_a_character),
		cmocka_unit_test(pieces_and_names_of_tokens),
		cmocka_unit_test(merges_go_by_rank_and_the_leftmost_first),
		cmocka_unit_test(the_prefix_follows_the_file),
		cmocka_unit_test(added_tokens_are_found_the_longest_first_with_their_flags),
		cmocka_unit_test(the_newer_llama_way_puts_one_prefix_first),
		cmocka_unit_test(any_bytes_are_encoded_and_come_back_as_valid_text),
		cmocka_unit_test(a_tokenizer_file_cut_anywhere_is_refused_or_complete),
		cmocka_unit_test(a_damaged_model_file_never_crashes),
		cmocka_unit_test(unsupported_and_bad_tokenizers_are_refused_with_the_reason),
		cmocka_unit_test(a_megabyte_is_encoded_in_less_than_quadratic_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
