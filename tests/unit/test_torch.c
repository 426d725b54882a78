/* PyTorch files: what is read of them, and what is refused. */
#include "folder.h"

#include "base/mem.h"
#include "format/members.h"
#include "format/pickle.h"
#include "format/torch.h"
#include "torch_file.h"

static const float numbers[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

static const struct vq_tensor *find(const struct vq_torch *t, const char *name)
{
	size_t i;

	for (i = 0; i < t->n; i++)
		if (strcmp(t->entries[i].name, name) == 0)
			return &t->entries[i].t;
	fail_msg("no tensor '%s'", name);
	return NULL;
}

static float at(const struct vq_tensor *t, size_t i)
{
	float v;

	memcpy(&v, (const char *)t->data + 4 * i, 4);
	return v;
}

/* All of it as one pickle: a matrix, a view of its second row, its transpose, a scalar, an empty tensor. */
static void put_all(struct bytes *p)
{
	pickle_begin(p);
	pickle_tensor(p, "m", "FloatStorage", "0", 12, 0, 2, (int32_t[]){3, 4}, (int32_t[]){4, 1});
	pickle_tensor(p, "row", "FloatStorage", "0", 12, 4, 1, (int32_t[]){4}, (int32_t[]){1});
	pickle_tensor(p, "turned", "FloatStorage", "0", 12, 0, 2, (int32_t[]){4, 3},
		      (int32_t[]){1, 4});
	pickle_tensor(p, "one", "FloatStorage", "0", 12, 11, 0, NULL, NULL);
	pickle_tensor(p, "none", "FloatStorage", "0", 12, 12, 2, (int32_t[]){0, 4},
		      (int32_t[]){4, 1});
	pickle_tensor(p, "same", "FloatStorage", "0", 12, 0, 2, (int32_t[]){1, 4},
		      (int32_t[]){99, 1});
	pickle_end(p);
}

static void views(void **state)
{
	struct bytes p = {0}, f;
	struct vq_torch t;
	struct vq_err err = {0};
	const struct vq_tensor *m, *turned;
	size_t i;

	(void)state;
	put_all(&p);
	f = torch_file(&p, numbers, sizeof(numbers));
	assert_true(vq_torch_is(f.p, f.n));
	if (vq_torch_open(&t, f.p, f.n, "x.bin", &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(t.n, 6);
	m = find(&t, "m");
	assert_int_equal(m->dtype, VQ_F32);
	assert_int_equal(m->n_dims, 2);
	assert_int_equal(m->dims[0], 3);
	assert_int_equal(m->dims[1], 4);
	assert_memory_equal(m->data, numbers, sizeof(numbers));
	/* Views share the file's bytes. */
	assert_true((const uint8_t *)m->data > f.p && (const uint8_t *)m->data < f.p + f.n);
	assert_ptr_equal(find(&t, "row")->data, (const char *)m->data + 16);
	assert_ptr_equal(find(&t, "same")->data, m->data);
	assert_int_equal(find(&t, "one")->n_dims, 0);
	assert_true(at(find(&t, "one"), 0) == 11);
	assert_int_equal(find(&t, "none")->dims[0], 0);
	/* What is not row-major is copied. */
	turned = find(&t, "turned");
	assert_false((const uint8_t *)turned->data >= f.p &&
		     (const uint8_t *)turned->data < f.p + f.n);
	for (i = 0; i < 12; i++)
		assert_true(at(turned, i) == numbers[i % 3 * 4 + i / 3]);
	vq_torch_close(&t);
	free(f.p);
	free(p.p);
}

static void refuse_file(const struct bytes *f, const char *want)
{
	struct vq_torch t;
	struct vq_err err = {0};

	assert_int_equal(vq_torch_open(&t, f->p, f->n, "x.bin", &err), VQ_E_DATA);
	if (!strstr(err.text, want) || strncmp(err.text, "x.bin", 5) != 0)
		fail_msg("want '%s' in: %s", want, err.text);
	assert_null(t.entries);
}

static void refuse_view(const char *type, int32_t n, int32_t offset, int32_t rows, int32_t stride,
			const char *want)
{
	struct bytes p = {0}, f;

	pickle_begin(&p);
	pickle_tensor(&p, "m", type, "0", n, offset, 2, (int32_t[]){rows, 4},
		      (int32_t[]){stride, 1});
	pickle_end(&p);
	f = torch_file(&p, numbers, sizeof(numbers));
	refuse_file(&f, want);
	free(f.p);
	free(p.p);
}

static void bad_views(void **state)
{
	(void)state;
	refuse_view("FloatStorage", 12, 1, 3, 4, "reaches past the 12 elements");
	refuse_view("FloatStorage", 12, 0, 4, 4, "reaches past the 12 elements");
	refuse_view("FloatStorage", 12, 0, 3, 5, "reaches past the 12 elements");
	refuse_view("FloatStorage", 12, 0, INT32_MAX, INT32_MAX, "reaches past the 12 elements");
	refuse_view("FloatStorage", 13, 0, 3, 4,
		    "want 13 elements of f32 in 'archive/data/0', it has 48 bytes");
	refuse_view("DoubleStorage", 12, 0, 3, 4, "want 12 elements of f64");
	refuse_view("FloatStorage", INT32_MAX, 0, 3, 4, "it has 48 bytes");
	refuse_view("FloatStorage", -1, 0, 3, 4, "another persistent id");
	refuse_view("FloatStorage", 12, -4, 3, 4, "a negative one");
	refuse_view("FloatStorage", 12, 0, -3, 4,
		    "sizes and strides that are integers of at least 0");
	refuse_view("FloatStorage", 12, 0, 3, -4,
		    "sizes and strides that are integers of at least 0");
	refuse_view("QInt8Storage", 12, 0, 3, 4, "the global 'torch QInt8Storage' is refused");
}

static void no_storage(void **state)
{
	struct bytes p = {0}, f;

	(void)state;
	pickle_begin(&p);
	pickle_tensor(&p, "m", "FloatStorage", "7", 12, 0, 1, (int32_t[]){1}, (int32_t[]){1});
	pickle_end(&p);
	f = torch_file(&p, numbers, sizeof(numbers));
	refuse_file(&f, "tensor 'm': no member 'archive/data/7'");
	free(f.p);
	free(p.p);
}

/* --- pickles --- */

static void refuse_pickle(const void *data, size_t n, const char *want)
{
	struct vq_pickled *out = NULL;
	struct vq_err err = {0};
	uint8_t *exact = malloc(n ? n : 1);
	size_t n_out = 0;

	memcpy(exact, data, n);
	assert_int_equal(vq_pickle_read(&out, &n_out, exact, n, "x.bin", &err), VQ_E_DATA);
	if (!strstr(err.text, want))
		fail_msg("want '%s' in: %s", want, err.text);
	assert_null(out);
	free(exact);
}

#define REFUSE(text, want) refuse_pickle(text, sizeof(text) - 1, want)

static void bad_pickles(void **state)
{
	(void)state;
	REFUSE("", "the pickle is cut");
	REFUSE("PK", "want a pickle");
	REFUSE("\x80", "the pickle is cut");
	REFUSE("\x80\x04}.", "want a pickle of protocol 2");
	REFUSE("\x80\x02}", "offset 3: want more bytes: the pickle is cut");
	REFUSE("\x80\x02.", "want a dict, got an empty stack");
	REFUSE("\x80\x02N.", "want a dict, got None");
	REFUSE("\x80\x02}}.", "want one state dict, got more on the stack");
	/* What would run something. */
	REFUSE("\x80\x02"
	       "cos\nsystem\nX\x02\0\0\0id\x85R.",
	       "offset 2: the global 'os system' is refused (nothing was executed)");
	REFUSE("\x80\x02"
	       "cposix\nsystem\n",
	       "the global 'posix system' is refused");
	REFUSE("\x80\x02"
	       "c__builtin__\neval\n",
	       "the global '__builtin__ eval' is refused");
	REFUSE("\x80\x02"
	       "c\x1b[31m\n\n",
	       "the global '?[31m ' is refused");
	REFUSE("\x80\x02(ios\nsystem\n.", "the opcode 0x69 INST is refused");
	REFUSE("\x80\x02(o.", "0x6f OBJ");
	REFUSE("\x80\x02)\x81.", "0x81 NEWOBJ");
	REFUSE("\x80\x02\x93.", "0x93 STACK_GLOBAL");
	REFUSE("\x80\x02\x82\x01.", "0x82 EXT1");
	REFUSE("\x80\x02].", "0x5d EMPTY_LIST");
	REFUSE("\x80\x02\xff", "the opcode 0xff is refused");
	REFUSE("\x80\x02"
	       "ccollections\nOrderedDict\n}\x85R.",
	       "want OrderedDict(), got it with arguments");
	REFUSE("\x80\x02"
	       "ctorch\nFloatStorage\n)R.",
	       "want a function that builds a tensor, got FloatStorage");
	REFUSE("\x80\x02"
	       "ctorch._utils\n_rebuild_tensor_v2\n)R.",
	       "got other arguments");
	REFUSE("\x80\x02"
	       "ctorch._utils\n_rebuild_parameter\nN\x85R.",
	       "_rebuild_parameter");
	REFUSE("\x80\x02)Q.", "another persistent id");
	/* Stack and memo. */
	REFUSE("\x80\x02h\x05.", "want a memo index that was set before");
	REFUSE("\x80\x02}r\x02\0\0\0h\x01.", "want a memo index that was set before");
	REFUSE("\x80\x02}r\xff\xff\xff\xff.", "want a memo index below 2^20");
	REFUSE("\x80\x02q\0.", "want a value for the memo, got an empty stack");
	REFUSE("\x80\x02(q\0.", "want a value for the memo, got a mark");
	REFUSE("\x80\x02t.", "want a mark");
	REFUSE("\x80\x02u.", "want a mark");
	REFUSE("\x80\x02(u.", "want a dict to fill, got nothing");
	REFUSE("\x80\x02}(Nu.", "want keys with values");
	REFUSE("\x80\x02}s.", "want a dict, a key and a value, got less");
	REFUSE("\x80\x02}NNs.", "want a string as a dict's key, got None");
	REFUSE("\x80\x02\x86.", "want more values");
	REFUSE("\x80\x02(\x85.", "want a value, got a mark");
	REFUSE("\x80\x02R.", "want a tuple, got an empty stack");
	REFUSE("\x80\x02N}b.", "want an OrderedDict with attributes, got None");
	REFUSE("\x80\x02\x8a\x09", "want an integer of at most 64 bits");
	REFUSE("\x80\x02\x8a\x04\x01", "the pickle is cut");
	REFUSE("\x80\x02X\xff\xff\xff\xff", "the pickle is cut");
	REFUSE("\x80\x02"
	       "cos",
	       "the pickle is cut");
	/* Not a state dict. */
	REFUSE("\x80\x02}X\x05\0\0\0model}s.", "'model' is a dict; want a state dict");
	REFUSE("\x80\x02}X\0\0\0\0Ns.", "want a tensor with a name");
	REFUSE("\x80\x02}X\x01\0\0\0\xffNs.", "want names in UTF-8");
	REFUSE("\x80\x02}X\x03\0\0\0a\0bNs.", "want names in UTF-8 without a zero byte");
}

/* Counts that a short file could blow up: marks and tuples in tuples, a pickle that is too long. */
static void deep_pickles(void **state)
{
	static const uint8_t head[] = {0x80, 2, ')'};
	size_t n = (size_t)3 << 20;
	uint8_t *p = malloc(n);

	(void)state;
	memset(p, '(', n);
	memcpy(p, head, 2);
	refuse_pickle(p, n, "want at most 2^20 objects of a kind");
	memset(p, 0x85, n);
	memcpy(p, head, 3);
	refuse_pickle(p, n, "want at most 2^20 objects of a kind");
	memset(p, 'N', n);
	memcpy(p, head, 2);
	refuse_pickle(p, n, "want at most 2^20 objects of a kind");
	free(p);
	p = calloc(VQ_PICKLE_LIMIT + 1, 1);
	refuse_pickle(p, VQ_PICKLE_LIMIT + 1, "want a pickle of at most 16 MiB");
	free(p);
}

/* --- archives --- */

static void cut_anywhere(void **state)
{
	struct bytes p = {0}, f;
	struct vq_torch t;
	size_t n;

	(void)state;
	put_all(&p);
	f = torch_file(&p, numbers, sizeof(numbers));
	for (n = 0; n < f.n; n++) {
		uint8_t *part = malloc(n ? n : 1);
		struct vq_err err = {0};

		memcpy(part, f.p, n);
		assert_int_equal(vq_torch_open(&t, part, n, "x.bin", &err), VQ_E_DATA);
		assert_true(err.text[0]);
		free(part);
	}
	free(f.p);
	free(p.p);
}

static void refuse_members(struct zip *z, const char *want)
{
	struct bytes f = zip_end(z);

	refuse_file(&f, want);
	free(f.p);
}

static void bad_archives(void **state)
{
	static const char text[] = "text";
	struct zip z = {0};

	(void)state;
	zip_put(&z, "../data.pkl", text, 4, 0);
	refuse_members(&z, "'../data.pkl': want a path that stays inside the archive");
	memset(&z, 0, sizeof(z));
	zip_put(&z, "a/../../b", text, 4, 0);
	refuse_members(&z, "want a path that stays inside the archive");
	memset(&z, 0, sizeof(z));
	zip_put(&z, "/etc/x", text, 4, 0);
	refuse_members(&z, "want a path that stays inside the archive");
	memset(&z, 0, sizeof(z));
	zip_put(&z, "a/x", text, 4, 0);
	refuse_members(&z, "no data.pkl: a ZIP, but not one of torch.save");
	memset(&z, 0, sizeof(z));
	zip_put(&z, "a/data.pkl", text, 4, 0);
	zip_put(&z, "b/data.pkl", text, 4, 0);
	refuse_members(&z, "want one data.pkl, got 'a/data.pkl' and 'b/data.pkl'");
	memset(&z, 0, sizeof(z));
	zip_put(&z, "a/data.pkl", text, 4, 0);
	zip_put(&z, "a/data.pkl", text, 4, 0);
	refuse_members(&z, "'a/data.pkl' is there twice");
	memset(&z, 0, sizeof(z));
	zip_headers(&z, "a/data.pkl", 4, 9, 0, 8, 0, 0);
	put_bytes(&z.file, text, 4);
	refuse_members(&z, "'a/data.pkl' is compressed, which torch.save never does");
	memset(&z, 0, sizeof(z));
	zip_put(&z, "a/data.pkl", text, 4, 1);
	refuse_members(&z, "'a/data.pkl' is encrypted");
	memset(&z, 0, sizeof(z));
	zip_put(&z, "a/data.pkl", text, 4, 0);
	zip_put(&z, "a/byteorder", "big", 3, 0);
	refuse_members(&z, "want byte order 'little'");
}

/* The directory says one thing and the local header another. */
static void headers_disagree(void **state)
{
	struct zip z = {0};
	struct bytes f;

	(void)state;
	zip_put(&z, "a/data.pkl", "text", 4, 0);
	f = zip_end(&z);
	f.p[18] = f.p[22] = 3; /* both sizes of the local header */
	refuse_file(&f, "cut or damaged archive");
	f.p[18] = f.p[22] = 4;
	f.p[0] = 'Q';
	refuse_file(&f, "cut or damaged archive");
	free(f.p);
}

/* Two entries of the directory for the same bytes. */
static void overlapping(void **state)
{
	struct zip z = {0}, inner = {0};

	(void)state;
	zip_put(&inner, "b", "text", 4, 0);
	zip_put(&z, "a/data.pkl", inner.file.p, inner.file.n, 0);
	zip_headers(&z, "b", 4, 4, 0, 0, 0, z.file.n - inner.file.n);
	refuse_members(&z, "'a/data.pkl' and 'b' overlap");
	free(inner.file.p);
	free(inner.directory.p);
}

static void before_zip(void **state)
{
	static uint8_t old[] = {0x80, 2,    0x8a, 10,   0x6c, 0xfc, 0x9c, 0x46,
				0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};
	const struct bytes f = {old, sizeof(old)};

	(void)state;
	assert_true(vq_torch_is(old, sizeof(old)));
	refuse_file(&f, "PyTorch's format from before 1.6; save it again: python3 -c");
	assert_false(vq_torch_is(old, 5));
	assert_false(vq_torch_is((const uint8_t *)"{}", 2));
}

static void member_names(void **state)
{
	static const char *const bad[] = {"",     "/",      "/a",   "..",   "../a",
					  "a/..", "a/../b", "./..", "a\\b", "./"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (vq_member_name(bad[i]))
			fail_msg("'%s' is taken", bad[i]);
	assert_string_equal(vq_member_name("./a/b"), "a/b");
	assert_string_equal(vq_member_name("a..b/..c"), "a..b/..c");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(views),        cmocka_unit_test(bad_views),
		cmocka_unit_test(no_storage),   cmocka_unit_test(bad_pickles),
		cmocka_unit_test(deep_pickles), cmocka_unit_test(cut_anywhere),
		cmocka_unit_test(bad_archives), cmocka_unit_test(headers_disagree),
		cmocka_unit_test(overlapping),  cmocka_unit_test(before_zip),
		cmocka_unit_test(member_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
