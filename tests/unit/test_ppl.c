/* Texts, the windows of each protocol, and log-probabilities against one sequence at a time. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/mem.h"
#include "model/sampler.h"
#include "task/infer_ppl.h"
#include "task/infer_score.h"
#include "emulated.h"

#define DEMO "pipelines/demo/mini-llava"

/* --- texts --- */

/* What vq_text_open makes of some bytes, or its error. */
static int text_of(struct vq_text *t, const char *bytes, size_t n, enum vq_text_rows rows,
		   struct vq_err *err)
{
	char path[] = "/tmp/test-ppl-XXXXXX";
	int fd = mkstemp(path), rc;

	assert_true(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
	close(fd);
	rc = vq_text_open(t, path, rows, err);
	unlink(path);
	return rc;
}

static void rows_are_joined_as_the_published_loaders_join_them(void **state)
{
	static const char file[] = " \n = A = \r\n \n B  b \nlast";
	static const struct {
		enum vq_text_rows rows;
		const char *want;
	} cases[] = {{VQ_ROWS_TEXT, " \n = A = \r\n \n B  b \nlast"},
		     {VQ_ROWS_WIKITEXT, "\n\n = A = \n\n\n\n\n B  b \n\n\nlast"},
		     {VQ_ROWS_PTB, "\n\n= A =\n\n\n\nB  b\n\nlast"}};
	struct vq_err err = {0};
	struct vq_text t;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(text_of(&t, file, sizeof(file) - 1, cases[i].rows, &err), VQ_OK);
		assert_string_equal(t.s, cases[i].want);
		assert_int_equal(t.n, strlen(cases[i].want));
		vq_text_close(&t);
	}
}

static void what_is_no_text_is_refused_with_its_place(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
		const char *want;
	} cases[] = {{"", 0, "want a text, got nothing"},
		     {" \n\t\n", 4, "got nothing but blanks"},
		     {"one\ntwo \xff", 9, "line 2, byte 9: want UTF-8, got 0xff"},
		     {"a\xe2\x82", 3, "byte 2: want UTF-8, got 0xe2, a character cut short"},
		     {"a\0b", 3, "byte 2: want UTF-8, got 0x00"}};
	struct vq_text t;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vq_err err = {0};

		assert_int_equal(text_of(&t, cases[i].bytes, cases[i].n, VQ_ROWS_TEXT, &err),
				 VQ_E_DATA);
		assert_non_null(strstr(err.text, cases[i].want));
	}
}

/* --- protocols --- */

static void each_protocol_has_its_window_its_bos_and_what_it_scores(void **state)
{
	static const struct {
		struct vq_infer o;
		struct vq_ppl_spec want; /* protocol NULL: refused */
	} cases[] = {
		{{0}, {.protocol = "gptq", .bos = "first", .window = 2048, .n = 2048, .from = 1}},
		{{.protocol = VQ_PPL_SHORTENED_LLAMA},
		 {.protocol = "shortened-llama",
		  .bos = "first",
		  .window = 128,
		  .n = 128,
		  .from = 1}},
		{{.protocol = VQ_PPL_SHORTENED_LLAMA, .bos = VQ_BOS_EACH},
		 {.protocol = "shortened-llama",
		  .bos = "each",
		  .window = 128,
		  .n = 129,
		  .from = 1}},
		{{.protocol = VQ_PPL_LLAMA_CPP},
		 {.protocol = "llama.cpp", .bos = "replace", .window = 512, .n = 512, .from = 257}},
		{{.protocol = VQ_PPL_LLAMA_CPP, .window = 5},
		 {.protocol = "llama.cpp", .bos = "replace", .window = 5, .n = 5, .from = 3}},
		{{.window = 64},
		 {.protocol = "custom", .bos = "first", .window = 64, .n = 64, .from = 1}},
		{{.bos = VQ_BOS_NONE},
		 {.protocol = "custom", .bos = "none", .window = 2048, .n = 2048, .from = 1}},
		{{.protocol = VQ_PPL_GPTQ, .window = 2048},
		 {.protocol = "gptq", .bos = "first", .window = 2048, .n = 2048, .from = 1}},
		{{.protocol = VQ_PPL_GPTQ, .window = 1024}, {.protocol = NULL}},
		{{.protocol = VQ_PPL_GPTQ, .bos = VQ_BOS_EACH}, {.protocol = NULL}},
		{{.protocol = VQ_PPL_SHORTENED_LLAMA, .bos = VQ_BOS_NONE}, {.protocol = NULL}},
		{{.protocol = VQ_PPL_LLAMA_CPP, .bos = VQ_BOS_FIRST}, {.protocol = NULL}},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct vq_ppl_spec *want = &cases[i].want;
		struct vq_err err = {0};
		struct vq_ppl_spec s;
		int rc = vq_ppl_resolve(&s, &cases[i].o, &err);

		if (!want->protocol) {
			assert_int_equal(rc, VQ_E_USAGE);
			assert_non_null(strstr(err.text, "--protocol custom"));
			continue;
		}
		assert_int_equal(rc, VQ_OK);
		assert_string_equal(s.protocol, want->protocol);
		assert_string_equal(s.bos, want->bos);
		assert_int_equal(s.window, want->window);
		assert_int_equal(s.n, want->n);
		assert_int_equal(s.from, want->from);
	}
}

static void windows_are_disjoint_and_bos_is_where_the_protocol_has_it(void **state)
{
	static const int32_t text[] = {1, 10, 11, 12, 13, 14, 15, 16, 17};
	static const struct {
		struct vq_infer o;
		int32_t want[5]; /* the second window */
	} cases[] = {{{.window = 4, .bos = VQ_BOS_FIRST}, {13, 14, 15, 16}},
		     {{.window = 4, .bos = VQ_BOS_NONE}, {13, 14, 15, 16}},
		     {{.window = 4, .bos = VQ_BOS_EACH}, {1, 13, 14, 15, 16}},
		     {{.window = 4, .protocol = VQ_PPL_LLAMA_CPP}, {1, 14, 15, 16}}};
	struct vq_err err = {0};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vq_ppl_spec s;
		int32_t got[5];

		assert_int_equal(vq_ppl_resolve(&s, &cases[i].o, &err), VQ_OK);
		vq_ppl_window(&s, text, 1, 1, got);
		assert_memory_equal(got, cases[i].want, s.n * sizeof(*got));
	}
}

/* --- scores --- */

/* All logits of a sequence at once, without a cache. */
static double one_by_one(const struct vq_model *m, const struct vq_scored *v)
{
	uint32_t n = v->n - 1, start[2] = {0, n}, vocab = m->cfg.decoder.vocab, i;
	uint32_t *rows = vq_alloc(n, sizeof(*rows), NULL);
	float *h = vq_alloc_f32((size_t)n * m->cfg.decoder.layer.hidden, NULL);
	float *logits = vq_alloc_f32((size_t)n * vocab, NULL);
	struct vq_err err = {0};
	double sum = 0;

	assert_true(rows && h && logits);
	for (i = 0; i < n; i++)
		rows[i] = i;
	assert_int_equal(vq_decoder_embed(m, v->tokens, n, NULL, 0, h, &err), VQ_OK);
	assert_int_equal(vq_decoder_layers(m, h, &(struct vq_batch){1, start}, NULL, &err), VQ_OK);
	assert_int_equal(vq_decoder_logits(m, h, rows, n, logits, &err), VQ_OK);
	for (i = v->from; i < v->n; i++)
		sum += vq_log_prob(logits + (size_t)(i - 1) * vocab, vocab, v->tokens[i]);
	vq_free(rows);
	vq_free(h);
	vq_free(logits);
	return sum;
}

/* Sequences that share beginnings up to, into and beyond what is scored, one that is another's beginning, and two
 * that are the same.  In an emulator one of each kind is computed by itself. */
static void shared_beginnings_and_batches_change_no_score(void **state)
{
	enum { N = 40, LONGEST = 300 };
	static int32_t tokens[N][LONGEST];
	struct vq_infer o = {.model = DEMO, .float32 = 1, .kv = VQ_KV_F32};
	struct vq_scored v[N];
	struct vq_loaded l;
	struct vq_scorer s;
	struct vq_err err = {0};
	uint32_t i, k, x = 42;

	(void)state;
	assert_int_equal(vq_loaded_open(&l, &o, 0, &err), VQ_OK);
	assert_int_equal(vq_scorer_open(&s, &o, &l, &err), VQ_OK);
	for (i = 0; i < N; i++) {
		uint32_t shared = i % 4 == 0 ? 0 : i % 4 == 3 ? 299 : 5 * i;

		v[i] = (struct vq_scored){.tokens = tokens[i], .n = 2 + 7 * i, .from = 1 + 4 * i};
		for (k = 0; k < LONGEST; k++) {
			x = (1103515245u * x + 12345u) & 0x7fffffff;
			tokens[i][k] = k < shared ? tokens[i - 1][k] : 5 + (int32_t)(x >> 8) % 700;
		}
	}
	v[N - 1].n = v[N - 2].n;
	v[N - 1].from = v[N - 2].from;
	assert_int_equal(vq_score_run(&s, v, N, &err), VQ_OK);
	for (i = 0; i < N; i += stride(13)) {
		double want = one_by_one(&l.model, &v[i]);

		if (fabs(v[i].log_prob - want) > 1e-5 * fabs(want))
			fail_msg("sequence %u: %.9g, one by one %.9g", i, v[i].log_prob, want);
	}
	assert_true(v[N - 1].log_prob == v[N - 2].log_prob);
	vq_scorer_close(&s);
	vq_loaded_close(&l);
}

/* Where every logit is the same, each token costs ln V. */
static void uniform_logits_cost_ln_v_a_token(void **state)
{
	struct vq_infer o = {.model = DEMO, .float32 = 1, .kv = VQ_KV_F16};
	int32_t tokens[200];
	struct vq_scored v = {.tokens = tokens, .n = 200, .from = 1};
	struct vq_loaded l;
	struct vq_scorer s;
	struct vq_err err = {0};
	double vocab;
	float *zeros;
	uint32_t i;

	(void)state;
	for (i = 0; i < 200; i++)
		tokens[i] = 5 + (int32_t)i;
	assert_int_equal(vq_loaded_open(&l, &o, 0, &err), VQ_OK);
	zeros = vq_calloc((size_t)l.model.decoder.head.n_out * l.model.decoder.head.n_in,
			  sizeof(float), &err);
	assert_non_null(zeros);
	l.model.decoder.head.w = zeros;
	l.model.decoder.head.dtype = VQ_F32;
	vocab = l.model.cfg.decoder.vocab;
	assert_int_equal(vq_scorer_open(&s, &o, &l, &err), VQ_OK);
	assert_int_equal(vq_score_run(&s, &v, 1, &err), VQ_OK);
	assert_true(fabs(exp(-v.log_prob / 199) / vocab - 1) < 1e-12);
	vq_scorer_close(&s);
	vq_loaded_close(&l);
	vq_free(zeros);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_are_joined_as_the_published_loaders_join_them),
		cmocka_unit_test(what_is_no_text_is_refused_with_its_place),
		cmocka_unit_test(each_protocol_has_its_window_its_bos_and_what_it_scores),
		cmocka_unit_test(windows_are_disjoint_and_bos_is_where_the_protocol_has_it),
		cmocka_unit_test(shared_beginnings_and_batches_change_no_score),
		cmocka_unit_test(uniform_logits_cost_ln_v_a_token),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
