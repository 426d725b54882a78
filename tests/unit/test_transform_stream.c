/* Transforms of inputs on their way: search's records, pack, the packed model, and what runs; and what is refused. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "demo_model.h"
#include "stream/history.h"
#include "task/pack.h"
#include "task/search_held.h"
#include "task/search_resume.h"

#define UNIT 6                            /* decoder.layers.1 */
#define Q    "decoder.layers.1.q_proj"    /* Hadamard, 256 inputs in blocks of 128 */
#define K    "decoder.layers.1.k_proj"    /* that of Q */
#define GATE "decoder.layers.1.gate_proj" /* matrices of 64 */
#define DOWN "decoder.layers.1.down_proj" /* Hadamard, 640 inputs in blocks of 128 */

/* Floats into Q.weight as packed, 256 x 256 codes of 4 bits, 256 x 4 scales of 2 bytes, as many zero points. */
#define SCALES "8192"
#define ZEROS  "8704"

static struct vq_held_list searched; /* the tensors and grids of a searched stream */
static struct vq_held_list plain;    /* the weights as they came */
static struct vq_held_list master;   /* of which `searched` is a copy */
static uint32_t act_bits = 8, master_bits;

/* The weight whose records hold the transform of name's input. */
static const char *owner(const char *name)
{
	static char text[64];
	size_t n = strlen(name) - strlen("x_proj.weight");

	snprintf(text, sizeof(text), "%s", name);
	if (strstr(name, ".k_proj") || strstr(name, ".v_proj"))
		text[n] = 'q';
	if (strncmp(name, "decoder", 7) == 0 && strstr(name, ".up_proj"))
		snprintf(text, sizeof(text), "%.*sgate_proj.weight",
			 (int)(strstr(name, "up_proj") - name), name);
	return text;
}

/* Every kind, a place each; projector.1 has none.  Its arrays are its own. */
static struct vq_transform transform_of(const struct vq_name *n)
{
	const char *from = owner(n->name);
	struct vq_transform t = {.n = (uint32_t)n->dims[1], .block = 128};
	struct vq_rng r = vq_rng_new(7, from);
	float *scale = vq_alloc_f32(t.n, NULL), *m;
	size_t i;

	if (strstr(from, "o_proj"))
		t.block = 0;
	if (strstr(from, "projector.1")) {
		vq_free(scale);
		return (struct vq_transform){0};
	}
	for (i = 0; i < t.n; i++)
		scale[i] = (vq_rng_u64(r, i) & 1 ? -1.0f : 1.0f) * (0.5f + (float)(i % 7) / 7);
	t.scale = scale;
	if (strstr(from, "gate_proj") || strstr(from, "projector.0") || strstr(from, "up_proj")) {
		t.block = 64;
		m = vq_alloc_f32((size_t)t.n * t.block, NULL);
		for (i = 0; i < (size_t)t.n * t.block; i++)
			m[i] = (float)vq_rng_normal(r, 10000 + i) / 16 +
			       (i / t.block % t.block == i % t.block);
		t.matrix = m;
	}
	return t;
}

/* The weight of n as search rounds it. */
static struct vq_codes quantized(const struct vq_name *n)
{
	struct vq_wgrid g = {4, 64, strstr(n->name, "down_proj") != NULL};
	struct vq_transform t = transform_of(n), dual;
	uint32_t rows = (uint32_t)n->dims[0], cols = (uint32_t)n->dims[1];
	float *w = vq_alloc_f32((size_t)rows * cols, NULL);
	struct vq_err err = {0};
	struct vq_tensor v;
	struct vq_codes c;

	assert_int_equal(vq_names_find(&config, ckpt, n, &v, &err), VQ_OK);
	assert_int_equal(vq_tensor_to_f32(&v, 0, (size_t)rows * cols, w, &err), VQ_OK);
	if (t.n) {
		assert_int_equal(vq_transform_dual(&dual, &t, &err), VQ_OK);
		vq_transform_rows(&dual, w, rows, w);
		vq_transform_free(&dual);
	}
	assert_int_equal(vq_codes_alloc(&c, &g, rows, cols, &err), VQ_OK);
	vq_grid_fit(&c, w, 1);
	vq_transform_free(&t);
	vq_free(w);
	return c;
}

/* Fills `master` and `plain`. */
static void make_master(void)
{
	struct vq_err err = {0};
	size_t i, bytes;

	vq_held_clear(&master);
	vq_held_clear(&plain);
	for (i = 0; i < n_names; i++) {
		struct vq_searched q = {.act = {.bits = act_bits, .group = 64, .clip = 0.98f},
					.clip = 1};
		struct vq_record rec = {
			.kind = VQ_KIND_TENSOR, .n_dims = names[i].n_dims, .index = i};
		struct vq_held_list *to = names[i].linear ? &plain : &master;
		struct vq_tensor v;
		void *data;

		assert_int_equal(vq_names_find(&config, ckpt, &names[i], &v, &err), VQ_OK);
		assert_int_equal(vq_tensor_count(&v, &bytes), VQ_OK);
		bytes *= vq_dtype_size(v.dtype);
		memcpy(rec.name, names[i].name, sizeof(names[i].name));
		memcpy(rec.dims, v.dims, sizeof(v.dims));
		rec.dtype = v.dtype;
		rec.raw_bytes = bytes;
		rec.hash = i;
		rec.attrs = json_pack("{s:i, s:b}", "unit", (int)names[i].unit, "linear",
				      names[i].linear);
		data = vq_alloc(bytes, 1, &err);
		memcpy(data, v.data, bytes);
		assert_int_equal(vq_held_take(to, &rec, data, &err), VQ_OK);
		if (!names[i].linear)
			continue;
		q.codes = quantized(&names[i]);
		q.transform = transform_of(&names[i]);
		q.transform_from = owner(names[i].name);
		assert_int_equal(vq_held_linear(&master, &plain.items[plain.n - 1], &q, &err),
				 VQ_OK);
		vq_transform_free(&q.transform);
	}
}

/* Fills `searched` anew. */
static void search(void)
{
	struct vq_err err = {0};
	size_t i;

	if (act_bits != master_bits)
		make_master();
	master_bits = act_bits;
	vq_held_clear(&searched);
	for (i = 0; i < master.n; i++) {
		struct vq_record rec = master.items[i].rec;
		struct vq_tensor t = {rec.dtype, rec.n_dims, {0}, NULL};
		size_t bytes;
		void *data;

		memcpy(t.dims, rec.dims, sizeof(t.dims));
		assert_int_equal(vq_tensor_count(&t, &bytes), VQ_OK);
		bytes *= vq_dtype_size(rec.dtype);
		data = vq_alloc(bytes, 1, &err);
		memcpy(data, master.items[i].data, bytes);
		rec.attrs = json_deep_copy(rec.attrs);
		assert_int_equal(vq_held_take(&searched, &rec, data, &err), VQ_OK);
	}
}

static struct vq_held *record(const char *name)
{
	const struct vq_held *h = vq_held_find(&searched, name);

	assert_non_null(h);
	return (struct vq_held *)(uintptr_t)h;
}

static json_t *header(void)
{
	json_t *model = json_pack("{s:s, s:s}", "name", "mini-llava", "sha256", "0"), *h;
	struct vq_err err = {0};

	h = vq_header_new("vqlm-search", model, &err);
	assert_non_null(h);
	json_decref(model);
	return h;
}

/* `searched`, less the record called without, as a whole stream at the start of a file. */
static int stream_file(const char *without)
{
	json_t *h = header(), *j;
	struct vq_err err = {0};
	struct vq_writer *w;
	int fd = file_new();
	char *tok = NULL;
	size_t n = 0, i;

	j = vq_config_json(&config, &err);
	assert_int_equal(vq_writer_open(&w, fd, "stream", 0, &err), VQ_OK);
	assert_int_equal(vq_writer_begin(w, h, &err), VQ_OK);
	assert_int_equal(vq_writer_put_json(w, VQ_KIND_META, "config", j, &err), VQ_OK);
	assert_int_equal(vq_ckpt_file(ckpt, "tokenizer.json", &tok, &n, &err), 1);
	assert_int_equal(vq_writer_put_bytes(w, VQ_KIND_META, "tokenizer.json", tok, n, &err),
			 VQ_OK);
	for (i = 0; i < searched.n; i++)
		if (!without || strcmp(searched.items[i].rec.name, without) != 0)
			assert_int_equal(vq_writer_put(w, &searched.items[i].rec,
						       searched.items[i].data, &err),
					 VQ_OK);
	assert_int_equal(vq_writer_end(w, &err), VQ_OK);
	vq_writer_close(w);
	vq_free(tok);
	json_decref(j);
	json_decref(h);
	assert_true(lseek(fd, 0, SEEK_SET) == 0);
	return fd;
}

static int pack(const char *without, struct bytes *out, struct vq_err *err)
{
	struct vq_pack_opts o = {.license = "cc0-1.0"};
	int in = stream_file(without), fd = file_new(), rc;

	memset(err, 0, sizeof(*err));
	rc = vq_pack_run(&o, in, "in", fd, "out.vqm", err);
	close(in);
	*out = file_bytes(fd);
	return rc;
}

static void assert_same_transform(const struct vq_transform *a, const struct vq_transform *b)
{
	assert_int_equal(a->n, b->n);
	assert_int_equal(a->block, b->block);
	assert_memory_equal(a->scale, b->scale, a->n * sizeof(float));
	assert_int_equal(a->matrix == NULL, b->matrix == NULL);
	if (a->matrix)
		assert_memory_equal(a->matrix, b->matrix, (size_t)a->n * a->block * sizeof(float));
}

/* --- what is right --- */

static void the_records_say_what_search_decided(void **state)
{
	size_t i, n = 0, n_own = 0, n_records = 0;

	(void)state;
	search();
	for (i = 0; i < n_names; i++) {
		struct vq_err err = {0};
		struct vq_transform want;
		struct vq_searched q;

		if (!names[i].linear)
			continue;
		want = transform_of(&names[i]);
		assert_int_equal(vq_held_searched(&searched, names[i].name, &q, &err), VQ_OK);
		assert_int_equal(q.transform.n, want.n);
		if (want.n)
			assert_same_transform(&q.transform, &want);
		n += want.n > 0;
		if (want.n && strcmp(owner(names[i].name), names[i].name) == 0)
			n_own += want.matrix ? 2 : 1;
		vq_transform_free(&want);
	}
	for (i = 0; i < searched.n; i++)
		n_records += strstr(searched.items[i].rec.name, ".transform_") != NULL;
	/* The numbers of q, k and v come once. */
	assert_true(n_records > 0 && n_own < n);
	assert_int_equal(n_records, n_own);
}

static void a_packed_model_has_one_transform_for_each_shared_input(void **state)
{
	struct vq_err err = {0};
	struct vq_model m;
	struct vq_vqm v;
	struct bytes b;
	char line[80];
	int n = 0;
	size_t i;

	(void)state;
	search();
	if (pack(NULL, &b, &err) != VQ_OK)
		fail_msg("%s", err.text);
	assert_int_equal(open_bytes(&v, b.p, b.n, &err), VQ_OK);
	if (vq_model_from_vqm(&m, &v, &err) != VQ_OK)
		fail_msg("%s", err.text);
	for (i = 0; i < n_names; i++) {
		const struct vq_linear *l = vq_model_linear(&m, names[i].name);
		struct vq_transform want;

		if (!names[i].linear)
			continue;
		want = transform_of(&names[i]);
		assert_int_equal(l->transform == NULL, want.n == 0);
		n += want.block && !want.matrix;
		if (l->transform) {
			assert_same_transform(l->transform, &want);
			assert_true(l->transform ==
				    vq_model_linear(&m, owner(names[i].name))->transform);
		}
		vq_transform_free(&want);
	}
	assert_true(vq_model_linear(&m, Q ".weight")->transform !=
		    vq_model_linear(&m, GATE ".weight")->transform);
	snprintf(line, sizeof(line), "The inputs of %d of them go through a scale and Hadamard", n);
	assert_non_null(strstr((const char *)vq_vqm_find(&v, "card.md")->data, line));
	vq_model_free(&m);
	vq_vqm_close(&v);
	vq_free(b.p);
}

static struct vq_codes packed(const struct vq_name *n, struct vq_transform *t)
{
	*t = transform_of(n);
	return quantized(n);
}

static void compare(double *worst, double *shift)
{
	struct vq_err err;
	struct bytes b;

	search();
	assert_int_equal(pack(NULL, &b, &err), VQ_OK);
	compare_with_floats(&b, packed, worst, shift);
	vq_free(b.p);
}

static void a_packed_model_with_transforms_computes_what_the_quantized_floats_do(void **state)
{
	double worst, shift;

	(void)state;
	act_bits = 16;
	compare(&worst, &shift);
	print_message(
		"# figure: transformed, float activations: logits differ by at most %.2g from "
		"simulation (quantization itself moves them by %.2g)\n",
		worst, shift);
	assert_true(worst < 1e-4 * shift);
	act_bits = 8;
	compare(&worst, &shift);
	print_message("# figure: transformed, 8-bit activations: by at most %.2g (%.2g)\n", worst,
		      shift);
	/* Sums are in another order, and an activation at the edge of its step falls on either side. */
	assert_true(worst < 0.05 * shift);
}

static void an_interrupted_output_gives_its_transforms_back(void **state)
{
	static const char *const cuts[] = {NULL, DOWN ".transform_scale", Q ".transform_scale",
					   GATE ".transform_matrix"};
	size_t c, i, from = 0, n = 0;

	(void)state;
	search();
	for (i = 0; i < plain.n; i++)
		if (json_integer_value(json_object_get(plain.items[i].rec.attrs, "unit")) == UNIT) {
			from = n == 0 ? i : from;
			n++;
		}
	assert_int_equal(n, 7);
	assert_string_equal(plain.items[from].rec.name, Q ".weight");
	for (c = 0; c < sizeof(cuts) / sizeof(cuts[0]); c++) {
		char path[] = "/tmp/vqlm-transform-XXXXXX";
		json_t *h = header(), *mark = json_pack("{s:s}", "input", "x"),
		       *stat = json_object();
		struct vq_held_list out = {0};
		struct vq_err err = {0};
		struct vq_resume *r;
		struct vq_writer *w;
		int fd = mkstemp(path), cut = 0, rc;

		assert_true(fd >= 0);
		assert_int_equal(vq_writer_open(&w, fd, path, 0, &err), VQ_OK);
		assert_int_equal(vq_writer_begin(w, h, &err), VQ_OK);
		assert_int_equal(vq_writer_put_json(w, VQ_KIND_META, "search", mark, &err), VQ_OK);
		for (i = 0; i < searched.n; i++) {
			const struct vq_held *s = &searched.items[i];

			/* No norms here: they are not in `plain`. */
			if (json_integer_value(json_object_get(s->rec.attrs, "unit")) != UNIT ||
			    json_is_false(json_object_get(s->rec.attrs, "linear")))
				continue;
			cut = cut || (cuts[c] && strcmp(cuts[c], s->rec.name) == 0);
			if (!cut)
				assert_int_equal(vq_writer_put(w, &s->rec, s->data, &err), VQ_OK);
		}
		if (!cuts[c])
			assert_int_equal(
				vq_writer_put_json(w, VQ_KIND_STAT, "search/block/6-6", stat, &err),
				VQ_OK);
		assert_int_equal(cut, cuts[c] != NULL);
		vq_writer_close(w); /* without an end */
		assert_int_equal(vq_resume_open(&r, path, h, &err), VQ_OK);
		assert_int_equal(vq_resume_start(r, mark, &err), VQ_OK);
		rc = vq_resume_block(r, &plain.items[from], n, "search/block/6-6", &out, &err);
		assert_int_equal(rc, cuts[c] == NULL);
		for (i = 0; i < n; i++) {
			const char *name = plain.items[from + i].rec.name;
			struct vq_searched a, b;

			if (rc != 1)
				continue;
			assert_int_equal(vq_held_searched(&searched, name, &a, &err), VQ_OK);
			assert_int_equal(vq_held_searched(&out, name, &b, &err), VQ_OK);
			assert_same_transform(&a.transform, &b.transform);
		}
		vq_resume_close(r);
		vq_held_clear(&out);
		json_decref(h);
		json_decref(mark);
		json_decref(stat);
		close(fd);
		unlink(path);
	}
}

/* --- what is wrong --- */

static void set_attr(const char *weight, const char *key, json_t *value)
{
	json_t *t = json_object_get(record(weight)->rec.attrs, "transform");

	assert_non_null(t);
	json_object_set_new(t, key, value);
}

static void spoil(const char *name, size_t at, float value)
{
	((float *)record(name)->data)[at] = value;
}

static void shorten(const char *name)
{
	record(name)->rec.dims[0]--;
}

static json_t *act_of(const char *weight)
{
	return json_object_get(record(weight)->rec.attrs, "act");
}

/* K ahead of Q, with the transform that was Q's: in order in the stream, but not in the model. */
static void put_k_first(void)
{
	struct vq_held *q = record(Q ".weight"), *k = record(K ".weight"), moved[4];
	size_t n = (size_t)(k - q);

	assert_int_equal(n, 4); /* codes, scale, zero, transform */
	set_attr(Q ".weight", "from", json_string(K));
	set_attr(K ".weight", "from", json_string(K));
	snprintf(q[3].rec.name, sizeof(q[3].rec.name), K ".transform_scale");
	memcpy(moved, q, sizeof(moved));
	memcpy(q, k, 3 * sizeof(*q));
	q[3] = moved[3];
	memcpy(q + 4, moved, 3 * sizeof(*q));
}

/* One fault in `searched`; NULL past the last.  *linear is the one whose transform suffers, NULL where its own records
 * are right; says is what pack says. */
static const char *fault(int i, const char **linear, const char **without)
{
	struct vq_record stray = {.kind = VQ_KIND_GRID, .dtype = VQ_F32, .n_dims = 1, .dims = {1}};
	struct vq_err err = {0};

	*linear = Q ".weight";
	*without = NULL;
	switch (i) {
	case 0: spoil(Q ".transform_scale", 5, NAN); return Q ".transform_scale': element 5 is nan";
	case 1: spoil(Q ".transform_scale", 6, 0); return "transform_scale': element 6 is 0";
	case 2: spoil(Q ".transform_scale", 7, INFINITY); return "element 7 is inf";
	case 3: shorten(Q ".transform_scale"); return "want f32 [256], got f32 [255]";
	case 4:
		record(Q ".transform_scale")->rec.dtype = VQ_I32;
		return "want f32 [256], got i32 [256]";
	case 5: *without = Q ".transform_scale"; return "want GRID '" Q ".transform_scale'";
	case 6:
		*linear = GATE ".weight";
		spoil(GATE ".transform_matrix", 900, NAN);
		return GATE ".transform_matrix': element 900 is nan";
	case 7:
		*linear = GATE ".weight";
		shorten(GATE ".transform_matrix");
		return "want f32 [4, 64, 64], got f32 [3, 64, 64]";
	case 8:
		*linear = GATE ".weight";
		*without = GATE ".transform_matrix";
		return "want GRID '" GATE ".transform_matrix'";
	case 9:
		set_attr(Q ".weight", "kind", json_string("zigzag"));
		return "want kind scale, hadamard or matrix, got 'zigzag'";
	case 10:
		set_attr(Q ".weight", "block", json_integer(96));
		return "want a block of 2..256 that divides 256 inputs, got 96";
	case 11:
		*linear = DOWN ".weight";
		set_attr(DOWN ".weight", "block", json_integer(640));
		return "want a block of 2..256 that divides 640 inputs, got 640";
	case 12:
		*linear = DOWN ".weight";
		set_attr(DOWN ".weight", "block", json_integer(160));
		return "want a power of two";
	case 13:
		set_attr(Q ".weight", "kind", json_string("scale"));
		return "a scale has block 0, got 128";
	case 14: set_attr(Q ".weight", "from", json_null()); return "want the linear that it is";
	case 15:
		json_object_set_new(record(Q ".weight")->rec.attrs, "transform", json_integer(3));
		return "transform: want an object";
	case 16:
		*linear = K ".weight";
		set_attr(K ".weight", "from", json_string("decoder.layers.9.q_proj"));
		return "which has none ahead of it in unit 6";
	case 17: /* another unit's */
		*linear = NULL;
		set_attr(K ".weight", "from", json_string("decoder.layers.0.q_proj"));
		return "which has none ahead of it in unit 6";
	case 18:
		*linear = NULL;
		set_attr(K ".weight", "block", json_integer(64));
		return "of another kind, width or block";
	case 19:
		*linear = NULL;
		stray.raw_bytes = 4;
		snprintf(stray.name, sizeof(stray.name), "stray.scale");
		assert_int_equal(vq_held_take(&searched, &stray, vq_calloc(4, 1, &err), &err),
				 VQ_OK);
		return "GRID 'stray.scale': there is nothing before it that wants it";
	case 20:
		*linear = NULL;
		json_object_set_new(record("decoder.norm.weight")->rec.attrs, "transform",
				    json_integer(1));
		return "has a transform but no codes";
	case 21:
		*linear = NULL;
		json_object_set_new(act_of(Q ".weight"), "group", json_integer(48));
		return "'" Q ".weight': product: weight groups of 64 and input groups of 48";
	case 22:
		*linear = NULL;
		json_object_set(record("decoder.norm.weight")->rec.attrs, "act",
				act_of(Q ".weight"));
		return "'decoder.norm.weight': has an activation grid but is no linear layer";
	case 23:
		*linear = NULL;
		json_object_set_new(act_of(Q ".weight"), "range", json_string("position"));
		json_object_set_new(act_of(Q ".weight"), "group", json_integer(0));
		json_object_set_new(act_of(Q ".weight"), "clip", json_integer(1));
		return "'" Q ".weight': act: ranges by position outside the vision tower";
	case 24:
		*linear = NULL;
		put_k_first();
		return "'" Q ".weight': its transform is that of '" K "', which has none ahead";
	default: return NULL;
	}
}

static void wrong_transforms_are_refused_by_name(void **state)
{
	const char *says, *linear, *without;
	int i;

	(void)state;
	for (i = 0; search(), (says = fault(i, &linear, &without)) != NULL; i++) {
		struct vq_err err = {0};
		struct vq_searched q;
		struct bytes b;

		if (without) {
			struct vq_held *h = record(without);
			char name[VQ_NAME_MAX + 1];

			snprintf(name, sizeof(name), "%s", without);
			h->rec.name[0] = '_'; /* hidden from those who look for it by name */
			assert_int_equal(vq_held_searched(&searched, linear, &q, &err), VQ_E_DATA);
			assert_non_null(strstr(err.text, "is missing"));
			snprintf(h->rec.name, sizeof(h->rec.name), "%s", name);
		} else if (linear && vq_held_searched(&searched, linear, &q, &err) != VQ_E_DATA) {
			fail_msg("fault %d was accepted in '%s'", i, linear);
		}
		/* A record of fewer elements has fewer bytes. */
		if (i == 3)
			record(Q ".transform_scale")->rec.raw_bytes -= 4;
		if (i == 7)
			record(GATE ".transform_matrix")->rec.raw_bytes -= 4 * 64 * 64;
		assert_int_equal(pack(without, &b, &err), VQ_E_DATA);
		if (!strstr(err.text, says))
			fail_msg("fault %d: want '%s' in '%s'", i, says, err.text);
		vq_free(b.p);
	}
	assert_int_equal(i, 25);
}

static void a_packed_model_with_a_wrong_transform_is_refused_by_member(void **state)
{
	static const struct {
		const char *name, *from, *to, *says;
	} faults[] = {
		{Q ".weight.json", "\"hadamard\"", "\"zigzag\"", "want kind scale, hadamard or"},
		{Q ".weight.json", "\"block\":128", "\"block\":96", "divides 256 inputs, got 96"},
		{DOWN ".weight.json", "\"block\":128", "\"block\":160", "power of two"},
		{Q ".weight.json", "\"transform\":{", "\"transform\":1,\"was\":{",
		 "want an object"},
		{Q ".weight.json", "\"from\"", "\"form\"", "want the linear that it is 'from'"},
		{Q ".weight.json", "layers.1.q_proj\"", "layers.1.v_proj\"",
		 "none such ahead of it"},
		{K ".weight.json", "layers.1.q_proj\"", "layers.0.q_proj\"",
		 "none such ahead of it"},
		{K ".weight.json", "\"block\":128", "\"block\":64", "none such ahead of it"},
		{Q ".weight.json", "\"group\":64", "\"group\":48",
		 Q ".weight.json: product: weight groups of 64 and input groups of 48"},
		{Q ".weight.json", "\"planes\":[0,", "\"planes\":[64,",
		 "part 'planes': want [0, 32768], got [64, 32768]"},
		{Q ".weight.json", "\"sym\":false},\"linear\"", "\"sym\":true},\"linear\"",
		 Q ".weight.json: its grid wants"},
		{Q ".weight", NULL, "nan@" SCALES, Q ".weight.json: has a scale that is no number"},
		{Q ".weight", NULL, "-1@" SCALES, Q ".weight.json: has a scale that is no number"},
		{Q ".weight", NULL, "-1@" ZEROS,
		 Q ".weight.json: has a zero point of more than 4 bits"},
		{Q ".transform_scale.json", "[256]", "[255]", "does not make 1024 bytes"},
		{Q ".transform_scale.json", "[256]", "[128,2]", "want f32 [256], got f32 [128, 2]"},
		{Q ".transform_scale.json", "\"f32\"", "\"i32\"", "want f32 [256], got i32 [256]"},
		{Q ".transform_scale.json", "plain", "plane", "want layout plain, got 'plane'"},
		{Q ".transform_scale", NULL, "nan", "transform_scale.json: element 0 is nan"},
		{Q ".transform_scale", NULL, "0", "transform_scale.json: element 0 is 0"},
		{Q ".transform_scale", NULL, NULL, "'" Q ".transform_scale' is missing"},
		{Q ".transform_scale.json", NULL, NULL, "no member '" Q ".transform_scale.json'"},
		{GATE ".transform_matrix", NULL, "inf", "transform_matrix.json: element 0 is inf"},
		{GATE ".transform_matrix.json", "[4,64,64]", "[4,32,128]", "want f32 [4, 64, 64]"},
		{"decoder.norm.weight.json", "\"attrs\":{", "\"attrs\":{\"transform\":1,",
		 "is no linear layer"},
	};
	struct vq_vqm good, v;
	struct vq_model m;
	struct vq_err err;
	struct bytes b, d;
	size_t i;

	(void)state;
	search();
	assert_int_equal(pack(NULL, &b, &err), VQ_OK);
	assert_int_equal(open_bytes(&good, b.p, b.n, &err), VQ_OK);
	for (i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		d = doctored(&good, faults[i].name, faults[i].from, faults[i].to);
		assert_int_equal(open_bytes(&v, d.p, d.n, &err), VQ_OK);
		if (vq_model_from_vqm(&m, &v, &err) != VQ_E_DATA)
			fail_msg("fault %zu in %s was accepted", i, faults[i].name);
		if (!strstr(err.text, faults[i].says))
			fail_msg("want '%s' in '%s'", faults[i].says, err.text);
		vq_vqm_close(&v);
		vq_free(d.p);
	}
	vq_vqm_close(&good);
	vq_free(b.p);
}

static int teardown(void **state)
{
	vq_held_clear(&searched);
	vq_held_clear(&plain);
	vq_held_clear(&master);
	return demo_teardown(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_records_say_what_search_decided),
		cmocka_unit_test(a_packed_model_has_one_transform_for_each_shared_input),
		cmocka_unit_test(
			a_packed_model_with_transforms_computes_what_the_quantized_floats_do),
		cmocka_unit_test(an_interrupted_output_gives_its_transforms_back),
		cmocka_unit_test(wrong_transforms_are_refused_by_name),
		cmocka_unit_test(a_packed_model_with_a_wrong_transform_is_refused_by_member),
	};

	return cmocka_run_group_tests_name("transforms", tests, demo_setup, teardown);
}
