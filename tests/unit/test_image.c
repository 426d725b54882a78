/* format/image: decoding, resizing and preprocessing against Pillow + numpy, stored and live; bad files. */
#include <dirent.h>
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
#include "base/mem.h"
#include "base/sha256.h"
#include "base/str.h"
#include "format/image.h"

#define CORPUS "tests/data/image"
#define REF    "/usr/bin/python3 -W ignore tests/vectors/image_ref.py"

static const char *data_dir(void)
{
	const char *d = getenv("VQLM_DATA");

	return d ? d : "../shared/data";
}

/* The operations of image_ref.py. */
static void apply(const struct vq_image *im, const char *op, char hex[VQ_SHA256_HEX])
{
	struct vq_preproc p;
	struct vq_image out;
	struct vq_err err = {0};
	unsigned f, w, h, side;
	float *x;

	if (strcmp(op, "rgb") == 0) {
		vq_sha256_of(im->rgb, 3 * (size_t)im->w * im->h, hex);
		return;
	}
	if (sscanf(op, "resize:%u:%u:%u", &f, &w, &h) == 3) {
		assert_int_equal(vq_image_resize(im, w, h, (enum vq_filter)f, &out, &err), VQ_OK);
		vq_sha256_of(out.rgb, 3 * (size_t)w * h, hex);
		vq_image_free(&out);
		return;
	}
	assert_int_equal(sscanf(strchr(op, ':'), ":%u", &side), 1);
	assert_int_equal(vq_preproc_parse(&p, NULL, side, "defaults", &err), VQ_OK);
	if (op[0] == 'p')
		p.aspect = VQ_ASPECT_PAD;
	if (op[0] == 's')
		p.size = side - 7;
	x = vq_alloc_f32(3 * (size_t)side * side, &err);
	assert_non_null(x);
	assert_int_equal(vq_preprocess(&p, im, x, &err), VQ_OK);
	vq_sha256_of(x, 4 * 3 * (size_t)side * side, hex);
	vq_free(x);
}

/* Compares every line "file, operation, SHA-256" of f; returns their number. */
static int compare(FILE *f, const char *root)
{
	char line[512], *name, *op, *want, *rest, hex[VQ_SHA256_HEX], held[512] = "";
	struct vq_image im = {0};
	struct vq_err err = {0};
	int n = 0;

	while (fgets(line, sizeof(line), f)) {
		name = strtok_r(line, "\t", &rest);
		op = strtok_r(NULL, "\t", &rest);
		want = strtok_r(NULL, "\t\n", &rest);
		assert_non_null(want);
		if (strcmp(held, name) != 0) {
			char *path = vq_path_join(root, name, &err);

			vq_image_free(&im);
			if (vq_image_read(&im, path, VQ_E_SYS, &err) < 0)
				fail_msg("%s", err.text);
			vq_free(path);
			snprintf(held, sizeof(held), "%s", name);
		}
		apply(&im, op, hex);
		if (strcmp(hex, want) != 0)
			fail_msg("%s: %s differs from Pillow + numpy", name, op);
		n++;
	}
	vq_image_free(&im);
	return n;
}

static int compare_stored(const char *vectors, const char *root)
{
	FILE *f = fopen(vectors, "r");
	int n;

	assert_non_null(f);
	n = compare(f, root);
	fclose(f);
	assert_true(n > 100);
	return n;
}

static int need_photos(char *path, size_t room)
{
	snprintf(path, room, "%s/images/waterview.jpg", data_dir());
	if (access(path, R_OK) == 0)
		return 1;
	print_message("# SKIP no images under VQLM_DATA\n");
	return 0;
}

static void every_png_and_jpeg_kind_equals_the_stored_pillow_results(void **state)
{
	(void)state;
	print_message("# figure: %d results on the picture corpus bit-identical to stored Pillow + "
		      "numpy\n",
		      compare_stored("tests/vectors/images.tsv", "."));
}

static void photographs_equal_the_stored_pillow_results(void **state)
{
	char path[512];

	(void)state;
	if (!need_photos(path, sizeof(path)))
		skip();
	print_message("# figure: %d results on 24 photographs and diagrams bit-identical to stored "
		      "Pillow + numpy\n",
		      compare_stored("tests/vectors/images-data.tsv", data_dir()));
}

static int compare_live(const char *root, const char *files)
{
	struct vq_str cmd = {0};
	FILE *f;
	int n;

	vq_str_printf(&cmd, "cd '%s' && ls %s", root, files); /* the shell expands the names */
	f = popen(cmd.s, "r");
	assert_non_null(f);
	cmd.n = 0;
	vq_str_printf(&cmd, "%s '%s'", REF, root);
	for (char name[512]; fgets(name, sizeof(name), f);) {
		name[strcspn(name, "\n")] = '\0';
		vq_str_printf(&cmd, " '%s'", name);
	}
	pclose(f);
	f = popen(cmd.s, "r");
	assert_non_null(f);
	n = compare(f, root);
	assert_int_equal(pclose(f), 0);
	vq_str_free(&cmd);
	return n;
}

static void results_equal_those_of_the_installed_pillow(void **state)
{
	char path[512];
	int n = 0;

	(void)state;
	if (system("/usr/bin/python3 -c 'import PIL, numpy' 2>/dev/null") != 0) {
		print_message("# SKIP python3-pil or python3-numpy is not installed\n");
		skip();
	}
	n = compare_live(".", CORPUS "/good-*");
	if (need_photos(path, sizeof(path)))
		n += compare_live(data_dir(), "images/*.jpg images/scienceqa/*.png");
	assert_true(n > 100);
	print_message("# figure: %d results bit-identical to the installed Pillow + numpy\n", n);
}

/* What each damaged or unsupported file is told. */
static const struct {
	const char *name, *why;
} refusals[] = {
	{"bad-cut-in-header.png", "cut short"},
	{"bad-cut-in-data.png", "cut short"},
	{"bad-cut-before-end.png", "cut short"},
	{"bad-no-pixels.png", "no pixels"},
	{"bad-checksum.png", "incorrect data check"},
	{"bad-missing-palette.png", "Missing PLTE"},
	{"bad-too-few-rows.png", "Not enough"},
	{"bad-gigantic.png", "want at most 65500 pixels a side"},
	{"bad-wide.png", "got 70000 x 1"},
	{"bad-too-many-pixels.png", "178956970 in all, got 60000 x 60000"},
	{"bad-cut-in-header.jpg", "cut short"},
	{"bad-cut-in-data.jpg", "cut short"},
	{"bad-cut-before-end.jpg", "cut short"},
	{"bad-no-pixels.jpg", "Empty JPEG"},
	{"bad-too-many-pixels.jpg", "got 65500 x 65500"},
	{"bad-empty.png", "empty file"},
	{"unsupported-cmyk.jpg", "(CMYK); convert it to RGB"},
	{"unsupported.bmp", "want a PNG or JPEG"},
};

static void damaged_and_unsupported_files_are_refused_by_name(void **state)
{
	size_t i, n_files = 0;
	DIR *dir = opendir(CORPUS);
	struct dirent *e;

	(void)state;
	assert_non_null(dir);
	while ((e = readdir(dir)))
		n_files += strncmp(e->d_name, "bad-", 4) == 0 ||
			   strncmp(e->d_name, "unsupported", 11) == 0;
	closedir(dir);
	assert_int_equal(n_files, sizeof(refusals) / sizeof(*refusals));
	for (i = 0; i < n_files; i++) {
		struct vq_image im = {0};
		struct vq_err err = {0};
		char path[256];

		snprintf(path, sizeof(path), CORPUS "/%s", refusals[i].name);
		assert_int_equal(vq_image_read(&im, path, VQ_E_SYS, &err), VQ_E_DATA);
		assert_null(im.rgb);
		if (!strstr(err.text, refusals[i].why) || strncmp(err.text, path, strlen(path)))
			fail_msg("'%s' does not name %s and '%s'", err.text, path, refusals[i].why);
	}
	assert_true(vq_peak_rss() < (uint64_t)512 << 20); /* nobody took memory for 60000 x 60000 */
}

static void a_file_cut_at_any_byte_is_refused(void **state)
{
	static const char *const names[] = {"good-rgb8.png", "good-palette4-interlaced.png",
					    "good-420.jpg", "good-progressive.jpg"};
	size_t i, n, cut;

	(void)state;
	for (i = 0; i < sizeof(names) / sizeof(*names); i++) {
		char path[256], *data;

		snprintf(path, sizeof(path), CORPUS "/%s", names[i]);
		assert_int_equal(vq_file_read(path, 1 << 20, VQ_E_SYS, &data, &n, NULL), VQ_OK);
		for (cut = 0; cut < n; cut++) {
			struct vq_image im = {0};

			if (vq_image_decode(&im, (uint8_t *)data, cut, names[i], NULL) != VQ_E_DATA)
				fail_msg("%s cut at %zu was accepted", names[i], cut);
		}
		vq_free(data);
	}
}

static int parse(struct vq_preproc *p, const char *text, uint32_t size, struct vq_err *err)
{
	json_t *j = vq_json_parse(text, strlen(text), "test", err);
	int rc;

	assert_non_null(j);
	memset(err, 0, sizeof(*err));
	rc = vq_preproc_parse(p, j, size, "preprocessor_config.json", err);
	json_decref(j);
	return rc;
}

static void the_preprocessor_file_is_understood_in_all_its_spellings(void **state)
{
	struct vq_preproc p, q;
	struct vq_err err = {0};
	json_t *j;
	char *text;

	(void)state;
	assert_int_equal(parse(&p, "{\"size\": 336, \"crop_size\": 336}", 336, &err), VQ_OK);
	assert_true(p.size == 336 && p.crop == 336 && p.center_crop && p.size_w == 0);
	assert_true(p.rescale == 1.0 / 255.0 && p.mean[1] == 0.4578275f && p.fill[0] == 122 &&
		    p.fill[1] == 116 && p.fill[2] == 104);
	assert_int_equal(parse(&p,
			       "{\"size\": {\"height\": 30, \"width\": 30}, \"do_center_crop\": "
			       "false, \"do_pad\": true, \"image_mean\": [0.5,0.5,0.5]}",
			       30, &err),
			 VQ_OK);
	assert_true(p.size == 0 && p.size_w == 30 && p.size_h == 30 && !p.center_crop &&
		    p.aspect == VQ_ASPECT_PAD && p.fill[0] == 127);
	j = vq_preproc_json(&p);
	text = vq_json_text(j, &err);
	json_decref(j);
	assert_int_equal(parse(&q, text, 30, &err), VQ_OK);
	assert_memory_equal(&p, &q, sizeof(p)); /* what was written reads back to the bit */
	vq_free(text);
	assert_int_equal(parse(&p, "{\"do_normalize\": false, \"do_rescale\": false}", 8, &err),
			 VQ_OK);
	assert_true(p.rescale == 1.0 && p.mean[0] == 0 && p.std[2] == 1);
	assert_int_equal(parse(&p, "{\"image_aspect_ratio\": \"pad\"}", 8, &err), VQ_OK);
	assert_int_equal(p.aspect, VQ_ASPECT_PAD);
}

static void a_preprocessor_that_cannot_be_followed_is_refused(void **state)
{
	static const char *const bad[][2] = {
		{"{\"crop_size\": 224}", "come out as 224 x 224"},
		{"{\"crop_size\": {\"height\": 336, \"width\": 300}}", "300 x 336"},
		{"{\"size\": {\"longest_edge\": 336}}", "'size'"},
		{"{\"size\": 0}", "'size': want 1.."},
		{"{\"resample\": 0}", "'resample'"},
		{"{\"image_std\": [1, 0, 1]}", "'image_std'"},
		{"{\"image_mean\": [1, 0]}", "'image_mean': want three"},
		{"{\"rescale_factor\": \"x\"}", "'rescale_factor'"},
		{"{\"image_aspect_ratio\": \"anyres\"}", "got 'anyres'"},
		{"{\"image_processor_type\": \"Qwen2VLImageProcessor\"}", "Qwen2VLImageProcessor"},
		{"[]", "want a JSON object"},
	};
	struct vq_preproc p;
	struct vq_err err = {0};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(parse(&p, bad[i][0], 336, &err), VQ_E_DATA);
		if (!strstr(err.text, bad[i][1]))
			fail_msg("'%s' does not say '%s'", err.text, bad[i][1]);
	}
}

static void a_sliver_of_a_picture_is_refused_before_it_is_blown_up(void **state)
{
	struct vq_image im = {0};
	struct vq_preproc p;
	struct vq_err err = {0};
	float x[1];

	(void)state;
	assert_int_equal(vq_image_new(&im, 1, 60000, "sliver", &err), VQ_OK);
	assert_int_equal(vq_preproc_parse(&p, NULL, 336, "defaults", &err), VQ_OK);
	assert_int_equal(vq_preprocess(&p, &im, x, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "too narrow"));
	vq_image_free(&im);
}

/* Rows and columns of transformers' Idefics3ImageProcessor (longest edge 2048, tiles of 512), worked out by hand. */
static void a_picture_of_any_shape_becomes_its_tiles(void **state)
{
	static const struct {
		uint32_t w, h, rows, cols, cut_w, cut_h;
	} cases[] = {
		{512, 512, 4, 4, 2048, 2048},  {1920, 1080, 3, 4, 2048, 1536},
		{2, 2, 4, 4, 2048, 2048},      {1, 300, 4, 1, 512, 2048},
		{65500, 1, 1, 4, 2048, 512},   {333, 100, 2, 4, 2048, 1024},
		{1024, 511, 2, 4, 2048, 1024}, {1024, 513, 3, 4, 2048, 1536},
	};
	static const char text[] =
		"{\"image_processor_type\": \"SmolVLMImageProcessor\", \"size\": "
		"{\"longest_edge\": 2048}, \"max_image_size\": "
		"{\"longest_edge\": 512}}";
	struct vq_preproc p, again;
	struct vq_tiling t;
	struct vq_err err = {0};
	json_t *j;
	size_t i;

	(void)state;
	assert_int_equal(parse(&p, text, 512, &err), VQ_OK);
	assert_true(p.tiled && p.split && p.longest == 2048 && p.filter == VQ_FILTER_LANCZOS &&
		    p.mean[1] == .5f && p.std[2] == .5f);
	j = vq_preproc_json(&p);
	assert_int_equal(vq_preproc_parse(&again, j, 512, "again", &err), VQ_OK);
	assert_memory_equal(&p, &again, sizeof(p));
	json_decref(j);
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(vq_preproc_tiling(&p, cases[i].w, cases[i].h, &t, &err), VQ_OK);
		assert_int_equal(t.rows, cases[i].rows);
		assert_int_equal(t.cols, cases[i].cols);
		assert_int_equal(t.n, t.rows * t.cols + 1);
		assert_int_equal(t.cut_w, cases[i].cut_w);
		assert_int_equal(t.cut_h, cases[i].cut_h);
	}
	p.longest = 0; /* pictures as they are */
	assert_int_equal(vq_preproc_tiling(&p, 512, 300, &t, &err), VQ_OK);
	assert_true(t.n == 1 && t.rows == 0 && t.cut_w == 512 && t.cut_h == 512);
	assert_int_equal(vq_preproc_tiling(&p, 65000, 2700, &t, &err), VQ_OK);
	assert_int_equal(t.n, 127 * 6 + 1);
	assert_int_equal(vq_preproc_tiling(&p, 60000, 6000, &t, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "1417 tiles"));
	p.split = 0;
	assert_int_equal(vq_preproc_tiling(&p, 60000, 6000, &t, &err), VQ_OK);
	assert_true(t.n == 1 && t.cut_w == 512 && t.cut_h == 512);
}

/* Every picture of the corpus that can be decoded: its header says its size. */
static void the_size_comes_from_the_header(void **state)
{
	DIR *d = opendir("tests/data/image");
	struct dirent *e;
	int n = 0;

	(void)state;
	assert_non_null(d);
	while ((e = readdir(d))) {
		struct vq_image im = {0};
		char path[512], *data;
		uint32_t w, h;
		size_t len;

		if (strncmp(e->d_name, "good-", 5) != 0)
			continue;
		snprintf(path, sizeof(path), "tests/data/image/%s", e->d_name);
		assert_int_equal(vq_file_read(path, 1 << 20, VQ_E_SYS, &data, &len, NULL), VQ_OK);
		assert_int_equal(vq_image_decode(&im, (uint8_t *)data, len, path, NULL), VQ_OK);
		assert_int_equal(vq_image_size((uint8_t *)data, len, &w, &h, path, NULL), VQ_OK);
		assert_true(w == im.w && h == im.h);
		assert_int_equal(vq_image_size((uint8_t *)data, 20, &w, &h, path, NULL), VQ_E_DATA);
		vq_image_free(&im);
		vq_free(data);
		n++;
	}
	closedir(d);
	assert_true(n > 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_picture_of_any_shape_becomes_its_tiles),
		cmocka_unit_test(the_size_comes_from_the_header),
		cmocka_unit_test(damaged_and_unsupported_files_are_refused_by_name),
		cmocka_unit_test(a_file_cut_at_any_byte_is_refused),
		cmocka_unit_test(every_png_and_jpeg_kind_equals_the_stored_pillow_results),
		cmocka_unit_test(photographs_equal_the_stored_pillow_results),
		cmocka_unit_test(results_equal_those_of_the_installed_pillow),
		cmocka_unit_test(the_preprocessor_file_is_understood_in_all_its_spellings),
		cmocka_unit_test(a_preprocessor_that_cannot_be_followed_is_refused),
		cmocka_unit_test(a_sliver_of_a_picture_is_refused_before_it_is_blown_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
