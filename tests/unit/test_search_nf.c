/* NF4 and NF3 from search by way of the stream and the packed model to what is multiplied. */
#include "search_run.h"
#include "toy_stream.h"
#include "vqm_bytes.h"

#include <omp.h>

#include "model/packed.h"

static const uint32_t toy_blocks[][2] = {{0, 1}, {2, 2}, {3, 5}};

/* Its widths are 32, 48, 64 and 96: blocks of 64 straddle the rows of all but one. */
static struct toy a_toy(void)
{
	return (struct toy){.cfg = toy_config(),
			    .n_samples = 8,
			    .blocks = toy_blocks,
			    .n_blocks = 3,
			    .seed = 7};
}

static struct vq_search_opts nf_opts(uint32_t bits)
{
	return (struct vq_search_opts){
		.method = VQ_METHOD_NF4,
		.w = {bits, 64, 0},
		.a = {.bits = 8, .group = 32, .clip = 1},
		.act_lp = 2,
		.parts = VQ_PART_ALL,
		.last_unit = UINT32_MAX,
	};
}

static const struct vq_pack_opts pack_opts = {.license = "cc0-1.0"};

static void store(const char *name, const struct vq_held_list *all)
{
	int fd = open(in_folder(name), O_WRONLY | O_CREAT | O_TRUNC, 0666);
	json_t *model = json_pack("{s:s}", "name", "toy"), *header;
	struct vq_err err = {0};
	struct vq_writer *w;

	header = vq_header_new("toy", model, &err);
	assert_int_equal(vq_writer_open(&w, fd, name, 0, &err), VQ_OK);
	assert_int_equal(vq_writer_begin(w, header, &err), VQ_OK);
	assert_int_equal(vq_held_put(all, w, &err), VQ_OK);
	assert_int_equal(vq_writer_end(w, &err), VQ_OK);
	vq_writer_close(w);
	close(fd);
	json_decref(header);
	json_decref(model);
}

/* The weight as fitted here. */
static void fitted(const struct vq_held *h, uint32_t bits, struct vq_nf *f, float *w)
{
	struct vq_nf_error e;
	struct vq_err err = {0};

	assert_int_equal(
		vq_nf_alloc(f, bits, (uint32_t)h->rec.dims[0], (uint32_t)h->rec.dims[1], &err),
		VQ_OK);
	assert_int_equal(vq_nf_fit(f, h->data, h->rec.dtype, &e, &err), VQ_OK);
	assert_int_equal(vq_nf_values(f, w, &err), VQ_OK);
}

static void every_linear_goes_to_the_bit_from_search_to_what_is_multiplied(void **state)
{
	struct toy t = a_toy();
	uint32_t bits;

	(void)state;
	toy_write(in_folder("in"), &t);
	for (bits = 3; bits <= 4; bits++) {
		struct vq_search_opts o = nf_opts(bits);
		struct vq_held_list in = {0};
		uint32_t n_straddling = 0, n_linears = 0;
		struct vq_err err;
		struct vq_model m;
		struct vq_vqm v;
		size_t i;

		assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
		assert_int_equal(pack_files(&pack_opts, "out", "x.vqm", &err), VQ_OK);
		assert_int_equal(vq_vqm_open(&v, in_folder("x.vqm"), 1, &err), VQ_OK);
		assert_int_equal(vq_model_from_vqm(&m, &v, &err), VQ_OK);
		load_stream("in", &in);
		for (i = 0; i < in.n; i++) {
			const struct vq_held *h = &in.items[i];
			float want[96 * 96], got[96 * 96];
			const struct vq_linear *l;
			struct vq_nf f;

			if (!json_is_true(json_object_get(h->rec.attrs, "linear")))
				continue;
			l = vq_model_linear(&m, h->rec.name);
			assert_non_null(l);
			assert_non_null(l->packed);
			assert_int_equal(l->packed->straddles, l->n_in % 64 != 0);
			n_straddling += (uint32_t)l->packed->straddles;
			n_linears++;
			fitted(h, bits, &f, want);
			vq_packed_rows(l->packed, 0, l->n_out, l->n_in, got);
			assert_memory_equal(want, got, (size_t)l->n_out * l->n_in * sizeof(float));
			vq_nf_free(&f);
		}
		assert_int_equal(n_linears, 2 * 6 + 2 + 3 * 7);
		assert_true(n_straddling > 0 && n_straddling < n_linears);
		vq_held_clear(&in);
		vq_model_free(&m);
		vq_vqm_close(&v);
	}
}

static void six_and_eight_bits_are_uniform_in_groups_of_64(void **state)
{
	struct toy t = a_toy();
	uint32_t bits;

	(void)state;
	toy_write(in_folder("in"), &t);
	for (bits = 6; bits <= 8; bits += 2) {
		struct vq_search_opts o = nf_opts(bits), rtn = o;
		struct vq_held_list a = {0}, b = {0};
		struct vq_err err;
		size_t i;

		rtn.method = VQ_METHOD_RTN;
		assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
		assert_int_equal(search_files(&rtn, "in", "rtn", &err), VQ_OK);
		load_stream("out", &a);
		load_stream("rtn", &b);
		assert_int_equal(a.n, b.n);
		for (i = 0; i < a.n; i++) {
			assert_string_equal(a.items[i].rec.name, b.items[i].rec.name);
			assert_int_equal(a.items[i].rec.hash, b.items[i].rec.hash);
		}
		vq_held_clear(&a);
		vq_held_clear(&b);
	}
}

/* Clips of inputs want calibration: then weights come by block, and are the same. */
static void clips_of_the_inputs_leave_the_weights_alone(void **state)
{
	struct vq_search_opts o = nf_opts(4), clipped = o;
	struct vq_held_list a = {0}, b = {0};
	struct toy t = a_toy();
	struct vq_err err;
	uint32_t n = 0;
	size_t i;

	(void)state;
	toy_write(in_folder("in"), &t);
	assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
	clipped.clip = 1;
	assert_int_equal(search_files(&clipped, "in", "clipped", &err), VQ_OK);
	load_stream("out", &a);
	load_stream("clipped", &b);
	for (i = 0; i < a.n; i++) {
		const struct vq_held *h = vq_held_find(&b, a.items[i].rec.name);

		if (a.items[i].rec.kind != VQ_KIND_TENSOR && a.items[i].rec.kind != VQ_KIND_GRID)
			continue;
		assert_non_null(h);
		assert_int_equal(h->rec.hash, a.items[i].rec.hash);
		n += strstr(h->rec.name, ".absmax_offset") != NULL;
	}
	assert_int_equal(n, 2 * 6 + 2 + 3 * 7);
	vq_held_clear(&a);
	vq_held_clear(&b);
}

/* Stored ranges want calibration too. */
static void stored_ranges_of_the_inputs_leave_the_weights_alone(void **state)
{
	struct vq_search_opts o = nf_opts(4), stored = o;
	struct vq_held_list a = {0}, b = {0};
	struct toy t = a_toy();
	uint32_t n = 0, scheme;
	struct vq_err err;
	size_t i;

	(void)state;
	toy_write(in_folder("in"), &t);
	assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
	load_stream("out", &a);
	for (scheme = VQ_ACTS_STATIC; scheme <= VQ_ACTS_PAPER; scheme++) {
		stored.acts = (enum vq_acts_scheme)scheme;
		assert_int_equal(search_files(&stored, "in", "stored", &err), VQ_OK);
		load_stream("stored", &b);
		for (i = 0; i < a.n; i++) {
			const struct vq_held *h = vq_held_find(&b, a.items[i].rec.name);

			if (a.items[i].rec.kind != VQ_KIND_TENSOR &&
			    a.items[i].rec.kind != VQ_KIND_GRID)
				continue;
			assert_non_null(h);
			assert_int_equal(h->rec.hash, a.items[i].rec.hash);
			n += strstr(h->rec.name, ".absmax_offset") != NULL;
		}
		vq_held_clear(&b);
		assert_int_equal(pack_files(&pack_opts, "stored", "x.vqm", &err), VQ_OK);
	}
	assert_int_equal(n, 2 * (2 * 6 + 2 + 3 * 7));
	vq_held_clear(&a);
}

/* The codes are those of the transformed weight, and the model computes on transformed inputs. */
static void rotated_weights_are_packed_with_their_transform(void **state)
{
	struct vq_search_opts o = nf_opts(4), plain = o;
	struct vq_held_list a = {0}, b = {0};
	struct toy t = a_toy();
	struct vq_err err;
	struct vq_model m;
	struct vq_vqm v;
	uint32_t n = 0;
	size_t i;

	(void)state;
	toy_write(in_folder("in"), &t);
	o.rotate = VQ_ROTATE_HADAMARD;
	assert_int_equal(search_files(&plain, "in", "plain", &err), VQ_OK);
	assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
	assert_int_equal(pack_files(&pack_opts, "out", "x.vqm", &err), VQ_OK);
	assert_int_equal(vq_vqm_open(&v, in_folder("x.vqm"), 1, &err), VQ_OK);
	assert_int_equal(vq_model_from_vqm(&m, &v, &err), VQ_OK);
	load_stream("plain", &a);
	load_stream("out", &b);
	for (i = 0; i < a.n; i++) {
		const struct vq_held *h = &a.items[i], *r;

		if (h->rec.kind != VQ_KIND_TENSOR || !json_object_get(h->rec.attrs, "grid"))
			continue;
		r = vq_held_find(&b, h->rec.name);
		assert_non_null(r);
		assert_true(r->rec.hash != h->rec.hash);
		assert_non_null(vq_model_linear(&m, h->rec.name)->transform);
		assert_non_null(vq_model_linear(&m, h->rec.name)->packed->value);
		n++;
	}
	assert_int_equal(n, 2 * 6 + 2 + 3 * 7);
	vq_held_clear(&a);
	vq_held_clear(&b);
	vq_model_free(&m);
	vq_vqm_close(&v);
}

static void threads_and_interruptions_do_not_show(void **state)
{
	struct toy t = a_toy();
	struct vq_err err;
	uint32_t block;

	(void)state;
	toy_write(in_folder("in"), &t);
	for (block = 0; block < 4; block++) { /* tensor by tensor, then block by block */
		struct vq_search_opts o = nf_opts(4), again;
		char *p;
		size_t n, i;

		o.clip = block == 1;
		o.acts = block == 3 ? VQ_ACTS_PAPER : VQ_ACTS_GROUP;
		o.rotate = block == 2 ? VQ_ROTATE_HADAMARD : VQ_ROTATE_NONE;
		omp_set_num_threads(1);
		assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
		omp_set_num_threads(3);
		assert_int_equal(search_files(&o, "in", "again", &err), VQ_OK);
		assert_same_files("out", "again");
		omp_set_num_threads(1);
		again = o;
		p = bytes_of("out", &n);
		for (i = 1; i < 12; i++) {
			put_file("cut", p, n * i / 12);
			again.resume = in_folder("cut");
			assert_int_equal(search_files(&again, "in", "again", &err), VQ_OK);
			assert_same_files("out", "again");
		}
		vq_free(p);
	}
}

/* --- what comes from a file is checked --- */

#define LINEAR "decoder.layers.0.down_proj"

static struct vq_held *record(struct vq_held_list *l, const char *suffix)
{
	char name[128];

	snprintf(name, sizeof(name), "%s%s", LINEAR, suffix);
	return (struct vq_held *)(uintptr_t)vq_held_find(l, name);
}

enum fault {
	CODE,
	SCALE_NAN,
	SCALE_NEGATIVE,
	OFFSET,
	SHAPE,
	TYPE,
	MISSING,
	ORDER,
	GRID,
	OVERFLOW,
	N_FAULTS
};

static void spoil(struct vq_held_list *l, enum fault f)
{
	struct vq_held *h = record(l, f == CODE || f == GRID                    ? ".weight"
				      : f == OFFSET                             ? ".absmax_offset"
				      : f == SHAPE || f == TYPE || f == MISSING ? ".absmax"
										: ".absmax_scale");
	json_t *grid;

	assert_non_null(h);
	switch (f) {
	case CODE: ((uint8_t *)h->data)[5] = 16; break;
	case SCALE_NAN:
	case OFFSET: *(float *)h->data = NAN; break;
	case SCALE_NEGATIVE: *(float *)h->data = -1; break;
	case SHAPE:
		h->rec.dims[0]--;
		h->rec.raw_bytes--;
		break;
	case TYPE: h->rec.dtype = VQ_I8; break;
	case MISSING:
	case ORDER: snprintf(h->rec.name, sizeof(h->rec.name), LINEAR ".zero"); break;
	case GRID:
		grid = json_object_get(h->rec.attrs, "grid");
		json_object_set_new(grid, "block", json_integer(128));
		break;
	case OVERFLOW:
		*(float *)h->data = 3e38f;
		*(float *)record(l, ".absmax_offset")->data = -3e38f;
		break;
	case N_FAULTS: break;
	}
	h->rec.hash = 0;
}

static void bad_records_are_refused_by_name(void **state)
{
	static const char *const says[N_FAULTS] = {
		"'" LINEAR ".weight': has codes of more bits",
		"scale 0 of absmax is no number",
		"scale 0 of absmax is no number",
		"offset of absmax is no number",
		"'" LINEAR ".absmax': want u8 of shape",
		"'" LINEAR ".absmax': want u8 of shape",
		"want '" LINEAR ".absmax' after the codes",
		"want '" LINEAR ".absmax_scale' after the codes",
		"want type nf of 3 or 4 bits, block 64",
		"scale 0 of absmax and its offset leave float32",
	};
	struct vq_search_opts o = nf_opts(4);
	struct toy t = a_toy();
	struct vq_err err;
	int f;

	(void)state;
	toy_write(in_folder("in"), &t);
	assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
	for (f = 0; f < N_FAULTS; f++) {
		struct vq_held_list l = {0};
		struct vq_searched q;

		load_stream("out", &l);
		spoil(&l, (enum fault)f);
		assert_int_equal(vq_held_searched(&l, LINEAR ".weight", &q, &err), VQ_E_DATA);
		store("bad", &l);
		vq_held_clear(&l);
		assert_int_equal(pack_files(&pack_opts, "bad", "bad.vqm", &err), VQ_E_DATA);
		assert_says(&err, SAYS(says[f]));
	}
}

static void a_packed_weight_that_says_what_is_not_there_is_refused_by_name(void **state)
{
	static const struct {
		const char *from, *to, *says;
	} faults[] = {
		{"\"planes\":[0,", "\"planes\":[9,", "part 'planes'"},
		{"\"absmax\":", "\"axmaxs\":", "part 'absmax'"},
		{"\"absmax_scale\":", "\"absmax_scala\":", "part 'absmax_scale'"},
		{"\"absmax_offset\":", "\"absmax_offer!\":", "part 'absmax_offset'"},
		{"\"bits\":4", "\"bits\":5", "want type nf of 3 or 4 bits"},
		{"\"bits\":4", "\"bits\":3", "part 'planes'"},
		{"\"type\":\"nf\"", "\"type\":\"nq\"", "'nq'"},
		{"\"double\":256", "\"double\":255", "double 256"},
	};
	struct vq_search_opts o = nf_opts(4);
	struct toy t = a_toy();
	struct vq_vqm good, v;
	struct vq_model m;
	struct vq_err err;
	size_t i;

	(void)state;
	toy_write(in_folder("in"), &t);
	assert_int_equal(search_files(&o, "in", "out", &err), VQ_OK);
	assert_int_equal(pack_files(&pack_opts, "out", "x.vqm", &err), VQ_OK);
	assert_int_equal(vq_vqm_open(&good, in_folder("x.vqm"), 1, &err), VQ_OK);
	for (i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		struct bytes bad =
			doctored(&good, LINEAR ".weight.json", faults[i].from, faults[i].to);

		assert_int_equal(open_bytes(&v, bad.p, bad.n, &err), VQ_OK);
		assert_int_equal(vq_model_from_vqm(&m, &v, &err), VQ_E_DATA);
		assert_says(&err, SAYS(LINEAR ".weight.json", faults[i].says));
		vq_vqm_close(&v);
		vq_free(bad.p);
	}
	vq_vqm_close(&good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_linear_goes_to_the_bit_from_search_to_what_is_multiplied),
		cmocka_unit_test(six_and_eight_bits_are_uniform_in_groups_of_64),
		cmocka_unit_test(clips_of_the_inputs_leave_the_weights_alone),
		cmocka_unit_test(stored_ranges_of_the_inputs_leave_the_weights_alone),
		cmocka_unit_test(rotated_weights_are_packed_with_their_transform),
		cmocka_unit_test(threads_and_interruptions_do_not_show),
		cmocka_unit_test(bad_records_are_refused_by_name),
		cmocka_unit_test(a_packed_weight_that_says_what_is_not_there_is_refused_by_name),
	};

	return cmocka_run_group_tests(tests, quiet_folder_setup, folder_teardown);
}
