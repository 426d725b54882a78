/* The stream: what is written is read back, and anything else is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/log.h"
#include "base/num.h"
#include "base/rng.h"
#include "memfile.h"
#include "stream/frame.h"
#include "stream/history.h"
#include "stream/planes.h"
#include "stream/reader.h"
#include "stream/writer.h"

#define N_BIG 300001 /* elements: more than two plane groups, more than one read */

static uint16_t *big; /* N_BIG values like weights */

static json_t *header(const char *model)
{
	struct vq_err err = {0};
	json_t *m = json_pack("{s:s}", "name", model);
	json_t *h = vq_header_new("vqlm-test", m, &err);

	assert_non_null(h);
	json_decref(m);
	return h;
}

/* A segment with every sort of record. */
static void write_segment(struct vq_writer *w, const char *model)
{
	struct vq_err err = {0};
	json_t *h = header(model), *attrs = json_pack("{s:i,s:f}", "unit", 3, "clip", 0.95);
	struct vq_tensor t = {.dtype = VQ_F16, .n_dims = 2, .dims = {N_BIG, 1}, .data = big};
	struct vq_record odd = {.kind = 77, .name = "odd", .dtype = VQ_U8, .n_dims = 0};

	assert_int_equal(vq_writer_begin(w, h, &err), VQ_OK);
	assert_int_equal(vq_writer_put_json(w, VQ_KIND_META, "config", h, &err), VQ_OK);
	assert_int_equal(vq_writer_put_bytes(w, VQ_KIND_META, "none", NULL, 0, &err), VQ_OK);
	assert_int_equal(vq_writer_put_tensor(w, VQ_KIND_TENSOR, "a.weight", &t, attrs, &err),
			 VQ_OK);
	t.dtype = VQ_F32;
	t.dims[0] = N_BIG / 2;
	assert_int_equal(vq_writer_put_tensor(w, VQ_KIND_TENSOR, "b.weight", &t, NULL, &err),
			 VQ_OK);
	t.dims[1] = 0;
	assert_int_equal(vq_writer_put_tensor(w, VQ_KIND_TENSOR, "empty", &t, NULL, &err), VQ_OK);
	assert_int_equal(vq_writer_put(w, &odd, "x", &err), VQ_OK);
	assert_int_equal(vq_writer_end(w, &err), VQ_OK);
	json_decref(attrs);
	json_decref(h);
}

static struct bytes make(int level, int n_segments)
{
	struct vq_err err = {0};
	struct vq_writer *w;
	int fd = file_new(), i;

	assert_int_equal(vq_writer_open(&w, fd, "out", level, &err), VQ_OK);
	for (i = 0; i < n_segments; i++)
		write_segment(w, "mini");
	vq_writer_close(w);
	return file_bytes(fd);
}

enum how { HOW_LOAD, HOW_SKIP, HOW_AHEAD, HOW_PASS };

/* Reads a whole stream; the code of the first failure, or the number of records. */
static int read_all(int fd, enum how how, struct vq_writer *w, struct vq_err *err)
{
	struct vq_reader *r;
	struct vq_record rec;
	int rc, n = 0;

	assert_int_equal(vq_reader_open(&r, fd, "in", err), VQ_OK);
	if (how == HOW_AHEAD)
		assert_int_equal(vq_reader_ahead(r, 1u << VQ_KIND_TENSOR, err), VQ_OK);
	while ((rc = vq_reader_segment(r, err)) > 0) {
		if (how == HOW_PASS && vq_writer_begin(w, vq_reader_header(r), err) < 0)
			rc = err->code;
		while (rc > 0 && (rc = vq_reader_next(r, &rec, err)) > 0) {
			void *p = NULL;
			int got = VQ_OK;

			if (how == HOW_LOAD || how == HOW_AHEAD)
				got = vq_reader_load(r, &p, err);
			else if (how == HOW_PASS)
				got = vq_reader_pass(r, w, err);

			vq_free(p);
			if (got < 0)
				rc = got;
			n++;
		}
		if (rc == 0 && how == HOW_PASS)
			rc = vq_writer_end(w, err);
		if (rc < 0)
			break;
	}
	vq_reader_close(r);
	return rc < 0 ? rc : n;
}

static int read_bytes(const uint8_t *p, size_t n, enum how how, struct vq_err *err)
{
	int fd = file_of(p, n), sink = file_new(), rc;
	struct vq_writer *w;

	memset(err, 0, sizeof(*err));
	assert_int_equal(vq_writer_open(&w, sink, "sink", 0, err), VQ_OK);
	rc = read_all(fd, how, w, err);
	vq_writer_close(w);
	close(sink);
	close(fd);
	assert_true(rc >= 0 || (err->code == rc && err->text[0]));
	return rc;
}

static void what_is_written_is_read_back(void **state)
{
	static const int levels[] = {0, 1, 3};
	size_t i;

	(void)state;
	for (i = 0; i < 6; i++) {
		struct bytes b = make(levels[i / 2], 1);
		int fd = file_of(b.p, b.n);
		struct vq_err err = {0};
		struct vq_reader *r;
		struct vq_record rec;
		void *p;

		assert_int_equal(vq_reader_open(&r, fd, "in", &err), VQ_OK);
		if (i % 2)
			assert_int_equal(vq_reader_ahead(r, 1u << VQ_KIND_TENSOR, &err), VQ_OK);
		assert_int_equal(vq_reader_segment(r, &err), 1);
		assert_string_equal(
			json_string_value(json_object_get(vq_reader_header(r), "producer")),
			"vqlm-test " VQ_VERSION);
		assert_int_equal(vq_reader_next(r, &rec, &err), 1);
		assert_string_equal(rec.name, "config");
		assert_int_equal(rec.kind, VQ_KIND_META);
		assert_int_equal(vq_reader_next(r, &rec, &err), 1);
		assert_int_equal(vq_reader_load(r, &p, &err), VQ_OK);
		assert_int_equal(rec.raw_bytes, 0);
		vq_free(p);
		assert_int_equal(vq_reader_next(r, &rec, &err), 1);
		assert_string_equal(rec.name, "a.weight");
		assert_int_equal(rec.dtype, VQ_F16);
		assert_int_equal(rec.n_dims, 2);
		assert_int_equal(rec.dims[0], N_BIG);
		assert_int_equal(rec.index, 2);
		assert_int_equal(vq_reader_load(r, &p, &err), VQ_OK);
		assert_int_equal(json_integer_value(json_object_get(rec.attrs, "unit")), 3);
		assert_memory_equal(p, big, 2 * N_BIG);
		assert_int_equal(((uint8_t *)p)[2 * N_BIG], 0);
		vq_free(p);
		assert_int_equal(vq_reader_next(r, &rec, &err), 1);
		p = vq_alloc((size_t)rec.raw_bytes, 1, &err);
		assert_int_equal(vq_reader_read(r, p, &err), VQ_OK);
		assert_int_equal(rec.raw_bytes, N_BIG / 2 * 4);
		assert_memory_equal(p, big, (size_t)rec.raw_bytes);
		vq_free(p);
		assert_int_equal(vq_reader_next(r, &rec, &err), 1);
		assert_int_equal(vq_reader_next(r, &rec, &err), 1);
		assert_int_equal(rec.kind, 77);
		assert_int_equal(vq_reader_next(r, &rec, &err), 0);
		assert_int_equal(vq_reader_segment(r, &err), 0);
		assert_int_equal(err.code, VQ_OK);
		vq_reader_close(r);
		close(fd);
		vq_free(b.p);
	}
}

static void the_same_records_give_the_same_bytes(void **state)
{
	int level;

	(void)state;
	for (level = 0; level < 2; level++) {
		struct bytes a = make(level, 1), b = make(level, 1);

		assert_int_equal(a.n, b.n);
		assert_memory_equal(a.p, b.p, a.n);
		vq_free(a.p);
		vq_free(b.p);
	}
}

static void passing_on_changes_no_byte_at_the_same_level(void **state)
{
	int level;

	(void)state;
	for (level = 0; level < 2; level++) {
		struct bytes a = make(level, 2), b;
		int fd = file_of(a.p, a.n), out = file_new();
		struct vq_err err = {0};
		struct vq_writer *w;

		assert_int_equal(vq_writer_open(&w, out, "out", level, &err), VQ_OK);
		assert_int_equal(read_all(fd, HOW_PASS, w, &err), 12);
		vq_writer_close(w);
		b = file_bytes(out);
		assert_int_equal(a.n, b.n);
		assert_memory_equal(a.p, b.p, a.n);
		close(fd);
		vq_free(a.p);
		vq_free(b.p);
	}
}

static void passing_a_pipe_into_a_file_packs_it_as_if_written_there(void **state)
{
	struct bytes a = make(0, 1), want = make(1, 1), b;
	int fd = file_of(a.p, a.n), out = file_new();
	struct vq_err err = {0};
	struct vq_writer *w;

	(void)state;
	assert_int_equal(vq_writer_open(&w, out, "out", VQ_LEVEL_AUTO, &err), VQ_OK);
	assert_int_equal(read_all(fd, HOW_PASS, w, &err), 6);
	vq_writer_close(w);
	b = file_bytes(out);
	assert_int_equal(b.n, want.n);
	assert_memory_equal(b.p, want.p, want.n);
	assert_true(want.n < a.n * 9 / 10);
	close(fd);
	vq_free(a.p);
	vq_free(b.p);
	vq_free(want.p);
}

static void zstd_itself_accepts_streams_of_every_level(void **state)
{
	static const int levels[] = {0, 1, 5};
	char path[] = "/tmp/vqlm-stream-XXXXXX", cmd[256];
	int fd = mkstemp(path);
	size_t i;

	(void)state;
	assert_true(fd >= 0);
	if (system("command -v zstd >/dev/null") != 0) {
		unlink(path);
		skip();
	}
	for (i = 0; i < 3; i++) {
		struct bytes b = make(levels[i], 2);
		struct vq_err err = {0};

		assert_int_equal(ftruncate(fd, 0), 0);
		assert_true(lseek(fd, 0, SEEK_SET) == 0);
		assert_int_equal(vq_write_full(fd, b.p, b.n, path, &err), VQ_OK);
		snprintf(cmd, sizeof(cmd),
			 "zstd -q -t < %s && zstd -l < %s 2>/dev/null >&2; zstd "
			 "-q -t < %s",
			 path, path, path);
		assert_int_equal(system(cmd), 0);
		vq_free(b.p);
	}
	close(fd);
	unlink(path);
}

/* Offsets where frames begin, by walking the frames; returns their number. */
static size_t frame_edges(struct bytes b, size_t *edge, size_t room)
{
	size_t at = 0, n = 0;
	uint64_t stored = 0;

	while (at < b.n && n < room) {
		edge[n++] = at;
		if (stored) {
			at += stored;
			stored = 0;
			continue;
		}
		assert_int_equal(vq_get_u32(b.p + at), VQ_SKIP_MAGIC);
		if (memcmp(b.p + at + 8, VQ_TAG_RECORD, 8) == 0)
			stored = vq_get_u64(b.p + at + 8 + 32);
		at += 8 + vq_get_u32(b.p + at + 4);
	}
	assert_int_equal(at, b.n);
	return n;
}

static void a_stream_cut_at_a_frame_edge_or_anywhere_is_refused(void **state)
{
	struct vq_rng rng = vq_rng_new(1, "cut");
	size_t edge[64], n, i;
	int level, how;

	(void)state;
	for (level = 0; level < 2; level++) {
		struct bytes b = make(level, 1);
		struct vq_err err;

		n = frame_edges(b, edge, 64);
		assert_int_equal(n, 2 + 2 * 6);
		for (i = 0; i < n + 150; i++) {
			size_t at = i < n ? edge[i] : (size_t)(vq_rng_u64(rng, i) % b.n);

			for (how = HOW_LOAD; how <= HOW_PASS; how++)
				assert_int_equal(read_bytes(b.p, at, how, &err), VQ_E_DATA);
		}
		assert_int_equal(read_bytes(b.p, b.n, HOW_LOAD, &err), 6);
		vq_free(b.p);
	}
}

static void a_flipped_bit_is_refused_wherever_it_is(void **state)
{
	struct vq_rng rng = vq_rng_new(2, "flip");
	size_t edge[64], n, i;
	int level;

	(void)state;
	for (level = 0; level < 2; level++) {
		struct bytes b = make(level, 1);
		struct vq_err err, said;

		n = frame_edges(b, edge, 64);
		for (i = 0; i < 16 * n + 100; i++) {
			size_t at = i < 16 * n ? edge[i / 16] + i % 16
					       : (size_t)(vq_rng_u64(rng, 2 * i) % b.n);
			uint8_t bit = (uint8_t)(1u << (vq_rng_u64(rng, 2 * i + 1) & 7));

			if (at >= b.n)
				continue;
			/* The window that a compressed frame asks for (its bytes 4 to 6) may change
			 * without changing what it holds. */
			if (level > 0 && i < 16 * n && i / 16 % 2 == 0 && i % 16 >= 4 &&
			    i % 16 <= 6)
				continue;
			b.p[at] ^= bit;
			if (read_bytes(b.p, b.n, HOW_LOAD, &err) != VQ_E_DATA)
				fail_msg("level %d: bit %u of byte %zu", level, bit, at);
			said = err;
			if (read_bytes(b.p, b.n, HOW_AHEAD, &err) != VQ_E_DATA ||
			    strcmp(err.text, said.text) != 0)
				fail_msg("ahead: '%s', not '%s'", err.text, said.text);
			b.p[at] ^= bit;
		}
		vq_free(b.p);
	}
}

static void two_segments_in_a_row_are_one_stream(void **state)
{
	struct bytes b = make(0, 2);
	struct vq_err err;

	(void)state;
	assert_int_equal(read_bytes(b.p, b.n, HOW_LOAD, &err), 12);
	assert_int_equal(read_bytes(b.p, b.n, HOW_SKIP, &err), 12);
	vq_free(b.p);
}

static void a_header_before_an_end_record_means_a_cut_segment(void **state)
{
	struct bytes b = make(0, 2);
	struct vq_err err;
	size_t end = b.n / 2;

	(void)state;
	memmove(b.p + end - 48, b.p + end, end); /* drops the first end record */
	assert_int_equal(read_bytes(b.p, b.n - 48, HOW_LOAD, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "cut after 6 records"));
	vq_free(b.p);
}

static void bytes_after_the_end_are_refused(void **state)
{
	struct bytes b = make(0, 2);
	struct vq_err err;

	(void)state;
	assert_int_equal(read_bytes(b.p, b.n / 2 + 10, HOW_LOAD, &err), VQ_E_DATA);
	memset(b.p + b.n / 2, 'x', 40);
	assert_int_equal(read_bytes(b.p, b.n / 2 + 40, HOW_LOAD, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "78 78 78 78"));
	vq_free(b.p);
}

static void empty_input_is_refused(void **state)
{
	struct vq_err err;

	(void)state;
	assert_int_equal(read_bytes((const uint8_t *)"", 0, HOW_LOAD, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "empty"));
}

static void another_major_version_is_refused_and_both_are_named(void **state)
{
	struct bytes b = make(0, 1);
	struct vq_err err;
	size_t n = vq_get_u32(b.p + 4);

	(void)state;
	b.p[8 + 8] = 9;
	vq_put_u64(b.p + n, XXH64(b.p + 8, n - 8, 0));
	assert_int_equal(read_bytes(b.p, b.n, HOW_LOAD, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "want stream version 1.x, got 9.0"));
	b.p[8 + 8] = 1;
	b.p[8 + 10] = 7; /* a newer minor is fine */
	vq_put_u64(b.p + n, XXH64(b.p + 8, n - 8, 0));
	assert_int_equal(read_bytes(b.p, b.n, HOW_LOAD, &err), 6);
	vq_free(b.p);
}

/* One record that claims what it likes, its header hash right, followed by n bytes. */
static int read_claim(struct vq_record *rec, size_t n, struct vq_err *err)
{
	uint8_t *h, *r, all[4096] = {0};
	size_t hn, rn;
	json_t *j = header("mini");
	int rc;

	memset(err, 0, sizeof(*err));
	assert_int_equal(vq_head_encode(j, &h, &hn, err), VQ_OK);
	assert_int_equal(vq_record_encode(rec, NULL, 0, &r, &rn, err), VQ_OK);
	memcpy(all, h, hn);
	memcpy(all + hn, r, rn);
	if (rec->codec == VQ_CODEC_STORED)
		vq_stored_head(all + hn + rn, rec->raw_bytes);
	rc = read_bytes(all, hn + rn + n, HOW_LOAD, err);
	json_decref(j);
	vq_free(h);
	vq_free(r);
	return rc;
}

static void claims_of_huge_sizes_are_refused_without_taking_memory(void **state)
{
	struct vq_record rec = {.kind = VQ_KIND_TENSOR, .name = "w", .dtype = VQ_F32, .n_dims = 2};
	struct vq_err err;
	uint64_t before = vq_peak_rss();

	(void)state;
	/* 2^39 bytes, consistent in itself: believed as far as bytes come. */
	rec.dims[0] = rec.dims[1] = (uint64_t)1 << 18;
	rec.dims[1] <<= 1;
	rec.raw_bytes = (uint64_t)1 << 39;
	rec.stored_bytes = vq_stored_bytes(rec.raw_bytes);
	assert_int_equal(read_claim(&rec, 500, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "the input ends within its payload"));
	/* The product overflows 64 bits. */
	rec.dims[0] = rec.dims[1] = (uint64_t)1 << 33;
	assert_int_equal(read_claim(&rec, 500, &err), VQ_E_DATA);
	/* Over the limit. */
	rec.dims[0] = rec.dims[1] = (uint64_t)1 << 20;
	rec.raw_bytes = (uint64_t)1 << 42;
	rec.stored_bytes = vq_stored_bytes(rec.raw_bytes);
	assert_int_equal(read_claim(&rec, 500, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "want at most"));
	/* Few stored bytes cannot make many. */
	rec.dims[0] = rec.dims[1] = (uint64_t)1 << 15;
	rec.raw_bytes = (uint64_t)1 << 32;
	rec.stored_bytes = 300;
	rec.codec = VQ_CODEC_ZSTD;
	assert_int_equal(read_claim(&rec, 500, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "cannot hold"));
	/* More stored than raw. */
	rec.dims[0] = rec.dims[1] = 2;
	rec.raw_bytes = 16;
	rec.stored_bytes = 1 << 20;
	assert_int_equal(read_claim(&rec, 500, &err), VQ_E_DATA);
	/* The shape says something else. */
	rec.raw_bytes = 20;
	rec.stored_bytes = 100;
	assert_int_equal(read_claim(&rec, 500, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "f32 [2, 2] does not make 20 bytes"));
	rec.dtype = (enum vq_dtype)99;
	assert_int_equal(read_claim(&rec, 500, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "unknown element type 99"));
	if (!getenv("VQLM_SANITIZED")) /* shadow memory counts too */
		assert_true(vq_peak_rss() - before < (64u << 20));
}

static void names_that_are_bad_or_come_twice_are_refused(void **state)
{
	struct vq_record rec = {.kind = VQ_KIND_TENSOR, .name = "a b", .dtype = VQ_U8};
	struct vq_err err = {0};
	struct vq_writer *w;
	json_t *h = header("mini");
	int fd = file_new();

	(void)state;
	assert_int_equal(vq_writer_open(&w, fd, "out", 0, &err), VQ_OK);
	assert_int_equal(vq_writer_begin(w, h, &err), VQ_OK);
	assert_int_equal(vq_writer_put(w, &rec, "x", &err), VQ_E_DATA);
	err.code = VQ_OK;
	rec.name[1] = '.';
	assert_int_equal(vq_writer_put(w, &rec, "x", &err), VQ_OK);
	assert_int_equal(vq_writer_put(w, &rec, "x", &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "'a.b' comes twice"));
	vq_writer_close(w);
	close(fd);
	json_decref(h);
	rec.name[1] = '\n';
	rec.raw_bytes = 1;
	rec.stored_bytes = vq_stored_bytes(1);
	assert_int_equal(read_claim(&rec, 500, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "printable"));
}

/* A record is copied to stand there twice; only the hash over headers and the names could tell. */
static void a_reader_refuses_a_name_that_comes_twice(void **state)
{
	struct bytes b = make(0, 1);
	struct vq_err err;
	size_t edge[64], n = frame_edges(b, edge, 64), len = edge[3] - edge[1];
	uint8_t *p = vq_alloc(b.n + len, 1, &err);

	(void)state;
	assert_true(n > 4 && p);
	memcpy(p, b.p, edge[3]);
	memcpy(p + edge[3], b.p + edge[1], len);
	memcpy(p + edge[3] + len, b.p + edge[3], b.n - edge[3]);
	assert_int_equal(read_bytes(p, b.n + len, HOW_SKIP, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "'config': there is a record of this name already"));
	vq_free(p);
	vq_free(b.p);
}

static void a_record_that_was_taken_out_or_swapped_is_noticed(void **state)
{
	struct bytes b = make(0, 1);
	struct vq_err err;
	size_t edge[64];

	(void)state;
	assert_true(frame_edges(b, edge, 64) > 4);
	memmove(b.p + edge[1], b.p + edge[3], b.n - edge[3]);
	assert_int_equal(read_bytes(b.p, b.n - (edge[3] - edge[1]), HOW_SKIP, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "end record wants 6 records"));
	vq_free(b.p);
}

static void history_grows_by_a_line_and_keeps_the_rest(void **state)
{
	struct vq_err err = {0};
	json_t *h = header("mini"), *p = json_pack("{s:i}", "bits", 4), *d;
	char *text;

	(void)state;
	d = vq_header_derive(h, "vqlm-search", p, "avx2", NULL, &err);
	assert_non_null(d);
	text = vq_json_text(d, &err);
	assert_string_equal(
		text,
		"{\"history\":[{\"blas\":null,\"kernels\":\"avx2\",\"params\":{"
		"\"bits\":4},\"tool\":\"vqlm-search\",\"version\":\"" VQ_VERSION
		"\"}],\"model\":{\"name\":\"mini\"},\"producer\":\"vqlm-test " VQ_VERSION "\"}");
	assert_int_equal(json_array_size(json_object_get(h, "history")), 0);
	vq_free(text);
	json_decref(d);
	json_decref(p);
	json_decref(h);
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
	int level;

	(void)state;
	for (level = 0; level < 2; level++) {
		struct feed f = {.b = make(level, 2)};
		struct vq_err err = {0};
		pthread_t t;
		int fd[2];

		assert_int_equal(pipe(fd), 0);
		f.fd = fd[1];
		assert_int_equal(pthread_create(&t, NULL, feeder, &f), 0);
		assert_int_equal(read_all(fd[0], HOW_LOAD, NULL, &err), 12);
		pthread_join(t, NULL);
		close(fd[0]);
		vq_free(f.b.p);
	}
}

static void a_record_that_was_read_ahead_may_be_left_out_but_not_passed_on(void **state)
{
	struct bytes b = make(1, 1);
	struct vq_err err = {0};
	struct vq_reader *r;
	struct vq_writer *w;
	struct vq_record rec;
	int fd = file_of(b.p, b.n), sink = file_new(), pass, i;
	void *p;

	(void)state;
	assert_int_equal(vq_writer_open(&w, sink, "sink", 0, &err), VQ_OK);
	for (pass = 0; pass < 2; pass++) {
		assert_true(lseek(fd, 0, SEEK_SET) == 0);
		assert_int_equal(vq_reader_open(&r, fd, "in", &err), VQ_OK);
		assert_int_equal(vq_reader_ahead(r, 1u << VQ_KIND_TENSOR, &err), VQ_OK);
		assert_int_equal(vq_reader_segment(r, &err), 1);
		for (i = 0; i < 3; i++) /* config, none, a.weight */
			assert_int_equal(vq_reader_next(r, &rec, &err), 1);
		assert_int_equal(vq_reader_load(r, &p, &err), VQ_OK);
		vq_free(p);
		assert_int_equal(vq_reader_load(r, &p, &err), VQ_E_SYS);
		memset(&err, 0, sizeof(err));
		assert_int_equal(vq_reader_next(r, &rec, &err), 1);
		assert_string_equal(rec.name, "b.weight");
		if (pass) {
			assert_int_equal(vq_reader_pass(r, w, &err), VQ_E_SYS);
		} else {
			assert_int_equal(vq_reader_next(r, &rec, &err), 1);
			assert_string_equal(rec.name, "empty");
		}
		vq_reader_close(r);
	}
	vq_writer_close(w);
	close(sink);
	close(fd);
	vq_free(b.p);
}

static void closing_does_not_wait_for_input_that_does_not_come(void **state)
{
	struct bytes b = make(0, 1);
	struct vq_err err = {0};
	struct vq_reader *r;
	struct vq_record rec;
	size_t edge[64], n = frame_edges(b, edge, 64);
	int fd[2];
	void *p;

	(void)state;
	assert_true(n > 3);
	assert_int_equal(pipe(fd), 0);
	/* The header, "config" and a piece of what follows: the pipe stays open and empty. */
	assert_int_equal(vq_write_full(fd[1], b.p, edge[3] + 5, "pipe", &err), VQ_OK);
	assert_int_equal(vq_reader_open(&r, fd[0], "in", &err), VQ_OK);
	assert_int_equal(vq_reader_ahead(r, 1u << VQ_KIND_TENSOR, &err), VQ_OK);
	assert_int_equal(vq_reader_segment(r, &err), 1);
	assert_int_equal(vq_reader_next(r, &rec, &err), 1);
	assert_int_equal(vq_reader_load(r, &p, &err), VQ_OK);
	vq_free(p);
	vq_reader_close(r);
	close(fd[0]);
	close(fd[1]);
	vq_free(b.p);
}

static void byte_planes_come_back_and_shrink_weights(void **state)
{
	struct bytes plain = make(0, 1), packed = make(1, 1);
	uint8_t src[4 * 37], mid[4 * 37], back[4 * 37];
	size_t i, w;

	(void)state;
	for (i = 0; i < sizeof(src); i++)
		src[i] = (uint8_t)(i * 7);
	for (w = 2; w <= 4; w += 2) {
		vq_planes_split(mid, src, 37, w);
		assert_int_equal(mid[36], src[36 * w]);
		assert_int_equal(mid[37], src[1]);
		vq_planes_merge(back, mid, 37, w);
		assert_memory_equal(back, src, 37 * w);
	}
	print_message("# figure: normal f16 weights at level 1 with byte planes: %.1f %% of raw\n",
		      100.0 * (double)packed.n / (double)plain.n);
	assert_true(packed.n < plain.n);
	vq_free(plain.p);
	vq_free(packed.p);
}

static int setup(void **state)
{
	struct vq_rng rng = vq_rng_new(7, "stream");
	struct vq_err err = {0};
	size_t i;

	(void)state;
	big = vq_alloc(N_BIG, sizeof(*big), &err);
	if (!big)
		return -1;
	for (i = 0; i < N_BIG; i++)
		big[i] = vq_f32_to_f16((float)(0.02 * vq_rng_normal(rng, i)));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	vq_free(big);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read_back),
		cmocka_unit_test(the_same_records_give_the_same_bytes),
		cmocka_unit_test(passing_on_changes_no_byte_at_the_same_level),
		cmocka_unit_test(passing_a_pipe_into_a_file_packs_it_as_if_written_there),
		cmocka_unit_test(zstd_itself_accepts_streams_of_every_level),
		cmocka_unit_test(a_stream_cut_at_a_frame_edge_or_anywhere_is_refused),
		cmocka_unit_test(a_flipped_bit_is_refused_wherever_it_is),
		cmocka_unit_test(two_segments_in_a_row_are_one_stream),
		cmocka_unit_test(a_header_before_an_end_record_means_a_cut_segment),
		cmocka_unit_test(bytes_after_the_end_are_refused),
		cmocka_unit_test(empty_input_is_refused),
		cmocka_unit_test(another_major_version_is_refused_and_both_are_named),
		cmocka_unit_test(claims_of_huge_sizes_are_refused_without_taking_memory),
		cmocka_unit_test(names_that_are_bad_or_come_twice_are_refused),
		cmocka_unit_test(a_reader_refuses_a_name_that_comes_twice),
		cmocka_unit_test(a_record_that_was_taken_out_or_swapped_is_noticed),
		cmocka_unit_test(history_grows_by_a_line_and_keeps_the_rest),
		cmocka_unit_test(a_pipe_gives_what_a_file_gives),
		cmocka_unit_test(a_record_that_was_read_ahead_may_be_left_out_but_not_passed_on),
		cmocka_unit_test(closing_does_not_wait_for_input_that_does_not_come),
		cmocka_unit_test(byte_planes_come_back_and_shrink_weights),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
