/* Activation schemes through search, pack and the packed model, on a small random model. */
#include "search_run.h"
#include "toy_stream.h"

#include <omp.h>

#include "model/packed.h"
#include "task/search_scheme.h"

static const uint32_t toy_blocks[][2] = {{0, 1}, {2, 2}, {3, 4}, {5, 5}};
static const struct toy usual = {.n_samples = 12, .blocks = toy_blocks, .n_blocks = 4, .seed = 5};

static struct vq_search_opts opts(enum vq_method method, enum vq_acts_scheme acts)
{
	return (struct vq_search_opts){
		.method = method,
		.acts = acts,
		.act_lp = 2,
		.w = {4, 32, 0},
		.a = {.bits = 4, .group = acts == VQ_ACTS_STATIC ? 32 : 0, .clip = 1},
		.parts = VQ_PART_ALL,
		.veo = 1,
		.eta = 10,
		.last_unit = UINT32_MAX,
		.sweeps = 1,
	};
}

static void write_toy(uint32_t n_samples)
{
	struct toy t = usual;

	t.cfg = toy_config();
	t.n_samples = n_samples;
	toy_write(in_folder("in"), &t);
}

static const enum vq_method methods[] = {VQ_METHOD_RTN, VQ_METHOD_LAYERWISE, VQ_METHOD_QVLM,
					 VQ_METHOD_GPTQ, VQ_METHOD_AWQ};

/* What a linear of the toy should have. */
static void check_linear(const struct vq_held_list *all, const struct vq_name *n,
			 enum vq_acts_scheme acts, const struct vq_config *c)
{
	int vision = strncmp(n->name, "vision.", 7) == 0;
	struct vq_err err = {0};
	struct vq_searched q;
	uint32_t i, wide = 0;

	assert_int_equal(vq_held_searched(all, n->name, &q, &err), VQ_OK);
	assert_int_equal(q.act.bits, 4);
	if (acts == VQ_ACTS_STATIC) {
		assert_int_equal(q.act.range, VQ_RANGE_STATIC);
		assert_int_equal(q.act.n_ranges, vq_ceil_div((uint32_t)n->dims[1], 32));
	} else {
		assert_int_equal(q.act.range, vision ? VQ_RANGE_POSITION : VQ_RANGE_CHANNEL);
		assert_int_equal(q.act.n_ranges,
				 vision ? vq_vision_positions(c) : (uint32_t)n->dims[1]);
	}
	for (i = 0; i < q.act.n_ranges; i++) {
		assert_true(q.act.lo[i] <= 0 && q.act.hi[i] >= 0);
		wide += q.act.hi[i] > q.act.lo[i];
	}
	assert_int_equal(wide, q.act.n_ranges); /* measured: no range of the toy is empty */
}

/* The packed model has the ranges of the stream, in the linears. */
static void check_packed(const struct vq_held_list *all, const struct vq_name *names, size_t n)
{
	struct vq_err err = {0};
	struct vq_model m;
	struct vq_vqm v;
	size_t i, n_ranges = 0;

	assert_int_equal(vq_vqm_open(&v, in_folder("out.vqm"), 1, &err), VQ_OK);
	assert_int_equal(vq_model_from_vqm(&m, &v, &err), VQ_OK);
	for (i = 0; i < n; i++) {
		struct vq_linear *l = vq_model_linear(&m, names[i].name);
		struct vq_searched q;

		if (!names[i].linear)
			continue;
		assert_int_equal(vq_held_searched(all, names[i].name, &q, &err), VQ_OK);
		assert_non_null(l);
		assert_true(vq_agrid_same(&l->act, &q.act));
		n_ranges += l->act.n_ranges;
	}
	assert_true(n_ranges > 0);
	vq_model_free(&m);
	vq_vqm_close(&v);
}

static void every_method_stores_the_ranges_of_its_scheme_and_the_packed_model_has_them(void **state)
{
	struct vq_config c = toy_config();
	struct vq_err err = {0};
	struct vq_name *names;
	size_t n, i, k;

	(void)state;
	write_toy(12);
	assert_int_equal(vq_names_list(&c, &names, &n, &err), VQ_OK);
	for (k = 0; k < 2 * sizeof(methods) / sizeof(methods[0]); k++) {
		enum vq_acts_scheme acts = k % 2 ? VQ_ACTS_PAPER : VQ_ACTS_STATIC;
		struct vq_search_opts o = opts(methods[k / 2], acts);
		struct vq_held_list all = {0};

		assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
		load_stream("out", &all);
		for (i = 0; i < n; i++)
			if (names[i].linear)
				check_linear(&all, &names[i], acts, &c);
		assert_int_equal(pack_files(&(struct vq_pack_opts){0}, "out", "out.vqm", &err),
				 VQ_OK);
		check_packed(&all, names, n);
		vq_held_clear(&all);
	}
	vq_free(names);
}

static void cut_runs_are_resumed_and_threads_change_nothing(void **state)
{
	size_t k, n, i;

	(void)state;
	write_toy(12);
	for (k = 0; k < 4; k++) {
		struct vq_search_opts o = opts(methods[k], k % 2 ? VQ_ACTS_STATIC : VQ_ACTS_PAPER);
		struct vq_err err = {0};
		char *p;

		o.w.bits = k == 0 ? 16 : 4; /* float weights have ranges too */
		omp_set_num_threads(1);
		assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
		omp_set_num_threads(3);
		assert_int_equal(search_files(&o, "in", "again", &err), VQ_OK);
		omp_set_num_threads(1);
		assert_same_files("out", "again");
		p = bytes_of("out", &n);
		for (i = 1; i < 8; i++) {
			struct vq_search_opts again = o;

			put_file("cut", p, n * i / 8 + i);
			again.resume = in_folder("cut");
			assert_int_equal(search_files(&again, "in", "again", &err), VQ_OK);
			assert_same_files("out", "again");
		}
		vq_free(p);
	}
}

static void stored_ranges_want_samples_and_others_do_not(void **state)
{
	struct vq_search_opts o = opts(VQ_METHOD_RTN, VQ_ACTS_STATIC);
	struct vq_err err = {0};

	(void)state;
	write_toy(0);
	assert_int_equal(search_files(&o, "in", "out", &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "--acts static"));
	assert_non_null(strstr(err.text, "vqlm-calib"));
	o = opts(VQ_METHOD_RTN, VQ_ACTS_TOKEN); /* nothing is stored: no samples needed */
	write_toy(0);
	assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
}

/* Copies "out" to "bad" with the range record of one linear changed by hand. */
enum harm { DROP, HIGH, NOT_A_NUMBER, SHORT, OTHER_KIND };

static void harm(enum harm how, const char *name)
{
	int in = open(in_folder("out"), O_RDONLY);
	int fd = open(in_folder("bad"), O_WRONLY | O_CREAT | O_TRUNC, 0666);
	struct vq_err err = {0};
	struct vq_record rec;
	struct vq_reader *r;
	struct vq_writer *w;

	assert_int_equal(vq_reader_open(&r, in, "out", &err), VQ_OK);
	assert_int_equal(vq_writer_open(&w, fd, "bad", 0, &err), VQ_OK);
	assert_int_equal(vq_reader_segment(r, &err), 1);
	assert_int_equal(vq_writer_begin(w, vq_reader_header(r), &err), VQ_OK);
	while (vq_reader_next(r, &rec, &err) == 1) {
		struct vq_record own = rec;
		void *data = NULL;
		float *f;

		assert_int_equal(vq_reader_load(r, &data, &err), VQ_OK);
		f = data;
		if (strcmp(rec.name, name) == 0) {
			if (how == HIGH)
				f[0] = 1; /* lo > 0 */
			if (how == NOT_A_NUMBER)
				f[rec.dims[1]] = NAN;
			if (how == SHORT)
				own.dims[1]--;
			if (how == OTHER_KIND)
				own.dtype = VQ_I32;
		}
		if (how != DROP || strcmp(rec.name, name) != 0)
			assert_int_equal(vq_writer_put(w, &own, data, &err), VQ_OK);
		vq_free(data);
	}
	assert_int_equal(vq_writer_end(w, &err), VQ_OK);
	vq_writer_close(w);
	vq_reader_close(r);
	close(in);
	close(fd);
}

static void bad_ranges_are_refused_by_name_where_they_come_in(void **state)
{
	static const char *const linears[] = {"vision.layers.0.q_proj",
					      "decoder.layers.1.down_proj"};
	struct vq_search_opts o = opts(VQ_METHOD_RTN, VQ_ACTS_PAPER);
	struct vq_err err = {0};
	char weight[64], range[64];
	size_t k;
	int h;

	(void)state;
	write_toy(12);
	assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
	for (k = 0; k < 2; k++)
		for (h = DROP; h <= OTHER_KIND; h++) {
			struct vq_held_list all = {0};
			struct vq_searched q;

			snprintf(weight, sizeof(weight), "%s.weight", linears[k]);
			snprintf(range, sizeof(range), "%s.range", linears[k]);
			harm((enum harm)h, range);
			err = (struct vq_err){0};
			assert_int_equal(
				pack_files(&(struct vq_pack_opts){0}, "bad", "out.vqm", &err),
				VQ_E_DATA);
			assert_non_null(strstr(err.text, range));
			load_stream("bad", &all);
			err = (struct vq_err){0};
			assert_int_equal(vq_held_searched(&all, weight, &q, &err), VQ_E_DATA);
			vq_held_clear(&all);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			every_method_stores_the_ranges_of_its_scheme_and_the_packed_model_has_them),
		cmocka_unit_test(cut_runs_are_resumed_and_threads_change_nothing),
		cmocka_unit_test(stored_ranges_want_samples_and_others_do_not),
		cmocka_unit_test(bad_ranges_are_refused_by_name_where_they_come_in),
	};

	return cmocka_run_group_tests_name("search_scheme", tests, folder_setup, folder_teardown);
}
