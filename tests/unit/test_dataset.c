/* format/dataset: LLaVA conversations, question files, JSON Lines, and what is wrong with bad ones. */
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
#include "base/sha256.h"
#include "format/dataset.h"

static char path[] = "/tmp/vqlm-dataset-XXXXXX";

static int make_file(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path);
}

static int open_text(struct vq_dataset *d, const char *text, struct vq_err *err)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
	assert_int_equal(fclose(f), 0);
	memset(err, 0, sizeof(*err));
	return vq_dataset_open(d, path, NULL, err);
}

static void the_demo_test_split_is_read_whole(void **state)
{
	struct vq_dataset d;
	struct vq_err err = {0};
	char hex[VQ_SHA256_HEX], *image;
	uint32_t i, images = 0;

	(void)state;
	assert_int_equal(
		vq_dataset_open(&d, "pipelines/demo/mini-sqa/llava_test_CQM-A.json", NULL, &err),
		VQ_OK);
	assert_int_equal(d.n, 2000);
	for (i = 0; i < d.n; i++) {
		image = vq_dataset_image(&d, &d.items[i], &err);
		if (image) {
			assert_int_equal(access(image, R_OK), 0);
			images++;
		}
		assert_true((image != NULL) == (strstr(d.items[i].text, "<image>") != NULL));
		assert_true(strlen(d.items[i].label) == 1);
		vq_free(image);
	}
	assert_int_equal(images, 960);
	assert_int_equal(vq_sha256_file("pipelines/demo/mini-sqa/llava_test_CQM-A.json", VQ_E_SYS,
					hex, &err),
			 VQ_OK);
	assert_string_equal(d.sha256, hex);
	vq_dataset_close(&d);
}

static void scienceqa_in_llava_form_is_read_whole(void **state)
{
	const char *data = getenv("VQLM_DATA");
	char name[512];
	struct vq_dataset d;
	struct vq_err err = {0};
	uint32_t i, images = 0;

	(void)state;
	snprintf(name, sizeof(name), "%s/scienceqa/llava_test_CQM-A.json",
		 data ? data : "../shared/data");
	if (access(name, R_OK) != 0) {
		print_message("# SKIP no scienceqa under VQLM_DATA\n");
		skip();
	}
	assert_int_equal(vq_dataset_open(&d, name, NULL, &err), VQ_OK);
	for (i = 0; i < d.n; i++)
		images += d.items[i].image != NULL;
	assert_int_equal(d.n, 4241);
	assert_int_equal(images, 2017);
	vq_dataset_close(&d);
}

static void lines_numbers_and_question_files_are_understood(void **state)
{
	struct vq_dataset d;
	struct vq_err err;
	char *image;

	(void)state;
	assert_int_equal(
		open_text(
			&d,
			"{\"id\": 7, \"conversations\": [{\"from\": \"system\", \"value\": \"s\"}, "
			"{\"from\": \"user\", \"value\": \"q\"}, {\"from\": \"assistant\", "
			"\"value\": \"a\"}, {\"from\": \"user\", \"value\": \"later\"}]}\n\n"
			"{\"question_id\": \"x\", \"image\": \"p.png\", \"text\": \"what?\"}\r\n"
			"{\"question_id\": 9, \"image\": [], \"text\": \"why?\"}\n"
			"{\"question_id\": 10, \"image\": [\"/abs.png\"], \"text\": \"<image> z\"}",
			&err),
		VQ_OK);
	assert_int_equal(d.n, 4);
	assert_string_equal(d.items[0].id, "7");
	assert_string_equal(d.items[0].text, "q");
	assert_string_equal(d.items[0].label, "a");
	assert_string_equal(d.items[1].text, "<image>\nwhat?");
	assert_null(d.items[1].label);
	assert_null(d.items[2].image);
	assert_string_equal(d.items[2].text, "why?");
	assert_string_equal(d.items[3].text, "<image> z");
	image = vq_dataset_image(&d, &d.items[1], &err);
	assert_string_equal(image, "/tmp/p.png"); /* beside the file */
	vq_free(image);
	image = vq_dataset_image(&d, &d.items[3], &err);
	assert_string_equal(image, "/abs.png");
	vq_free(image);
	vq_dataset_close(&d);
	assert_int_equal(vq_dataset_open(&d, path, "elsewhere", &err), VQ_OK);
	image = vq_dataset_image(&d, &d.items[1], &err);
	assert_string_equal(image, "elsewhere/p.png");
	vq_free(image);
	vq_dataset_close(&d);
}

static void a_pipe_is_read_like_a_file(void **state)
{
	struct vq_dataset d;
	struct vq_err err = {0};
	char name[64];
	int fd[2], i;

	(void)state;
	assert_int_equal(pipe(fd), 0);
	for (i = 0; i < 3; i++)
		dprintf(fd[1], "{\"id\": %d, \"text\": \"q\"}\n", i);
	close(fd[1]);
	snprintf(name, sizeof(name), "/dev/fd/%d", fd[0]);
	assert_int_equal(vq_dataset_open(&d, name, NULL, &err), VQ_OK);
	assert_int_equal(d.n, 3);
	vq_dataset_close(&d);
	close(fd[0]);
}

static void bad_items_are_named_with_their_place(void **state)
{
	static const char *const bad[][2] = {
		{"", "got nothing"},
		{"hello", "got something else"},
		{"[{\"id\": \"a\", \"text\": \"q\"}, {\"id\": \"a\", \"text\": \"q\"}]",
		 "items 0 and 1 have the same id 'a'"},
		{"[{\"id\": 1, \"text\": \"q\"}, {\"id\": \"1\", \"text\": \"q\"}]",
		 "items 0 and 1 have the same id '1'"},
		{"[{\"text\": \"q\"}]", "item 0: want an 'id'"},
		{"[{\"id\": 1.5, \"text\": \"q\"}]", "item 0: want an 'id'"},
		{"[{\"id\": \"\", \"text\": \"q\"}]", "item 0: want an 'id'"},
		{"[3]", "item 0: want an object"},
		{"[{\"id\": 5}]", "item 0 (id 5): want 'conversations'"},
		{"[{\"id\": 5, \"conversations\": []}]", "item 0 (id 5): want a turn"},
		{"[{\"id\": 5, \"conversations\": [{\"from\": \"human\"}]}]",
		 "item 0 (id 5): turn 0: want a 'value'"},
		{"[{\"id\": 5, \"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, "
		 "{\"from\": \"gpt\", \"value\": 3}]}]",
		 "item 0 (id 5): turn 1: want a 'value'"},
		{"[{\"id\": 5, \"image\": [\"a\", \"b\"], \"text\": \"q\"}]", "got several"},
		{"[{\"id\": 5, \"image\": 3, \"text\": \"q\"}]", "'image': want the path"},
		{"{\"id\": 1, \"text\": \"q\"}\n{\"id\": 2}\n", "line 2 (id 2)"},
		{"{\"id\": 1, \"text\": \"q\"}\n{\"id\": 2", "line 2"},
		{"[{\"id\": 1, \"text\": \"q\"}", "bad JSON"},
	};
	struct vq_dataset d;
	struct vq_err err;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(open_text(&d, bad[i][0], &err), VQ_E_DATA);
		if (!strstr(err.text, bad[i][1]) || strncmp(err.text, path, strlen(path)) != 0)
			fail_msg("'%s' does not name %s and '%s'", err.text, path, bad[i][1]);
	}
	memset(&err, 0, sizeof(err));
	assert_int_equal(vq_dataset_open(&d, "no/such/file.json", NULL, &err), VQ_E_SYS);
	assert_non_null(strstr(err.text, "no/such/file.json"));
}

static void choices_are_counted_in_every_form(void **state)
{
	static const struct {
		const char *text;
		uint32_t n;
	} cases[] = {
		{"Which?\nA. x\nB. y", 2},
		{"A. x\nB. y\nC. z", 3},
		{"See A. and B.\nWhich?\nA. one\nof two lines\nB. y", 2},
		{"Sort:\nA. first\nB. second\nC. third\nWhich is first?\nA. x\nB. y", 2},
		{"Question: Which? Context: N/A Options: (A) x (B) y (C) z", 3},
		{"Which?\nB. x\nC. y", 0},
		{"What?", 0},
		{"", 0},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(vq_count_choices(cases[i].text), cases[i].n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(choices_are_counted_in_every_form),
		cmocka_unit_test(the_demo_test_split_is_read_whole),
		cmocka_unit_test(scienceqa_in_llava_form_is_read_whole),
		cmocka_unit_test(lines_numbers_and_question_files_are_understood),
		cmocka_unit_test(a_pipe_is_read_like_a_file),
		cmocka_unit_test(bad_items_are_named_with_their_place),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
