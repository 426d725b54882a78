/* Search on a small random model. */
#include "toy_stream.h"

#include "quant/grid.h"
#include "quant/rtn.h"
#include "stream/reader.h"
#include "task/search.h"
#include "task/search_held.h"

static char dir[64];

static const char *file(const char *name)
{
	static char path[8][128];
	static int next;
	char *p = path[next++ % 8];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

static struct vq_search_opts defaults(void)
{
	return (struct vq_search_opts){
		.method = VQ_METHOD_QVLM,
		.w = {4, 128, 0},
		.a = {4, 128, 0, 1},
		.parts = VQ_PART_ALL,
		.veo = 1,
		.eta = 10,
		.last_unit = UINT32_MAX,
		.sweeps = 2,
	};
}

static int run(const struct vq_search_opts *o, const char *in, const char *out, struct vq_err *err)
{
	int a = open(in, O_RDONLY), b = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0666), rc;

	assert_true(a >= 0 && b >= 0);
	rc = vq_search_run(o, a, in, b, out, 0, err);
	close(a);
	close(b);
	return rc;
}

/* Every record of a stream. */
static void load(const char *path, struct vq_held_list *all)
{
	int fd = open(path, O_RDONLY), rc;
	struct vq_err err = {0};
	struct vq_record rec;
	struct vq_reader *r;

	assert_int_equal(vq_reader_open(&r, fd, path, &err), VQ_OK);
	assert_int_equal(vq_reader_segment(r, &err), 1);
	while ((rc = vq_reader_next(r, &rec, &err)) == 1)
		assert_int_equal(vq_held_load(all, r, &rec, &err), VQ_OK);
	assert_int_equal(rc, 0);
	vq_reader_close(r);
	close(fd);
}

static void rtn_is_the_grid_applied_to_every_linear(void **state)
{
	static const uint32_t bits[] = {2, 3, 4, 5, 6, 7, 8};
	struct toy t = {.cfg = toy_config(), .seed = 1};
	size_t b, i;

	(void)state;
	toy_write(file("in"), &t);
	for (b = 0; b < sizeof(bits) / sizeof(bits[0]); b++) {
		struct vq_search_opts o = defaults();
		struct vq_held_list in = {0}, out = {0};
		struct vq_err err = {0};
		size_t n_linears = 0;

		o.method = VQ_METHOD_RTN;
		o.w = (struct vq_wgrid){bits[b], 32, b % 2 == 0};
		assert_int_equal(run(&o, file("in"), file("out"), &err), VQ_OK);
		load(file("in"), &in);
		load(file("out"), &out);
		for (i = 0; i < in.n; i++) {
			const struct vq_held *h = &in.items[i];
			const struct vq_held *q = vq_held_find(&out, h->rec.name);
			struct vq_codes c;
			struct vq_searched s;
			float *w;
			size_t n;

			assert_non_null(q);
			if (!json_is_true(json_object_get(h->rec.attrs, "linear"))) {
				assert_int_equal(h->rec.hash, q->rec.hash);
				continue;
			}
			n_linears++;
			n = (size_t)(h->rec.dims[0] * h->rec.dims[1]);
			w = vq_alloc_f32(n, NULL);
			vq_f16_to_f32_n(w, h->data, n);
			assert_int_equal(vq_codes_alloc(&c, &o.w, (uint32_t)h->rec.dims[0],
							(uint32_t)h->rec.dims[1], &err),
					 VQ_OK);
			vq_grid_fit(&c, w, 1);
			assert_int_equal(vq_held_searched(&out, h->rec.name, &s, &err), VQ_OK);
			assert_memory_equal(s.codes.codes, c.codes, n);
			assert_memory_equal(s.codes.scale, c.scale,
					    2 * c.n_out * vq_grid_n_groups(&c.grid, c.n_in));
			if (c.zero)
				assert_memory_equal(s.codes.zero, c.zero,
						    c.n_out * vq_grid_n_groups(&c.grid, c.n_in));
			else
				assert_null(s.codes.zero);
			assert_int_equal(s.codes.grid.bits, bits[b]);
			assert_int_equal(s.act.bits, 4);
			vq_codes_free(&c);
			vq_free(w);
		}
		assert_int_equal(n_linears, 2 * 6 + 2 + 3 * 7);
		vq_held_clear(&in);
		vq_held_clear(&out);
	}
}

/* Error of block A-B with a method, from the STAT record. */
static double stat_error(const char *path, uint32_t a, uint32_t b, const char *key)
{
	struct vq_held_list all = {0};
	const struct vq_held *h;
	struct vq_err err = {0};
	char name[64];
	double e;
	json_t *j;

	load(path, &all);
	snprintf(name, sizeof(name), "search/block/%u-%u", a, b);
	h = vq_held_find(&all, name);
	assert_non_null(h);
	j = vq_json_parse(h->data, h->rec.raw_bytes, name, &err);
	assert_non_null(j);
	e = json_number_value(json_object_get(j, key));
	json_decref(j);
	vq_held_clear(&all);
	return e;
}

static const uint32_t toy_blocks[][2] = {{0, 1}, {2, 2}, {3, 4}, {5, 5}};

static void qvlm_is_never_worse_than_layerwise_and_rtn(void **state)
{
	struct toy t = {.cfg = toy_config(), .n_samples = 12, .blocks = toy_blocks, .n_blocks = 4};
	uint64_t seed;
	size_t i;

	(void)state;
	for (seed = 0; seed < 4; seed++) {
		struct vq_search_opts o = defaults();
		struct vq_err err = {0};

		t.seed = seed;
		toy_write(file("in"), &t);
		assert_int_equal(run(&o, file("in"), file("out"), &err), VQ_OK);
		for (i = 0; i < 4; i++) {
			uint32_t a = toy_blocks[i][0], b = toy_blocks[i][1];
			double plain = stat_error(file("out"), a, b, "error_plain");
			double lw = stat_error(file("out"), a, b, "error_layerwise");
			double e = stat_error(file("out"), a, b, "error");

			print_message("# figure: seed %d units %u-%u: plain %.4g layerwise %.4g "
				      "qvlm %.4g\n",
				      (int)seed, a, b, plain, lw, e);
			assert_true(e > 0 && e <= lw && e <= plain);
		}
	}
}

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/vqlm-search-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -r '%s'", dir);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(qvlm_is_never_worse_than_layerwise_and_rtn),
		cmocka_unit_test(rtn_is_the_grid_applied_to_every_linear),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
