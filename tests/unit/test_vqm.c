/* The packed model: what is packed is found again, and anything else is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "base/rng.h"
#include "demo_model.h"
#include "quant/agrid.h"
#include "stream/history.h"
#include "stream/reader.h"
#include "stream/writer.h"
#include "task/pack.h"

/* --- the container --- */

static uint8_t blob[70000];

static struct bytes container(const char *second)
{
	char longname[180];
	struct vq_err err = {0};
	struct vq_vqm_writer *w;
	int fd = file_new();

	memset(longname, 'n', sizeof(longname));
	longname[sizeof(longname) - 1] = '\0';
	assert_int_equal(vq_vqm_create(&w, fd, "x.vqm", &err), VQ_OK);
	assert_int_equal(vq_vqm_add(w, "model.json", "{}", 2, &err), VQ_OK);
	assert_int_equal(vq_vqm_add(w, second, NULL, 0, &err), VQ_OK);
	assert_int_equal(vq_vqm_add(w, "w.json", "{\"a\":1}", 7, &err), VQ_OK);
	assert_int_equal(vq_vqm_begin(w, "w", sizeof(blob), &err), VQ_OK);
	assert_int_equal(vq_vqm_data(w, blob, 1000, &err), VQ_OK);
	assert_int_equal(vq_vqm_data(w, blob + 1000, sizeof(blob) - 1000, &err), VQ_OK);
	assert_int_equal(vq_vqm_add(w, longname, "y", 1, &err), VQ_OK);
	assert_int_equal(vq_vqm_finish(w, NULL, &err), VQ_OK);
	vq_vqm_abort(w);
	return file_bytes(fd);
}

static void what_is_packed_is_found_again(void **state)
{
	struct bytes b = container("empty"), c = container("empty");
	const struct vq_vqm_member *m;
	struct vq_err err;
	struct vq_vqm v;
	size_t i;

	(void)state;
	assert_int_equal(b.n, c.n);
	assert_memory_equal(b.p, c.p, b.n);
	assert_int_equal(open_bytes(&v, b.p, b.n, &err), VQ_OK);
	assert_int_equal(v.n, 6);
	for (i = 0; i < v.n; i++) {
		assert_int_equal(v.members[i].offset % 512, 0);
		assert_int_equal((uintptr_t)v.members[i].data % 64, 0);
	}
	m = vq_vqm_find(&v, "w");
	assert_non_null(m);
	assert_int_equal(m->n, sizeof(blob));
	assert_memory_equal(m->data, blob, sizeof(blob));
	assert_memory_equal(b.p + m->offset, blob, sizeof(blob));
	assert_null(vq_vqm_find(&v, "x"));
	assert_int_equal(vq_vqm_find(&v, "empty")->n, 0);
	assert_string_equal(v.members[5].name, "manifest.json");
	assert_true(vq_vqm_is_tar(b.p, b.n));
	vq_vqm_close(&v);
	vq_free(b.p);
	vq_free(c.p);
}

static void a_cut_archive_is_refused_wherever_it_is_cut(void **state)
{
	struct bytes b = container("empty");
	struct vq_rng rng = vq_rng_new(3, "cut");
	struct vq_err err;
	struct vq_vqm v;
	size_t at, i;

	(void)state;
	for (at = 0; at < b.n; at += 512)
		assert_int_equal(open_bytes(&v, b.p, at, &err), VQ_E_DATA);
	for (i = 0; i < 100; i++) {
		at = (size_t)(vq_rng_u64(rng, i) % b.n);
		assert_int_equal(open_bytes(&v, b.p, at, &err), VQ_E_DATA);
	}
	assert_int_equal(open_bytes(&v, b.p, b.n - 1, &err), VQ_E_DATA);
	vq_free(b.p);
}

static void a_flipped_bit_in_any_member_is_refused_and_the_member_named(void **state)
{
	struct bytes b = container("empty");
	struct vq_rng rng = vq_rng_new(4, "flip");
	struct vq_err err;
	struct vq_vqm v, whole;
	size_t i, k;

	(void)state;
	assert_int_equal(open_bytes(&whole, b.p, b.n, &err), VQ_OK);
	for (i = 0; i < whole.n; i++) {
		const struct vq_vqm_member *m = &whole.members[i];

		for (k = 0; m->n && k < 60; k++) {
			size_t at = m->offset + (size_t)(vq_rng_u64(rng, 64 * i + k) % m->n);
			uint8_t bit = (uint8_t)(1u << k % 8);

			b.p[at] ^= bit;
			assert_int_equal(open_bytes(&v, b.p, b.n, &err), VQ_E_DATA);
			b.p[at] ^= bit;
			if (i + 1 < whole.n)
				assert_non_null(strstr(err.text, m->name));
		}
	}
	vq_vqm_close(&whole);
	vq_free(b.p);
}

static void a_member_that_is_there_twice_is_refused(void **state)
{
	struct bytes b = container("model.json");
	struct vq_err err;
	struct vq_vqm v;

	(void)state;
	assert_int_equal(open_bytes(&v, b.p, b.n, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "'model.json' is there twice"));
	vq_free(b.p);
}

static void anything_else_is_refused(void **state)
{
	struct vq_err err;
	struct vq_vqm v;

	(void)state;
	assert_int_equal(open_bytes(&v, blob, sizeof(blob), &err), VQ_E_DATA);
	assert_int_equal(open_bytes(&v, blob, 0, &err), VQ_E_DATA);
	memset(&err, 0, sizeof(err));
	assert_int_equal(vq_vqm_open(&v, "absent.vqm", 0, &err), VQ_E_SYS);
}

struct feed {
	int fd;
	struct bytes b;
};

static void *feeder(void *arg)
{
	struct feed *f = arg;
	struct vq_err err = {0};

	assert_int_equal(vq_write_full(f->fd, f->b.p, f->b.n, "pipe", &err), VQ_OK);
	close(f->fd);
	return NULL;
}

static void a_pipe_gives_what_a_file_gives(void **state)
{
	struct feed f = {.b = container("empty")};
	struct vq_err err = {0};
	struct vq_vqm v;
	pthread_t t;
	int fd[2];

	(void)state;
	assert_int_equal(pipe(fd), 0);
	f.fd = fd[1];
	assert_int_equal(pthread_create(&t, NULL, feeder, &f), 0);
	assert_int_equal(vq_vqm_open_fd(&v, fd[0], "pipe", NULL, 0, 0, &err), VQ_OK);
	pthread_join(t, NULL);
	assert_memory_equal(vq_vqm_find(&v, "w")->data, blob, sizeof(blob));
	vq_vqm_close(&v);
	close(fd[0]);
	vq_free(f.b.p);
}

static void a_loaded_file_gives_what_a_mapped_one_gives(void **state)
{
	struct bytes b = container("empty");
	struct vq_err err = {0};
	struct vq_vqm v;
	size_t n;
	int fd = file_of(b.p, b.n);

	(void)state;
	assert_int_equal(vq_vqm_open_fd(&v, fd, "x.vqm", NULL, 0, VQ_VQM_LOAD, &err), VQ_OK);
	close(fd);
	assert_true(v.whole);
	assert_memory_equal(vq_vqm_bytes(&v, &n), b.p, b.n);
	assert_int_equal(n, b.n);
	assert_memory_equal(vq_vqm_find(&v, "w")->data, blob, sizeof(blob));
	vq_vqm_close(&v);
	fd = file_of(b.p, b.n - 512);
	assert_int_equal(vq_vqm_open_fd(&v, fd, "x.vqm", NULL, 0, VQ_VQM_LOAD, &err), VQ_E_DATA);
	close(fd);
	vq_free(b.p);
}

/* --- packing the demo model, quantized by rounding to nearest --- */

enum fault { FAULT_NONE, FAULT_CODE, FAULT_SCALE, FAULT_NO_ZERO, FAULT_META, FAULT_SHAPE };

struct piece {
	uint32_t first, last; /* units */
	enum fault fault;     /* in decoder.layers.0.o_proj.weight, or its META */
};

static uint32_t act_bits = 8;
static int head8;

static struct vq_wgrid grid_of(const char *name)
{
	/* Several widths, both kinds, whole rows and groups. */
	if (strncmp(name, "vision.", 7) == 0)
		return (struct vq_wgrid){6, 64, 0};
	return strstr(name, "down_proj") ? (struct vq_wgrid){3, 0, 1}
					 : (struct vq_wgrid){4, 128, 0};
}

static struct vq_codes quantized(const struct vq_name *n)
{
	struct vq_wgrid g = grid_of(n->name);
	uint32_t rows = (uint32_t)n->dims[0], cols = (uint32_t)n->dims[1];
	struct vq_err err = {0};
	struct vq_tensor t;
	struct vq_codes c;
	float *w = vq_alloc_f32((size_t)rows * cols, &err);

	assert_non_null(w);
	assert_int_equal(vq_names_find(&config, ckpt, n, &t, &err), VQ_OK);
	assert_int_equal(vq_tensor_to_f32(&t, 0, (size_t)rows * cols, w, &err), VQ_OK);
	assert_int_equal(vq_codes_alloc(&c, &g, rows, cols, &err), VQ_OK);
	vq_grid_fit(&c, w, 1);
	vq_free(w);
	return c;
}

static void put_grid(struct vq_writer *w, const char *weight, const char *what, enum vq_dtype type,
		     uint64_t rows, uint64_t cols, const void *data)
{
	struct vq_tensor t = {.dtype = type, .n_dims = 2, .dims = {rows, cols}, .data = data};
	struct vq_err err = {0};
	char name[128];

	snprintf(name, sizeof(name), "%.*s.%s", (int)(strlen(weight) - strlen(".weight")), weight,
		 what);
	assert_int_equal(vq_writer_put_tensor(w, VQ_KIND_GRID, name, &t, NULL, &err), VQ_OK);
}

static void put_linear(struct vq_writer *w, const struct vq_name *n, enum fault fault)
{
	struct vq_codes c = quantized(n);
	struct vq_tensor t = {
		.dtype = VQ_U8, .n_dims = 2, .dims = {c.n_out, c.n_in}, .data = c.codes};
	uint64_t groups = vq_grid_n_groups(&c.grid, c.n_in);
	struct vq_agrid act = {.bits = act_bits, .group = c.grid.group, .sym = 0, .clip = 0.98f};
	struct vq_err err = {0};
	json_t *attrs = json_pack("{s:i, s:b, s:{s:i, s:i, s:b}, s:o}", "unit", (int)n->unit,
				  "linear", 1, "grid", "bits", (int)c.grid.bits, "group",
				  (int)c.grid.group, "sym", c.grid.sym, "act", vq_agrid_json(&act));

	if (fault == FAULT_CODE)
		c.codes[17] = (uint8_t)(1u << c.grid.bits);
	if (fault == FAULT_SCALE)
		c.scale[3] = 0x7e00;
	if (fault == FAULT_SHAPE)
		t.dims[0]--;
	assert_int_equal(vq_writer_put_tensor(w, VQ_KIND_TENSOR, n->name, &t, attrs, &err), VQ_OK);
	put_grid(w, n->name, "scale", VQ_F16, c.n_out, groups, c.scale);
	if (c.zero && fault != FAULT_NO_ZERO)
		put_grid(w, n->name, "zero", VQ_U8, c.n_out, groups, c.zero);
	json_decref(attrs);
	vq_codes_free(&c);
}

static void put_segment(struct vq_writer *w, struct piece piece)
{
	struct vq_err err = {0};
	json_t *model = json_pack("{s:s, s:s}", "name", "mini-llava", "sha256", "0");
	json_t *h = vq_header_new("vqlm-calib", model, &err), *j = vq_config_json(&config, &err);
	json_t *calib = json_pack("{s:i}", "n", piece.fault == FAULT_META);
	char *tok = NULL;
	size_t n = 0, i;

	assert_int_equal(vq_writer_begin(w, h, &err), VQ_OK);
	assert_int_equal(vq_writer_put_json(w, VQ_KIND_META, "config", j, &err), VQ_OK);
	assert_int_equal(vq_writer_put_json(w, VQ_KIND_META, "calib", calib, &err), VQ_OK);
	assert_int_equal(vq_ckpt_file(ckpt, "tokenizer.json", &tok, &n, &err), 1);
	assert_int_equal(vq_writer_put_bytes(w, VQ_KIND_META, "tokenizer.json", tok, n, &err),
			 VQ_OK);
	for (i = 0; i < n_names; i++) {
		enum fault f = strcmp(names[i].name, "decoder.layers.0.o_proj.weight") == 0
				       ? piece.fault
				       : FAULT_NONE;
		struct vq_tensor t;

		if (names[i].unit < piece.first || names[i].unit > piece.last)
			continue;
		if (names[i].linear) {
			put_linear(w, &names[i], f);
			continue;
		}
		assert_int_equal(vq_names_find(&config, ckpt, &names[i], &t, &err), VQ_OK);
		assert_int_equal(
			vq_writer_put_tensor(w, VQ_KIND_TENSOR, names[i].name, &t, NULL, &err),
			VQ_OK);
	}
	assert_int_equal(vq_writer_end(w, &err), VQ_OK);
	vq_free(tok);
	json_decref(calib);
	json_decref(j);
	json_decref(h);
	json_decref(model);
}

/* Packs the pieces; the packed bytes, or the code with p NULL. */
static int pack_pieces(const struct piece *pieces, int n, struct bytes *out, struct vq_err *err)
{
	struct vq_pack_opts o = {.license = "cc0-1.0", .head8 = head8};
	int in = file_new(), fd = file_new(), i, rc;
	struct vq_writer *w;

	memset(err, 0, sizeof(*err));
	assert_int_equal(vq_writer_open(&w, in, "in", 0, err), VQ_OK);
	for (i = 0; i < n; i++)
		put_segment(w, pieces[i]);
	vq_writer_close(w);
	assert_true(lseek(in, 0, SEEK_SET) == 0);
	rc = vq_pack_run(&o, in, "in", fd, "out.vqm", err);
	assert_true(rc == VQ_OK || (err->code == rc && err->text[0]));
	close(in);
	*out = file_bytes(fd);
	return rc;
}

static void a_packed_model_has_the_codes_and_tensors_that_went_in(void **state)
{
	const struct piece all = {0, UINT32_MAX, FAULT_NONE};
	uint32_t quantized_linears = 0;
	struct vq_err err;
	struct vq_model m;
	struct vq_vqm v;
	struct bytes b;
	size_t i;

	(void)state;
	assert_int_equal(pack_pieces(&all, 1, &b, &err), VQ_OK);
	assert_int_equal(open_bytes(&v, b.p, b.n, &err), VQ_OK);
	assert_int_equal(vq_model_from_vqm(&m, &v, &err), VQ_OK);
	for (i = 0; i < n_names; i++) {
		const struct vq_linear *l = vq_model_linear(&m, names[i].name);
		struct vq_codes c;
		uint8_t *codes, *zero;
		uint16_t *scale;
		size_t n_scales;

		if (!names[i].linear) {
			const struct vq_vqm_member *mem = vq_vqm_find(&v, names[i].name);
			struct vq_tensor t;
			size_t n;

			assert_int_equal(vq_names_find(&config, ckpt, &names[i], &t, &err), VQ_OK);
			assert_int_equal(vq_tensor_count(&t, &n), VQ_OK);
			assert_int_equal(mem->n, n * vq_dtype_size(t.dtype));
			assert_memory_equal(mem->data, t.data, mem->n);
			continue;
		}
		c = quantized(&names[i]);
		n_scales = (size_t)c.n_out * vq_grid_n_groups(&c.grid, c.n_in);
		codes = vq_alloc((size_t)c.n_out * c.n_in, 1, &err);
		scale = vq_alloc(n_scales, 2, &err);
		zero = vq_alloc(n_scales, 1, &err);
		assert_non_null(l->packed);
		assert_int_equal(l->packed->bits, c.grid.bits);
		assert_int_equal(l->act.bits, 8);
		assert_true(l->act.clip == 0.98f);
		vq_unpack_codes(c.grid.bits, l->packed->planes, c.n_out, c.n_in, codes);
		assert_memory_equal(codes, c.codes, (size_t)c.n_out * c.n_in);
		vq_unpack_scales(l->packed->scale, c.n_out, l->packed->n_groups, scale);
		assert_memory_equal(scale, c.scale, 2 * n_scales);
		assert_int_equal(l->packed->zero == NULL, c.grid.sym);
		if (l->packed->zero) {
			vq_unpack_zeros(l->packed->zero, c.n_out, l->packed->n_groups, zero);
			assert_memory_equal(zero, c.zero, n_scales);
		}
		quantized_linears++;
		vq_free(codes);
		vq_free(scale);
		vq_free(zero);
		vq_codes_free(&c);
	}
	assert_true(quantized_linears > 50);
	assert_true(vq_vqm_weight_bytes(&v) < b.n);
	print_message("# figure: mini-llava, 3 to 6 bits: %zu bytes packed\n", b.n);
	vq_model_free(&m);
	vq_vqm_close(&v);
	vq_free(b.p);
}

static struct vq_codes packed(const struct vq_name *n, struct vq_transform *t)
{
	*t = (struct vq_transform){0};
	return quantized(n);
}

/* Packs with activations of so many bits; see compare_with_floats. */
static void compare(uint32_t bits, double *worst, double *shift)
{
	const struct piece all = {0, UINT32_MAX, FAULT_NONE};
	struct vq_err err;
	struct bytes b;

	act_bits = bits;
	assert_int_equal(pack_pieces(&all, 1, &b, &err), VQ_OK);
	compare_with_floats(&b, packed, worst, shift);
	act_bits = 8;
	vq_free(b.p);
}

static void a_packed_model_computes_what_the_quantized_floats_do(void **state)
{
	double worst, shift;

	(void)state;
	compare(16, &worst, &shift);
	print_message(
		"# figure: packed weights, float activations: logits differ by at most %.2g from "
		"simulation (quantization itself moves them by %.2g)\n",
		worst, shift);
	assert_true(worst < 1e-4 * shift);
	compare(8, &worst, &shift);
	print_message("# figure: packed weights, 8-bit activations: by at most %.2g (%.2g)\n",
		      worst, shift);
	/* Sums are in another order, and an activation at the edge of its step falls on either side. */
	assert_true(worst < 0.05 * shift);
}

static void an_eight_bit_head_and_embedding_shrink_the_model_and_hardly_move_it(void **state)
{
	const struct piece all = {0, UINT32_MAX, FAULT_NONE};
	uint32_t vocab = config.decoder.vocab;
	double worst = 0, range = 0;
	struct vq_model a, b;
	struct vq_vqm va, vb;
	struct vq_err err;
	struct bytes x, y;
	float *p, *q;
	size_t i;

	(void)state;
	assert_int_equal(pack_pieces(&all, 1, &x, &err), VQ_OK);
	head8 = 1;
	assert_int_equal(pack_pieces(&all, 1, &y, &err), VQ_OK);
	head8 = 0;
	assert_int_equal(open_bytes(&va, x.p, x.n, &err), VQ_OK);
	assert_int_equal(open_bytes(&vb, y.p, y.n, &err), VQ_OK);
	assert_int_equal(vq_model_from_vqm(&a, &va, &err), VQ_OK);
	assert_int_equal(vq_model_from_vqm(&b, &vb, &err), VQ_OK);
	assert_non_null(b.decoder.embed_packed);
	assert_non_null(b.decoder.head.packed);
	assert_int_equal(b.decoder.head.act.bits, 8);
	/* Two matrices of 2 bytes a weight become 1 byte and a 2-byte scale for 128. */
	assert_int_equal(vq_vqm_weight_bytes(&va) - vq_vqm_weight_bytes(&vb),
			 2 * (size_t)vocab * config.decoder.layer.hidden * 126 / 128);
	p = run_decoder(&a);
	q = run_decoder(&b);
	for (i = 0; i < vocab; i++) {
		worst = fmax(worst, fabs((double)(p[i] - q[i])));
		range = fmax(range, fabs((double)p[i]));
	}
	print_message(
		"# figure: head and embedding at 8 bits move logits by at most %.2g of %.2g\n",
		worst, range);
	assert_true(worst > 0 && worst < 0.05 * range);
	vq_free(p);
	vq_free(q);
	vq_model_free(&a);
	vq_model_free(&b);
	vq_vqm_close(&va);
	vq_vqm_close(&vb);
	vq_free(x.p);
	vq_free(y.p);
}

static void a_tied_embedding_is_the_head_packed_or_not(void **state)
{
	const struct piece all = {0, UINT32_MAX, FAULT_NONE};
	size_t n_before = n_names;
	struct vq_err err;
	struct vq_model m;
	struct vq_vqm v;
	struct bytes b;

	(void)state;
	config.decoder.tied = 1;
	assert_string_equal(names[n_names - 1].name, "decoder.head.weight");
	n_names--;
	for (head8 = 0; head8 < 2; head8++) {
		assert_int_equal(pack_pieces(&all, 1, &b, &err), VQ_OK);
		assert_int_equal(open_bytes(&v, b.p, b.n, &err), VQ_OK);
		assert_null(vq_vqm_find(&v, "decoder.head.weight"));
		assert_int_equal(vq_model_from_vqm(&m, &v, &err), VQ_OK);
		assert_true(m.decoder.head.w == m.decoder.embed);
		assert_true(m.decoder.head.packed == m.decoder.embed_packed);
		assert_true((m.decoder.embed_packed != NULL) == head8);
		assert_int_equal(m.decoder.head.act.bits, head8 ? 8 : 16);
		vq_model_free(&m);
		vq_vqm_close(&v);
		vq_free(b.p);
	}
	head8 = 0;
	n_names = n_before;
	config.decoder.tied = 0;
}

static void six_bit_weights_are_stored_in_six_bits(void **state)
{
	const struct piece all = {0, UINT32_MAX, FAULT_NONE};
	const struct vq_vqm_member *m;
	struct vq_err err;
	struct vq_vqm v;
	struct bytes b;

	(void)state;
	assert_int_equal(pack_pieces(&all, 1, &b, &err), VQ_OK);
	assert_int_equal(open_bytes(&v, b.p, b.n, &err), VQ_OK);
	m = vq_vqm_find(&v, "vision.layers.0.up_proj.weight"); /* [512, 128] in groups of 64 */
	assert_int_equal(m->n, 512 * 128 * 6 / 8 + 512 * 2 * 2 + 512 * 2);
	vq_vqm_close(&v);
	vq_free(b.p);
}

static void pieces_in_any_cut_pack_to_the_same_tensors(void **state)
{
	const struct piece all = {0, UINT32_MAX, FAULT_NONE};
	const struct piece two[] = {{0, 4, FAULT_NONE}, {5, UINT32_MAX, FAULT_NONE}};
	struct vq_err err;
	struct vq_vqm v, u;
	struct bytes a, b;
	size_t i;

	(void)state;
	assert_int_equal(pack_pieces(&all, 1, &a, &err), VQ_OK);
	assert_int_equal(pack_pieces(two, 2, &b, &err), VQ_OK);
	assert_int_equal(open_bytes(&v, a.p, a.n, &err), VQ_OK);
	assert_int_equal(open_bytes(&u, b.p, b.n, &err), VQ_OK);
	assert_int_equal(v.n, u.n);
	for (i = 0; i + 1 < v.n; i++) { /* the manifest names two segments */
		assert_string_equal(v.members[i].name, u.members[i].name);
		assert_string_equal(v.members[i].sha256, u.members[i].sha256);
	}
	vq_vqm_close(&v);
	vq_vqm_close(&u);
	vq_free(a.p);
	vq_free(b.p);
}

static void refused(const struct piece *p, int n, const char *says)
{
	struct vq_err err, again;
	struct vq_vqm v;
	struct bytes b;

	assert_int_equal(pack_pieces(p, n, &b, &err), VQ_E_DATA);
	if (!strstr(err.text, says))
		fail_msg("want '%s' in '%s'", says, err.text);
	assert_int_equal(open_bytes(&v, b.p, b.n, &again), VQ_E_DATA); /* what came out so far */
	vq_free(b.p);
}

static void gaps_overlaps_and_strange_pieces_are_refused_by_unit(void **state)
{
	const struct piece gap[] = {{0, 1, FAULT_NONE}, {4, UINT32_MAX, FAULT_NONE}};
	const struct piece overlap[] = {{0, 3, FAULT_NONE}, {3, UINT32_MAX, FAULT_NONE}};
	const struct piece other[] = {{0, 3, FAULT_NONE}, {4, UINT32_MAX, FAULT_META}};
	const struct piece none[] = {{1000, 1001, FAULT_NONE}};

	(void)state;
	refused(gap, 2, "units 2, 3 are missing");
	refused(overlap, 2, "unit 3 comes twice, in segments 1 and 2");
	refused(other, 2, "META 'calib': differs from that of the first segment");
	refused(none, 1, "no weights");
}

static void bad_codes_and_grids_are_refused_by_name(void **state)
{
	const struct piece code = {0, UINT32_MAX, FAULT_CODE};
	const struct piece scale = {0, UINT32_MAX, FAULT_SCALE};
	const struct piece zero = {0, UINT32_MAX, FAULT_NO_ZERO};
	const struct piece shape = {0, UINT32_MAX, FAULT_SHAPE};

	(void)state;
	refused(&code, 1, "'decoder.layers.0.o_proj.weight': has codes of more bits");
	refused(&scale, 1, "'decoder.layers.0.o_proj.scale': has a scale that is no number");
	refused(&zero, 1, "want the grids of 'decoder.layers.0.o_proj.weight'");
	refused(&shape, 1, "want shape [256, 256], got [255, 256]");
}

/* A run of a model whose file has not been read: its code, and what it says. */
static int run_unread(struct vq_vqm *v, const int32_t *token, struct vq_err *err)
{
	const uint32_t start[2] = {0, 1}, row = 0;
	const struct vq_batch b = {1, start};
	float *h, *logits;
	struct vq_model m;
	int rc;

	memset(err, 0, sizeof(*err));
	v->whole = 0;
	assert_int_equal(vq_model_from_vqm(&m, v, err), VQ_OK);
	h = vq_alloc_f32(config.decoder.layer.hidden, err);
	logits = vq_alloc_f32(config.decoder.vocab, err);
	rc = vq_decoder_embed(&m, token, 1, NULL, 0, h, err);
	if (rc >= 0)
		rc = vq_decoder_layers(&m, h, &b, NULL, err);
	if (rc >= 0)
		rc = vq_decoder_logits(&m, h, &row, 1, logits, err);
	vq_free(h);
	vq_free(logits);
	vq_model_free(&m);
	return rc;
}

/* The member of that name; its bytes can be written, for they are of a copy. */
static uint8_t *inside(const struct vq_vqm *v, const char *name, size_t at)
{
	const struct vq_vqm_member *m = vq_vqm_find(v, name);

	assert_true(m && at < m->n);
	return (uint8_t *)(uintptr_t)m->data + at;
}

/* Damage that no start-up has seen, since it reads no grid, is found at the first product. */
static void bad_grids_of_a_mapped_model_are_refused_at_their_first_product(void **state)
{
	static const char q[] =
		"decoder.layers.1.q_proj.weight"; /* [256, 256], 4 bits in groups of 128 */
	static const char embed[] = "decoder.embed.weight"; /* 8 bits, symmetric */
	const struct piece all = {0, UINT32_MAX, FAULT_NONE};
	const size_t planes = 256 * 256 / 2, scales = 256 * 2 * 2;
	const size_t e_planes = (size_t)config.decoder.vocab * config.decoder.layer.hidden;
	const int32_t first = 0, other = 40; /* another panel */
	struct vq_err err;
	struct vq_vqm v;
	struct bytes b;
	uint8_t *p;
	int fd;

	(void)state;
	head8 = 1;
	assert_int_equal(pack_pieces(&all, 1, &b, &err), VQ_OK);
	head8 = 0;
	fd = file_of(b.p, b.n);
	assert_int_equal(vq_vqm_open_fd(&v, fd, "x.vqm", NULL, 0, VQ_VQM_LOAD, &err), VQ_OK);
	close(fd);
	assert_int_equal(run_unread(&v, &first, &err), VQ_OK);
	p = inside(&v, q, planes + 77); /* the high byte of a scale */
	*p ^= 0x80;
	assert_int_equal(run_unread(&v, &first, &err), VQ_E_DATA);
	assert_string_equal(err.text,
			    "x.vqm: decoder.layers.1.q_proj.weight.json: has a scale that is no "
			    "number of 0 or more");
	*p ^= 0x80;
	p = inside(&v, q, planes + scales + 5);
	*p |= 0x10;
	assert_int_equal(run_unread(&v, &first, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "has a zero point of more than 4 bits"));
	*p &= 0x0f;
	p = inside(&v, embed, e_planes + 1); /* of row 0 */
	*p |= 0x7c;
	assert_int_equal(run_unread(&v, &other, &err), VQ_OK);
	assert_int_equal(run_unread(&v, &first, &err), VQ_E_DATA);
	assert_string_equal(err.text, "the embedding of token 0 has a scale that is no number");
	vq_vqm_close(&v);
	vq_free(b.p);
}

static void a_member_that_says_what_is_not_there_is_refused_by_name(void **state)
{
	static const char q[] = "decoder.layers.1.q_proj.weight.json"; /* [256, 256], 4 bits */
	static const struct {
		const char *name, *from, *to, *says;
	} faults[] = {
		{q, "\"planes\":[0,", "\"planes\":[63,", "part 'planes'"},
		{q, "\"scale\":[", "\"scale\":[-", "part 'scale'"},
		{q, "\"scale\":[", "\"scale\":[9999999999999", "part 'scale'"},
		{q, "\"zero\":[", "\"zero\":[1", "part 'zero'"},
		{q, "\"zero\":", "\"none\":", "part 'zero'"},
		{q, "\"bits\":4", "\"bits\":5", "part 'planes'"},
		{q, "\"bits\":4", "\"bits\":9", "want bits 2..8, got 9"},
		{q, "\"bits\":8", "\"bits\":1", "act: want bits"},
		{q, "[256,256]", "[256,255]", "want a linear layer of shape [256, 256]"},
		{q, "[256,256]", "256", "want a shape"},
		{q, "r32k4", "r64k8", "want layout plain or r32k4, got 'r64k8'"},
		{q, "\"attrs\":{", "\"attrs\":{\"transform\":1,", "transform"},
		{q, "{", "[", "bad JSON"},
		{q, "", NULL, "no member 'decoder.layers.1.q_proj.weight.json'"},
		{"decoder.layers.1.q_proj.weight", "", NULL, "'decoder.layers.1.q_proj.weight'"},
		{"decoder.norm.weight.json", "f16", "f32", "does not make"},
		{"decoder.norm.weight.json", "f16", "q4", "unknown dtype 'q4'"},
		{"decoder.norm.weight.json", "[256]", "[-256]", "whole numbers"},
		{"model.json", "\"config\"", "\"confused\"", "x.vqm"},
		{"model.json", "", NULL, "no member 'model.json'"},
	};
	const struct piece all = {0, UINT32_MAX, FAULT_NONE};
	struct vq_vqm good, v;
	struct vq_model m;
	struct vq_err err;
	struct bytes b, d;
	size_t i;

	(void)state;
	assert_int_equal(pack_pieces(&all, 1, &b, &err), VQ_OK);
	assert_int_equal(open_bytes(&good, b.p, b.n, &err), VQ_OK);
	for (i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		d = doctored(&good, faults[i].name, faults[i].from, faults[i].to);
		assert_int_equal(open_bytes(&v, d.p, d.n, &err), VQ_OK);
		if (vq_model_from_vqm(&m, &v, &err) != VQ_E_DATA)
			fail_msg("fault %zu: %s to %s was accepted", i, faults[i].from,
				 faults[i].to ? faults[i].to : "nothing");
		if (!strstr(err.text, faults[i].says))
			fail_msg("want '%s' in '%s'", faults[i].says, err.text);
		vq_vqm_close(&v);
		vq_free(d.p);
	}
	vq_vqm_close(&good);
	vq_free(b.p);
}

static int setup(void **state)
{
	struct vq_rng rng = vq_rng_new(5, "vqm");
	size_t i;

	for (i = 0; i < sizeof(blob); i++)
		blob[i] = (uint8_t)vq_rng_u64(rng, i);
	return demo_setup(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_packed_is_found_again),
		cmocka_unit_test(a_cut_archive_is_refused_wherever_it_is_cut),
		cmocka_unit_test(a_flipped_bit_in_any_member_is_refused_and_the_member_named),
		cmocka_unit_test(a_member_that_is_there_twice_is_refused),
		cmocka_unit_test(anything_else_is_refused),
		cmocka_unit_test(a_pipe_gives_what_a_file_gives),
		cmocka_unit_test(a_loaded_file_gives_what_a_mapped_one_gives),
		cmocka_unit_test(a_packed_model_has_the_codes_and_tensors_that_went_in),
		cmocka_unit_test(a_packed_model_computes_what_the_quantized_floats_do),
		cmocka_unit_test(
			an_eight_bit_head_and_embedding_shrink_the_model_and_hardly_move_it),
		cmocka_unit_test(a_tied_embedding_is_the_head_packed_or_not),
		cmocka_unit_test(six_bit_weights_are_stored_in_six_bits),
		cmocka_unit_test(pieces_in_any_cut_pack_to_the_same_tensors),
		cmocka_unit_test(gaps_overlaps_and_strange_pieces_are_refused_by_unit),
		cmocka_unit_test(bad_codes_and_grids_are_refused_by_name),
		cmocka_unit_test(bad_grids_of_a_mapped_model_are_refused_at_their_first_product),
		cmocka_unit_test(a_member_that_says_what_is_not_there_is_refused_by_name),
	};

	return cmocka_run_group_tests(tests, setup, demo_teardown);
}
