/* format/tokenizer, byte-level BPE: ids and texts against the tokenizers library itself, flags, form C, hostile patterns. */
#include <stdio.h>
#include <unistd.h>

#include "tokenizer_help.h"

#include "base/log.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "format/gguf_tok.h"
#include "format/nfc.h"
#include "format/pretoken.h"

#define FOLDER "tests/data/tokenizer/"

static size_t from_hex(char *out, const char *hex)
{
	size_t n = 0;

	for (; hex[0] && hex[0] != '-' && hex[0] != '\n'; hex += 2, n++) {
		char two[3] = {hex[0], hex[1], 0};

		out[n] = (char)strtol(two, NULL, 16);
	}
	out[n] = '\0';
	return n;
}

static void expect_text(const struct vq_tokenizer *t, const char *ids_text, const char *want)
{
	int32_t ids[4096];
	size_t n = 0;
	char *end, *got;
	long id;

	for (; id = strtol(ids_text, &end, 10), end != ids_text; ids_text = end)
		ids[n++] = (int32_t)id;
	got = vq_tokenizer_decode(t, ids, n, NULL);
	assert_string_equal(got, want);
	vq_free(got);
}

/* Lines "file, text, ids, text of the ids" for tokenizers of `folder`. */
static int compare_lines(FILE *f, const char *folder)
{
	static char line[1 << 16], text[1 << 14], back[1 << 14];
	struct vq_tokenizer *t = NULL;
	char open[256] = "", path[512];
	int n = 0;

	for (; fgets(line, sizeof(line), f); n++) {
		char *save, *name = strtok_r(line, "\t", &save), *hex = strtok_r(NULL, "\t", &save);
		/* strtok would swallow an empty list of ids */
		char *ids = save, *after = strchr(save, '\t');
		size_t len = from_hex(text, hex);

		*after = '\0';
		if (strcmp(open, name) != 0) {
			vq_tokenizer_free(t);
			snprintf(path, sizeof(path), "%s%s", folder, name);
			t = open_file(path, NULL);
			snprintf(open, sizeof(open), "%s", name);
		}
		expect_ids(t, text, len, 1, ids);
		from_hex(back, after + 1);
		/* The library takes an added token of one byte's character for that byte. */
		if (!strstr(text, "n\xc3\xa9") && !strstr(text, "ne\xcc\x81"))
			expect_text(t, ids, back);
	}
	vq_tokenizer_free(t);
	return n;
}

static void ids_and_texts_equal_the_vectors_of_the_tokenizers_library(void **state)
{
	FILE *f = fopen("tests/vectors/bpe.tsv", "r");

	(void)state;
	assert_non_null(f);
	assert_int_equal(compare_lines(f, FOLDER), 320);
	fclose(f);
}

static void fresh_random_texts_equal_the_tokenizers_library(void **state)
{
	const char *lib = getenv("NODE_TOKENIZERS");
	char command[1024];
	FILE *f;
	int n;

	(void)state;
	if (!lib || access(lib, R_OK) != 0) {
		print_message("# SKIP NODE_TOKENIZERS names no folder of @anush008/tokenizers\n");
		skip();
	}
	snprintf(command, sizeof(command),
		 "node tests/vectors/bpe_ref.mjs '%s' %d 1500 " FOLDER "good-*.json", lib,
		 (int)getpid());
	f = popen(command, "r");
	assert_non_null(f);
	n = compare_lines(f, FOLDER);
	assert_int_equal(pclose(f), 0);
	assert_int_equal(n, 6000);
	print_message("# figure: %d random texts identical to the tokenizers library (seed %d)\n",
		      n, (int)getpid());
}

/* A tokenizer.json of the bytes alone, with the given members. */
static int bytes_only(struct vq_tokenizer **t, const char *members, struct vq_err *err)
{
	struct vq_str b = {0};
	char c[3];
	int i, rc;

	vq_str_printf(&b,
		      "{%s, \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": "
		      "\"BPE\", \"merges\": [], \"vocab\": {",
		      members);
	for (i = 33; i < 256; i++) {
		int n = i < 128 ? snprintf(c, sizeof(c), "%c", i)
				: snprintf(c, sizeof(c), "%c%c", 0xc0 | i >> 6, 0x80 | (i & 63));

		if (i != '"' && i != '\\' && i != 173 && (i < 127 || i > 160))
			vq_str_printf(&b, "\"%.*s\": %d, ", n, c, i);
	}
	vq_str_puts(&b, "\"\xc4\xa0\": 32}}}");
	rc = vq_tokenizer_new(t, b.s, b.n, "bytes", NULL, 0, err);
	vq_str_free(&b);
	return rc;
}

static void a_pattern_that_backtracks_without_end_is_refused(void **state)
{
	static const char text[] =
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!=";
	struct vq_tokenizer *t;
	struct vq_err err = {0};
	int32_t *ids;
	size_t n;

	(void)state;
	assert_int_equal(bytes_only(&t,
				    "\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": "
				    "{\"Regex\": \"(a|aa|a\\\\w)+=\"}, \"behavior\": \"Isolated\"}",
				    &err),
			 VQ_OK);
	assert_int_equal(vq_tokenizer_encode(t, text, strlen(text), 0, &ids, &n, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "pattern cannot cut a text of 66 bytes"));
	vq_tokenizer_free(t);
}

static void a_long_text_takes_linear_time(void **state)
{
	struct vq_tokenizer *t = open_file(FOLDER "good-nfc-bos.json", NULL);
	static const char *const units[] = {" ", "a",  "\xcc\xa3\xcc\x81",
					    "1", "\n", "\xf0\x9f\xa6\x99"};
	size_t k, n, i, len = 1 << 20;
	char *text = vq_alloc(len + 8, 1, NULL);
	double t0 = vq_now();

	(void)state;
	for (k = 0; k < sizeof(units) / sizeof(*units); k++) {
		size_t u = strlen(units[k]);

		for (i = 0; i + u <= len; i += u)
			memcpy(text + i, units[k], u);
		vq_free(encode(t, text, i, 0, &n));
		assert_true(n > 0);
	}
	print_message("# figure: 6 texts of 1 MiB of one character in %.2f s\n", vq_now() - t0);
	assert_true(vq_now() - t0 < 60); /* a quadratic step would take hours */
	vq_free(text);
	vq_tokenizer_free(t);
}

static void form_c_is_that_of_the_standard(void **state)
{
	/* From UAX #15: composition, exclusions, order of marks, Hangul. */
	static const char *const cases[][2] = {
		{"e\xcc\x81", "\xc3\xa9"},
		{"\xe2\x84\xab", "\xc3\x85"},
		{"s\xcc\x87\xcc\xa3", "\xe1\xb9\xa9"},
		{"s\xcc\xa3\xcc\x87", "\xe1\xb9\xa9"},
		{"\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"},
		{"\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"},
		{"\xef\xac\x81", "\xef\xac\x81"},
		{"plain", "plain"},
		{"", ""},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct vq_str out = {0};

		assert_int_equal(vq_nfc(cases[i][0], strlen(cases[i][0]), &out, NULL), VQ_OK);
		assert_string_equal(out.s ? out.s : "", cases[i][1]);
		vq_str_free(&out);
	}
}

static void tokens_stream_out_as_whole_characters(void **state)
{
	struct vq_tokenizer *t = open_file(FOLDER "good-gpt2.json", NULL);
	static const char text[] = "na\xc3\xafve \xf0\x9f\xa6\x99\xe8\xaa\x9e!";
	struct vq_token_stream s = {0};
	struct vq_str out = {0};
	size_t n, i, k, c;
	int32_t *ids = encode(t, text, strlen(text), 1, &n);

	(void)state;
	for (i = 0; i < n; i++) {
		vq_token_stream_push(&s, t, ids[i], &out);
		for (k = 0; k < out.n; k += c) {
			c = (size_t)vq_utf8_next(out.s + k, out.n - k, NULL);
			assert_in_range(c, 1, 4);
		}
	}
	vq_token_stream_end(&s, &out);
	assert_string_equal(out.s + 1, text); /* the prefix space stays, as in the library */
	vq_str_free(&out);
	memset(&s, 0, sizeof(s));
	vq_token_stream_push(&s, t, 0xf0, &out); /* ids below 256 are the bytes */
	vq_token_stream_push(&s, t, 0x9f, &out);
	vq_token_stream_push(&s, t, 'A', &out);
	vq_token_stream_push(&s, t, 0xe8, &out);
	vq_token_stream_end(&s, &out);
	assert_string_equal(out.s, "\xef\xbf\xbd"
				   "A\xef\xbf\xbd"); /* one for all bytes of what was begun */
	vq_str_free(&out);
	vq_free(ids);
	assert_int_equal(vq_tokenizer_bos(t), -1);
	vq_tokenizer_free(t);
}

static void any_bytes_are_encoded_and_come_back_as_valid_text(void **state)
{
	static const char *const files[] = {"good-gpt2.json", "good-cuts.json",
					    "good-nfc-bos.json"};
	struct vq_rng r = vq_rng_new(7, "bytes");
	char text[64], *back;
	int32_t *ids;
	size_t k, n, i, n_ids;
	int round;

	(void)state;
	for (k = 0; k < 3; k++) {
		char path[128];
		struct vq_tokenizer *t;

		snprintf(path, sizeof(path), FOLDER "%s", files[k]);
		t = open_file(path, NULL);
		for (round = 0; round < 500; round++) {
			n = vq_rng_u64(r, (uint64_t)round * 100) % sizeof(text);
			for (i = 0; i < n; i++)
				text[i] = (char)vq_rng_u64(r, (uint64_t)round * 100 + 1 + i);
			ids = encode(t, text, n, 0, &n_ids);
			back = vq_tokenizer_decode(t, ids, n_ids, NULL);
			for (i = 0; back[i];
			     i += (size_t)vq_utf8_next(back + i, strlen(back + i), NULL))
				assert_true(vq_utf8_next(back + i, strlen(back + i), NULL) > 0);
			vq_free(back);
			vq_free(ids);
		}
		vq_tokenizer_free(t);
	}
}

static void what_is_not_supported_is_refused_with_the_reason(void **state)
{
	static const char *const bad[][2] = {
		{"\"normalizer\": {\"type\": \"Lowercase\"}",
		 "want no normalizer or NFC, got 'Lowercase'"},
		{"\"pre_tokenizer\": {\"type\": \"Punctuation\"}", "got 'Punctuation'"},
		{"\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(a\"}, "
		 "\"behavior\": \"Isolated\"}",
		 "pattern '(a': missing closing parenthesis"},
		{"\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\\\\C\"}, "
		 "\"behavior\": \"Isolated\"}",
		 "pattern 'a\\C'"},
		{"\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\"}, "
		 "\"behavior\": \"Sideways\"}",
		 "'Sideways'"},
		{"\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"\"}, "
		 "\"behavior\": \"Isolated\"}",
		 "want a pattern of 1..65536 bytes, got 0"},
		{"\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\"}",
		 "want a pattern"},
		{"\"pre_tokenizer\": {\"type\": \"Digits\", \"individual_digits\": 3}",
		 "individual_digits"},
	};
	struct vq_tokenizer *t;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct vq_err err = {0};

		assert_int_equal(bytes_only(&t, bad[i][0], &err), VQ_E_DATA);
		if (!strstr(err.text, bad[i][1]) || strncmp(err.text, "bytes: ", 7) != 0)
			fail_msg("%zu: '%s' does not say '%s'", i, err.text, bad[i][1]);
	}
}

/* llama.cpp's names: by pattern, digits, form C and what becomes of words that are tokens. */
static void a_way_to_cut_has_the_name_of_its_own_or_none(void **state)
{
	static const struct {
		const char *file, *name;
	} cases[] = {
		{"good-digits.json", "smollm"},
		{"good-nfc-bos.json",
		 NULL},                   /* Qwen 2's pattern, but words that are tokens stay one */
		{"good-gpt2.json", NULL}, /* a space before the text, too */
		{"good-cuts.json", NULL},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vq_err err = {0};
		char path[256];
		const char *name = NULL;
		struct vq_tokenizer *t;

		snprintf(path, sizeof(path), FOLDER "%s", cases[i].file);
		t = open_file(path, NULL);
		if (cases[i].name) {
			assert_int_equal(vq_gguf_pre_name(&name, t, "x", &err), VQ_OK);
			assert_string_equal(name, cases[i].name);
		} else {
			assert_int_equal(vq_gguf_pre_name(&name, t, "x", &err), VQ_E_DATA);
			assert_non_null(strstr(err.text,
					       "x: tokenizer.json cuts texts in a way that "
					       "GGUF has no name for (it has llama-bpe, "));
		}
		vq_tokenizer_free(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids_and_texts_equal_the_vectors_of_the_tokenizers_library),
		cmocka_unit_test(fresh_random_texts_equal_the_tokenizers_library),
		cmocka_unit_test(a_pattern_that_backtracks_without_end_is_refused),
		cmocka_unit_test(a_long_text_takes_linear_time),
		cmocka_unit_test(form_c_is_that_of_the_standard),
		cmocka_unit_test(tokens_stream_out_as_whole_characters),
		cmocka_unit_test(any_bytes_are_encoded_and_come_back_as_valid_text),
		cmocka_unit_test(what_is_not_supported_is_refused_with_the_reason),
		cmocka_unit_test(a_way_to_cut_has_the_name_of_its_own_or_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
