/* eval: letters, classes, statistics, and the published outputs of LLaVA. */
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

#include "base/io.h"
#include "quant/stats.h"
#include "stream/writer.h"
#include "task/eval.h"

/* Score intervals of table I in R. G. Newcombe, Statistics in Medicine 17 (1998) 857. */
static void wilson_intervals_are_the_published_ones(void **state)
{
	static const struct {
		uint32_t k, n;
		double lo, hi;
	} rows[] = {{81, 263, 0.2553, 0.3662},
		    {15, 148, 0.0624, 0.1605},
		    {0, 20, 0, 0.1611},
		    {1, 29, 0.0061, 0.1718}};
	size_t i;
	double lo, hi;

	(void)state;
	for (i = 0; i < 4; i++) {
		vq_wilson(rows[i].k, rows[i].n, 1.959964, &lo, &hi);
		assert_true(fabs(lo - rows[i].lo) < 5.1e-5 && fabs(hi - rows[i].hi) < 5.1e-5);
		vq_wilson(rows[i].n - rows[i].k, rows[i].n, 1.959964, &hi, &lo);
		assert_true(fabs(1 - lo - rows[i].lo) < 5.1e-5);
	}
	vq_wilson(0, 0, 1.959964, &lo, &hi);
	assert_true(lo == 0 && hi == 1);
}

static void mcnemar_equals_its_closed_forms(void **state)
{
	double exact, mid, back_exact, back_mid;
	uint32_t n;

	(void)state;
	/* Fagerland, Lydersen and Laake (2013), table 1: 1 and 7 discordant pairs. */
	vq_mcnemar(1, 7, &exact, &mid);
	assert_true(fabs(exact - 18.0 / 256) < 1e-12 && fabs(mid - 10.0 / 256) < 1e-12);
	for (n = 1; n < 200; n++) {
		vq_mcnemar(0, n, &exact, &mid);
		assert_true(fabs(exact / ldexp(1, 1 - (int)n) - 1) < 1e-11);
		assert_true(fabs(mid / ldexp(1, -(int)n) - 1) < 1e-11);
		vq_mcnemar(n, n, &exact, &mid);
		assert_true(exact == 1 && fabs(mid - 1) < 1e-11);
		vq_mcnemar(n, n + 3, &exact, &mid);
		vq_mcnemar(n + 3, n, &back_exact, &back_mid);
		assert_true(exact == back_exact && mid == back_mid && mid < exact);
	}
	vq_mcnemar(0, 0, &exact, &mid);
	assert_true(exact == 1 && mid == 1);
}

/* Pascal's triangle by addition in long double is another road to the same tail. */
static void mcnemar_equals_a_sum_over_pascals_triangle(void **state)
{
	static long double row[2001];
	uint32_t n, i, lost;
	double exact, mid;

	(void)state;
	row[0] = 1;
	for (n = 1; n <= 2000; n++) {
		row[n] = 0;
		for (i = n; i > 0; i--)
			row[i] = (row[i] + row[i - 1]) / 2;
		row[0] /= 2;
	}
	for (lost = 900; lost <= 1000; lost += 25) {
		long double tail = 0;

		for (i = 0; i <= lost; i++)
			tail += row[i];
		vq_mcnemar(lost, 2000 - lost, &exact, &mid);
		assert_true(fabsl(exact - fminl(1, 2 * tail)) < 1e-9L);
		assert_true(fabsl(mid - (2 * tail - row[lost])) < 1e-9L);
	}
}

static void standard_errors_are_those_of_the_formulas(void **state)
{
	(void)state;
	assert_true(fabs(vq_binomial_se(1, 4) - sqrt(0.25 * 0.75 / 4)) < 1e-15);
	assert_true(vq_binomial_se(0, 0) == 0 && vq_binomial_se(7, 7) == 0);
	/* Differences of -1, 0, +1 with mean d have variance E[x^2] - d^2. */
	assert_true(fabs(vq_paired_se(3, 5, 10) - sqrt((0.8 - 0.04) / 10)) < 1e-15);
}

static void kl_divergence_equals_its_closed_form(void **state)
{
	const float quarter[2] = {0, logf(3)}, even[2] = {5, 5}, far[2] = {-500, 500};
	double want = 0.25 * log(0.5) + 0.75 * log(1.5);

	(void)state;
	assert_true(fabs(vq_kl_logits(quarter, even, 2) - want) < 1e-7);
	assert_true(fabs(vq_kl_logits(even, quarter, 2) - 0.5 * log(4.0 / 3)) < 1e-7);
	assert_true(vq_kl_logits(far, far, 2) == 0);
	assert_true(fabs(vq_kl_logits(far, even, 2) - log(2)) < 1e-9);
	assert_true(!isfinite(vq_kl_logits((const float[]){NAN, 0}, even, 2)));
}

static void letters_are_read_as_each_scorer_reads_them(void **state)
{
	static const struct {
		const char *text;
		int llava, qvlm, lmms; /* -1 = not readable */
	} rows[] = {
		{"C", 2, -1, 2},
		{"E", 4, -1, 4},
		{"F", -1, -1, 5},
		{"B. yes", 1, -1, 1},
		{"B.yes", -1, -1, 1},
		{" B", -1, -1, 1},
		{"B\n", -1, -1, 1},
		{"b", -1, -1, -1},
		{"", -1, -1, -1},
		{"Because. The answer is D.", 3, -1, -1},
		{"The answer is D", -1, -1, -1},
		{"The answer is D\n", -1, -1, -1},
		{"The answer is D, of course", 3, -1, -1},
		{"The answer is A. The answer is A.", -1, -1, -1},
		{"The answer is The answer is B.", 'T' - 'A', -1, -1},
		{"The answer is G.", 6, -1, -1},
		{"###\nANSWER: B.", -1, 1, -1},
		{"ANSWER: B", -1, -1, -1},
		{"A. The answer is C.", 0, -1, 0},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(vq_eval_letter(VQ_PARSE_LLAVA, rows[i].text), rows[i].llava);
		assert_int_equal(vq_eval_letter(VQ_PARSE_QVLM, rows[i].text), rows[i].qvlm);
		assert_int_equal(vq_eval_letter(VQ_PARSE_LMMS, rows[i].text), rows[i].lmms);
	}
}

/* A file of the public data, or skip. */
static const char *data_path(char *buf, size_t room, const char *name)
{
	const char *dir = getenv("VQLM_DATA");

	snprintf(buf, room, "%s/scienceqa/%s", dir ? dir : "../shared/data", name);
	if (!vq_path_exists(buf)) {
		print_message("# skip: no %s; set VQLM_DATA\n", buf);
		skip();
	}
	return buf;
}

/* LLaVA's own scorer stored which choice it read out of each answer, -1 for none. */
static uint32_t same_letters(const char *name, const struct vq_sqa *refs)
{
	char path[512];
	struct vq_err err = {0};
	json_t *root = vq_json_file(data_path(path, sizeof(path), name), VQ_E_SYS, &err), *v;
	const char *id;
	uint32_t same = 0;

	assert_non_null(root);
	json_object_foreach(json_object_get(root, "results"), id, v)
	{
		const char *text =
			json_string_value(json_object_get(json_object_get(root, "outputs"), id));
		int letter = vq_eval_letter(VQ_PARSE_LLAVA, text);
		int64_t at = vq_sqa_find(refs, id);

		assert_true(at >= 0);
		if (letter >= (int)refs->refs[at].n_choices)
			letter = -1;
		same += letter == json_integer_value(v);
	}
	json_decref(root);
	return same;
}

static void open_test_split(struct vq_sqa *refs)
{
	char path[512];
	struct vq_err err = {0};

	data_path(path, sizeof(path), "llava_test_CQM-A.json");
	assert_int_equal(vq_sqa_open(refs, path, NULL, &err), VQ_OK);
}

static void letters_of_8482_published_outputs_are_those_of_llavas_scorer(void **state)
{
	struct vq_sqa refs;
	uint32_t a, b;

	(void)state;
	open_test_split(&refs);
	a = same_letters("test_sqa_llava_lcs_558k_sqa_12e_vicuna_v1_3_13b.json", &refs);
	b = same_letters("llava-v1.5-13b_result.json", &refs);
	print_message("# figure: letters as LLaVA's scorer has them: %u of %u\n", a + b,
		      2 * refs.n);
	assert_int_equal(a + b, 2 * refs.n);
	assert_int_equal(refs.n, 4241);
	vq_sqa_close(&refs);
}

/* The sizes of the published table: TXT 2046, IMG 2017, NO 1435. */
static void contexts_of_conversations_have_the_published_class_sizes(void **state)
{
	struct vq_sqa refs;
	uint32_t n[VQ_SQA_N_CLASSES] = {0}, i, c;

	(void)state;
	open_test_split(&refs);
	for (i = 0; i < refs.n; i++)
		for (c = 0; c < VQ_SQA_N_CLASSES; c++)
			n[c] += refs.refs[i].classes >> c & 1;
	assert_int_equal(n[VQ_SQA_TXT], 2046);
	assert_int_equal(n[VQ_SQA_IMG], 2017);
	assert_int_equal(n[VQ_SQA_NO], 1435);
	assert_false(refs.known >> VQ_SQA_NAT & 1);
	vq_sqa_close(&refs);
}

static void score_published(const char *name, struct vq_eval *e, struct vq_sqa *refs)
{
	char path[512];
	struct vq_err err = {0};
	struct vq_answers a;

	open_test_split(refs);
	data_path(path, sizeof(path), name);
	assert_int_equal(vq_answers_open(&a, &(const char *){path}, 1, &err), VQ_OK);
	assert_int_equal(vq_eval_score(e, &a, refs, VQ_PARSE_LLAVA, path, &err), VQ_OK);
	print_message("# figure: %s: %u/%u = %.2f %%, image subset %.2f %%, unparsed %u, outside "
		      "%u\n",
		      name, e->right, e->n, 100.0 * e->right / e->n,
		      100.0 * e->classes[VQ_SQA_IMG].right / e->classes[VQ_SQA_IMG].n, e->unparsed,
		      e->outside);
	vq_answers_close(&a);
}

static void the_published_accuracies_come_out(void **state)
{
	struct vq_sqa refs;
	struct vq_eval e;

	(void)state;
	score_published("test_sqa_llava_lcs_558k_sqa_12e_vicuna_v1_3_13b.json", &e, &refs);
	assert_int_equal(e.right, 3863);
	assert_int_equal(e.n, 4241);
	assert_int_equal(e.unparsed, 3);
	assert_int_equal(e.outside, 1);
	assert_int_equal(e.missing, 0);
	vq_eval_free(&e);
	vq_sqa_close(&refs);
	score_published("llava-v1.5-13b_output.jsonl", &e, &refs);
	assert_int_equal(e.right, 3155);
	assert_int_equal(lround(10000.0 * e.classes[VQ_SQA_IMG].right / e.classes[VQ_SQA_IMG].n),
			 7164);
	vq_eval_free(&e);
	vq_sqa_close(&refs);
}

/* References and answers with given numbers of right answers in each subject, written to files. */
static void write_subjects(const char *dir, const uint32_t n[3], const uint32_t right[3])
{
	static const char *const subject[3] = {"natural science", "social science",
					       "language science"};
	char path[512];
	uint32_t s, i, id = 0;
	FILE *p, *a;

	snprintf(path, sizeof(path), "%s/problems.json", dir);
	p = fopen(path, "w");
	snprintf(path, sizeof(path), "%s/answers.jsonl", dir);
	a = fopen(path, "w");
	assert_true(p && a);
	fputc('{', p);
	for (s = 0; s < 3; s++) {
		for (i = 0; i < n[s]; i++, id++) {
			fprintf(p,
				"%s\"%u\":{\"choices\":[\"x\",\"y\"],\"answer\":1,\"hint\":\"\","
				"\"subject\":\"%s\",\"grade\":\"grade7\",\"split\":\"test\"}",
				id ? ",\n" : "", id, subject[s]);
			fprintf(a, "{\"question_id\":\"%u\",\"text\":\"%c\"}\n", id,
				i < right[s] ? 'B' : 'A');
		}
	}
	fputc('}', p);
	assert_int_equal(fclose(p), 0);
	assert_int_equal(fclose(a), 0);
}

/* Rows of the ScienceQA leaderboard with their printed average. */
static void published_rows_of_the_class_table_add_up(void **state)
{
	static const uint32_t n[3] = {2252, 889, 1100};
	static const double rows[][4] = {{90.36, 95.95, 88.00, 90.92},
					 {75.44, 70.87, 78.09, 75.17}};
	char dir[] = "/tmp/vqlm-test-XXXXXX", path[512];
	size_t i;
	int c;

	(void)state;
	assert_non_null(mkdtemp(dir));
	for (i = 0; i < 2; i++) {
		struct vq_err err = {0};
		struct vq_answers a;
		struct vq_sqa refs;
		struct vq_eval e;
		uint32_t right[3];

		for (c = 0; c < 3; c++)
			right[c] = (uint32_t)lround(rows[i][c] * n[c] / 100);
		write_subjects(dir, n, right);
		snprintf(path, sizeof(path), "%s/problems.json", dir);
		assert_int_equal(vq_sqa_open(&refs, path, NULL, &err), VQ_OK);
		snprintf(path, sizeof(path), "%s/answers.jsonl", dir);
		assert_int_equal(vq_answers_open(&a, &(const char *){path}, 1, &err), VQ_OK);
		assert_int_equal(vq_eval_score(&e, &a, &refs, VQ_PARSE_LLAVA, path, &err), VQ_OK);
		for (c = 0; c < 3; c++) {
			assert_int_equal(e.classes[c].n, n[c]);
			assert_true(fabs(100.0 * e.classes[c].right / n[c] - rows[i][c]) < 0.006);
		}
		assert_true(fabs(100.0 * e.right / e.n - rows[i][3]) < 0.006);
		assert_int_equal(e.classes[VQ_SQA_NO].n, e.n);
		assert_int_equal(e.classes[VQ_SQA_G7_12].n, e.n);
		assert_int_equal(e.classes[VQ_SQA_G1_6].n, 0);
		vq_eval_free(&e);
		vq_answers_close(&a);
		vq_sqa_close(&refs);
		unlink(path);
		snprintf(path, sizeof(path), "%s/problems.json", dir);
		unlink(path);
	}
	assert_int_equal(rmdir(dir), 0);
}

/* Logits of n questions, shifted: p = softmax(0, shift). */
static void write_logits(const char *path, int n, float shift, int whole)
{
	struct vq_err err = {0};
	struct vq_writer *w;
	json_t *header = json_pack("{s:s, s:[]}", "producer", "test", "history");
	FILE *f = fopen(path, "wb");
	int i;

	assert_non_null(f);
	assert_int_equal(vq_writer_open(&w, fileno(f), path, 0, &err), VQ_OK);
	assert_int_equal(vq_writer_begin(w, header, &err), VQ_OK);
	for (i = 0; i < n; i++) {
		float v[2] = {0, i % 2 ? shift : 0.25f};
		struct vq_tensor t = {VQ_F32, 1, {2}, v};
		char name[32];

		snprintf(name, sizeof(name), "logits/%d", i);
		assert_int_equal(vq_writer_put_tensor(w, VQ_KIND_TENSOR, name, &t, NULL, &err),
				 VQ_OK);
	}
	if (whole)
		assert_int_equal(vq_writer_end(w, &err), VQ_OK);
	vq_writer_close(w);
	json_decref(header);
	fclose(f);
}

static void logits_of_two_runs_are_compared_question_by_question(void **state)
{
	char a[] = "/tmp/vqlm-test-aXXXXXX", b[] = "/tmp/vqlm-test-bXXXXXX";
	struct vq_err err = {0};
	struct vq_eval_logits d;

	(void)state;
	close(mkstemp(a));
	close(mkstemp(b));
	write_logits(a, 10, -1, 1);
	write_logits(b, 10, logf(3), 1); /* 1/4 and 3/4 */
	assert_int_equal(vq_eval_logits(&d, a, b, &err), VQ_OK);
	assert_int_equal(d.n, 10);
	assert_int_equal(d.same_top, 5);
	assert_true(fabs(d.kl_max - (0.25 * (log(0.25) + log(1 + exp(-1))) +
				     0.75 * (log(0.75) + 1 + log(1 + exp(-1))))) < 1e-6);
	assert_true(fabs(d.kl_mean - d.kl_max / 2) < 1e-12);
	write_logits(b, 9, 1, 1);
	assert_int_equal(vq_eval_logits(&d, a, b, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "more questions"));
	memset(&err, 0, sizeof(err));
	write_logits(b, 10, 1, 0);
	assert_int_equal(vq_eval_logits(&d, a, b, &err), VQ_E_DATA);
	unlink(a);
	unlink(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wilson_intervals_are_the_published_ones),
		cmocka_unit_test(mcnemar_equals_its_closed_forms),
		cmocka_unit_test(mcnemar_equals_a_sum_over_pascals_triangle),
		cmocka_unit_test(standard_errors_are_those_of_the_formulas),
		cmocka_unit_test(kl_divergence_equals_its_closed_form),
		cmocka_unit_test(letters_are_read_as_each_scorer_reads_them),
		cmocka_unit_test(letters_of_8482_published_outputs_are_those_of_llavas_scorer),
		cmocka_unit_test(contexts_of_conversations_have_the_published_class_sizes),
		cmocka_unit_test(the_published_accuracies_come_out),
		cmocka_unit_test(published_rows_of_the_class_table_add_up),
		cmocka_unit_test(logits_of_two_runs_are_compared_question_by_question),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
