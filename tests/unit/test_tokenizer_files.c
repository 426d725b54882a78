/* format/tokenizer: what the two kinds of file may say, any input, bad files. */
#include "tokenizer_help.h"

#include "base/rng.h"
#include "base/utf8.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(merges_go_by_rank_and_the_leftmost_first),
		cmocka_unit_test(the_prefix_follows_the_file),
		cmocka_unit_test(added_tokens_are_found_the_longest_first_with_their_flags),
		cmocka_unit_test(the_newer_llama_way_puts_one_prefix_first),
		cmocka_unit_test(any_bytes_are_encoded_and_come_back_as_valid_text),
		cmocka_unit_test(a_tokenizer_file_cut_anywhere_is_refused_or_complete),
		cmocka_unit_test(a_damaged_model_file_never_crashes),
		cmocka_unit_test(unsupported_and_bad_tokenizers_are_refused_with_the_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
