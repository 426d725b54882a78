/* task/entropy: streams that no calibration wrote. */
#include <fcntl.h>
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
#include "base/log.h"
#include "base/mem.h"
#include "format/checkpoint.h"
#include "stream/history.h"
#include "stream/reader.h"
#include "stream/writer.h"
#include "task/entropy.h"

#define PAIRS 7 /* of the demo model */
#define UNITS 10

static char in_path[] = "/tmp/vqlm-entropy-in-XXXXXX", out_path[] = "/tmp/vqlm-entropy-out-XXXXXX";
static json_t *config, *header;

static const struct vq_entropy_opts defaults = {.h0 = -1,
						.quantile = -1,
						.depth = 3,
						.bits = 2,
						.partition = VQ_PART_ENTROPY,
						.proxy = VQ_PROXY_ENTROPY,
						.space = VQ_SPACE_RAW,
						.output = out_path,
						.level = -1};

static int setup(void **state)
{
	struct vq_ckpt *k;
	struct vq_config c;
	json_t *model = json_pack("{s:s}", "name", "test");

	(void)state;
	close(mkstemp(in_path));
	close(mkstemp(out_path));
	vq_log_setup("test", 0);
	if (vq_ckpt_open(&k, "pipelines/demo/mini-llava", NULL) < 0 ||
	    vq_config_from_ckpt(&c, k, NULL, NULL) < 0)
		return -1;
	config = vq_config_json(&c, NULL);
	header = vq_header_new("test", model, NULL);
	json_decref(model);
	vq_ckpt_close(k);
	return config && header ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	unlink(in_path);
	unlink(out_path);
	json_decref(config);
	json_decref(header);
	return 0;
}

/* --- making a stream --- */

static struct vq_writer *w;
static int fd;

static void begin(void)
{
	fd = open(in_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(vq_writer_open(&w, fd, in_path, 0, NULL), VQ_OK);
	assert_int_equal(vq_writer_begin(w, header, NULL), VQ_OK);
}

static void put_config(void)
{
	assert_int_equal(vq_writer_put_json(w, VQ_KIND_META, "config", config, NULL), VQ_OK);
}

static void put_calib(uint32_t n)
{
	static const char *const ids[] = {"[]", "[\"a\"]"};
	char text[128];

	snprintf(text, sizeof(text), "{\"n\":%u,\"ids\":%s,\"checkpoints\":[]}", n, ids[n]);
	assert_int_equal(vq_writer_put_bytes(w, VQ_KIND_META, "calib", text, strlen(text), NULL),
			 VQ_OK);
}

static void put_f32(uint32_t kind, const char *name, const float *x, uint32_t n_dims, uint64_t a,
		    uint64_t b, uint64_t c)
{
	struct vq_tensor t = {VQ_F32, n_dims, {a, b, c}, x};

	assert_int_equal(vq_writer_put_tensor(w, kind, name, &t, NULL, NULL), VQ_OK);
}

/* Pairs whose layers agree fully, but for pair `loose`, where they have nothing to do with each other. */
static void put_joint(int loose, float poison)
{
	float p[PAIRS * 16];
	int i, k;

	for (k = 0; k < PAIRS; k++)
		for (i = 0; i < 16; i++)
			p[k * 16 + i] = k == loose ? 1 / 16.0f : i % 5 == 0 ? 0.25f : 0;
	if (poison != 0)
		p[37] = poison;
	put_f32(VQ_KIND_STAT, "stat/joint/raw/2", p, 3, PAIRS, 4, 4);
}

static void put_weight(const char *name)
{
	static const float x[3] = {1, 2, 3};

	put_f32(VQ_KIND_TENSOR, name, x, 1, 3, 0, 0);
}

static void end(void)
{
	assert_int_equal(vq_writer_end(w, NULL), VQ_OK);
	vq_writer_close(w);
	close(fd);
}

/* --- running it --- */

static int run(const struct vq_entropy_opts *o, struct vq_err *err)
{
	int keep = dup(STDIN_FILENO), in = open(in_path, O_RDONLY), rc;

	memset(err, 0, sizeof(*err));
	dup2(in, STDIN_FILENO);
	close(in);
	rc = vq_entropy(o, err);
	if (keep >= 0) {
		dup2(keep, STDIN_FILENO);
		close(keep);
	}
	return rc;
}

/* Names of the records of the output, each followed by a blank; the plan's blocks at *plan. */
static void list(char *names, size_t room, struct vq_plan *plan)
{
	struct vq_reader *r;
	struct vq_record rec;
	int out = open(out_path, O_RDONLY);

	names[0] = '\0';
	assert_int_equal(vq_reader_open(&r, out, out_path, NULL), VQ_OK);
	while (vq_reader_segment(r, NULL) == 1) {
		int rc;

		while ((rc = vq_reader_next(r, &rec, NULL)) == 1) {
			void *data;

			strncat(names, rec.name, room - strlen(names) - 2);
			strncat(names, " ", room - strlen(names) - 1);
			if (rec.kind != VQ_KIND_PLAN)
				continue;
			assert_int_equal(vq_reader_load(r, &data, NULL), VQ_OK);
			if (plan) {
				json_t *j =
					vq_json_parse(data, (size_t)rec.raw_bytes, "plan", NULL);

				vq_plan_free(plan);
				assert_int_equal(vq_plan_parse(plan, j, NULL, "plan", NULL), VQ_OK);
				json_decref(j);
			}
			vq_free(data);
		}
		assert_int_equal(rc, 0);
	}
	vq_reader_close(r);
	close(out);
}

static void records_of_an_unknown_kind_pass_with_their_attributes(void **state)
{
	struct vq_record rec = {.kind = 200, .name = "strange", .dtype = VQ_U8, .n_dims = 1};
	struct vq_err err;
	struct vq_reader *r;
	char names[1024];
	void *data;
	int out;

	(void)state;
	begin();
	put_config();
	put_calib(1);
	rec.dims[0] = 5;
	rec.attrs = json_pack("{s:s}", "colour", "blue");
	assert_int_equal(vq_writer_put(w, &rec, "hello", NULL), VQ_OK);
	json_decref(rec.attrs);
	put_joint(3, 0);
	put_weight("a");
	end();
	assert_int_equal(run(&defaults, &err), VQ_OK);
	list(names, sizeof(names), NULL);
	assert_string_equal(names, "config calib strange stat/joint/raw/2 plan a ");
	out = open(out_path, O_RDONLY);
	assert_int_equal(vq_reader_open(&r, out, out_path, NULL), VQ_OK);
	assert_int_equal(vq_reader_segment(r, NULL), 1);
	while (vq_reader_next(r, &rec, NULL) == 1 && strcmp(rec.name, "strange") != 0)
		;
	assert_int_equal(rec.kind, 200);
	assert_string_equal(json_string_value(json_object_get(rec.attrs, "colour")), "blue");
	assert_int_equal(vq_reader_load(r, &data, NULL), VQ_OK);
	assert_memory_equal(data, "hello", 5);
	vq_free(data);
	vq_reader_close(r);
	close(out);
}

static void a_pair_of_independent_layers_makes_the_block(void **state)
{
	struct vq_plan p = {0};
	struct vq_err err;
	char names[1024];

	(void)state;
	begin();
	put_config();
	put_calib(1);
	put_joint(4, 0); /* of 3 vision pairs and 4 decoder pairs: units 6 and 7 */
	put_weight("a");
	end();
	assert_int_equal(run(&defaults, &err), VQ_OK);
	list(names, sizeof(names), &p);
	assert_int_equal(p.n_units, UNITS);
	/* The mean of this pair and the next one, which is 0, is still above h0: three units. */
	assert_int_equal(p.n_blocks, UNITS - 2);
	assert_int_equal(p.blocks[6].first, 6);
	assert_int_equal(p.blocks[6].last, 8);
	assert_true(fabs(p.d[6] - 2 * M_LN2) < 1e-6 && p.d[5] == 0);
	assert_true(p.d[3] < 0 && p.d[4] < 0);
	assert_true(fabs(p.h0 - 2 * M_LN2 / PAIRS) < 1e-6);
	vq_plan_free(&p);
}

static void each_segment_gets_its_plan_even_without_weights(void **state)
{
	struct vq_err err;
	char names[1024];

	(void)state;
	begin();
	put_config();
	put_calib(1);
	put_joint(0, 0);
	put_weight("a");
	assert_int_equal(vq_writer_end(w, NULL), VQ_OK);
	assert_int_equal(vq_writer_begin(w, header, NULL), VQ_OK);
	put_config();
	put_calib(0);
	end();
	assert_int_equal(run(&defaults, &err), VQ_OK);
	list(names, sizeof(names), NULL);
	assert_string_equal(names, "config calib stat/joint/raw/2 plan a config calib plan ");
}

/* A stream that is refused: how it is made, and what the message must hold. */
static void refused(const char *say)
{
	struct vq_err err;

	end();
	assert_int_equal(run(&defaults, &err), VQ_E_DATA);
	if (!strstr(err.text, say))
		print_message("want '%s' in: %s\n", say, err.text);
	assert_non_null(strstr(err.text, say));
	assert_non_null(strstr(err.text, "stdin"));
}

static void streams_that_hold_nonsense_are_refused_by_record(void **state)
{
	static const float bad_vector[UNITS] = {1, 1, 1, -1};
	static const float zeros[PAIRS * 16];

	(void)state;
	begin();
	put_calib(1);
	put_joint(0, 0);
	refused("'stat/joint/raw/2' comes before META 'config'");
	begin();
	put_config();
	put_weight("a");
	refused("no META 'calib'");
	begin();
	put_calib(0);
	put_weight("a");
	refused("no META 'config'");
	begin();
	put_config();
	put_calib(1);
	put_joint(0, NAN);
	refused("'stat/joint/raw/2': want probabilities");
	begin();
	put_config();
	put_calib(1);
	put_joint(0, -1);
	refused("'stat/joint/raw/2': want probabilities");
	begin();
	put_config();
	put_calib(1);
	put_f32(VQ_KIND_STAT, "stat/joint/raw/2", zeros, 3, PAIRS - 1, 4, 4);
	refused("'stat/joint/raw/2': want f32 [7, 4, 4]");
	begin();
	put_config();
	put_calib(1);
	put_f32(VQ_KIND_STAT, "stat/influence", bad_vector, 1, UNITS, 0, 0);
	refused("'stat/influence'[3]");
	begin();
	put_config();
	put_calib(0);
	put_weight("a");
	put_joint(0, 0);
	refused("'stat/joint/raw/2' comes after the first weight");
	begin();
	assert_int_equal(vq_writer_put_bytes(w, VQ_KIND_META, "config", "{\"arch\": 7", 10, NULL),
			 VQ_OK);
	put_calib(0);
	refused("config");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_of_an_unknown_kind_pass_with_their_attributes),
		cmocka_unit_test(a_pair_of_independent_layers_makes_the_block),
		cmocka_unit_test(each_segment_gets_its_plan_even_without_weights),
		cmocka_unit_test(streams_that_hold_nonsense_are_refused_by_record),
	};

	return cmocka_run_group_tests_name("entropy", tests, setup, teardown);
}
