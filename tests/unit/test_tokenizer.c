/* format/tokenizer: token ids against sentencepiece and llama.cpp, decoding, speed. */
#include <stdio.h>
#include <unistd.h>

#include "tokenizer_help.h"

#include "base/log.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "format/dataset.h"

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
		cmocka_unit_test(a_megabyte_is_encoded_in_less_than_quadratic_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
