/* Zero-shot accuracies: which choice is best, and files of questions. */
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

#include "task/eval_zeroshot.h"

/* Bytes in a file whose name lasts as long as the call. */
static void with_file(const char *bytes, char path[32])
{
	int fd;

	strcpy(path, "/tmp/test-zeroshot-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0 && write(fd, bytes, strlen(bytes)) == (ssize_t)strlen(bytes));
	close(fd);
}

static void the_best_by_character_may_be_another_than_the_best(void **state)
{
	static const double scores[] = {-4, -6, -6}, chars[] = {2, 12, 12};

	(void)state;
	assert_int_equal(vq_best_choice(scores, chars, 3, 0), 0);
	assert_int_equal(vq_best_choice(scores, chars, 3, 1), 1); /* -2 against -0.5, twice */
}

static void characters_are_unicode_and_the_blank_ahead_is_none(void **state)
{
	struct vq_err err = {0};
	struct vq_choices c;
	char path[32];

	(void)state;
	with_file("{\"id\":\"1\",\"task\":\"piqa\",\"context\":\"c\",\"choices\":[\" na\xc3\xafve "
		  "\",\"  "
		  "\xe2\x82\xac\xf0\x9f\x98\x80\",\"x\"],\"answer\":2}\n",
		  path);
	assert_int_equal(vq_choices_open(&c, path, &err), VQ_OK);
	unlink(path);
	assert_int_equal(c.n, 1);
	assert_int_equal(c.items[0].n, 3);
	assert_int_equal(c.items[0].answer, 2);
	assert_int_equal(c.items[0].chars[0], 6);
	assert_int_equal(c.items[0].chars[1], 3);
	assert_int_equal(c.items[0].chars[2], 1);
	vq_choices_close(&c);
}

#define RUN(task, line)                                                                 \
	"{\"vqlm\":\"choices\",\"params\":{\"bos\":\"none\"},\"ids\":[\"" task "\"]}\n" \
	"{\"question_id\":\"" task "\",\"task\":\"" task "\"," line "}\n{\"vqlm\":\"totals\"}\n"

/* One question a task, each right by one of the two alone: the average takes the metric of the published tables. */
static void the_average_takes_acc_norm_where_the_published_tables_do(void **state)
{
	static const char file[] = RUN("boolq", "\"scores\":[-4,-6],\"chars\":[2,12],\"answer\":0")
		RUN("piqa", "\"scores\":[-4,-6],\"chars\":[2,12],\"answer\":0")
			RUN("winogrande", "\"scores\":[-4,-6],\"chars\":[2,12],\"answer\":0") RUN(
				"arc_easy", "\"scores\":[-4,-6],\"chars\":[2,12],\"answer\":0")
				RUN("hellaswag", "\"scores\":[-4,-6],\"chars\":[2,12],\"answer\":1")
					RUN("arc_challenge",
					    "\"scores\":[-4,-6],\"chars\":[2,12],\"answer\":1");
	static const char last[] =
		RUN("openbookqa", "\"scores\":[-4,-6],\"chars\":[2,12],\"answer\":1");
	char text[4096], path[32];
	struct vq_err err = {0};
	struct vq_eval_zeroshot e;
	struct vq_scores s;
	int whole;

	(void)state;
	for (whole = 0; whole < 2; whole++) {
		snprintf(text, sizeof(text), "%s%s", file, whole ? last : "");
		with_file(text, path);
		assert_int_equal(vq_scores_open(&s, path, "choices", &err), VQ_OK);
		unlink(path);
		assert_int_equal(vq_eval_zeroshot(&e, &s, NULL, &err), VQ_OK);
		assert_int_equal(e.n_of_seven, 6 + whole);
		assert_true(whole ? e.average == 100 && e.average_se == 0 : isnan(e.average));
		vq_scores_close(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_best_by_character_may_be_another_than_the_best),
		cmocka_unit_test(characters_are_unicode_and_the_blank_ahead_is_none),
		cmocka_unit_test(the_average_takes_acc_norm_where_the_published_tables_do),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
