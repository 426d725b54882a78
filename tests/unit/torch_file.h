/* PyTorch files made by hand: a pickle's opcodes and a ZIP of stored members, as torch.save lays them out. */
#ifndef TORCH_FILE_H
#define TORCH_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
	uint8_t *p;
	size_t n;
};

static inline void put_bytes(struct bytes *b, const void *p, size_t n)
{
	b->p = realloc(b->p, b->n + n + 1);
	if (n)
		memcpy(b->p + b->n, p, n);
	b->n += n;
}

static inline void put_number(struct bytes *b, uint64_t v, size_t n)
{
	uint8_t le[8];
	size_t i;

	for (i = 0; i < n; i++)
		le[i] = (uint8_t)(v >> (8 * i));
	put_bytes(b, le, n);
}

static inline void op(struct bytes *b, const char *s)
{
	put_bytes(b, s, strlen(s));
}

/* --- pickle --- */

static inline void pickle_text(struct bytes *b, const char *s)
{
	op(b, "X");
	put_number(b, strlen(s), 4);
	op(b, s);
}

static inline void pickle_int(struct bytes *b, int32_t v)
{
	op(b, "J");
	put_number(b, (uint32_t)v, 4);
}

static inline void pickle_begin(struct bytes *b)
{
	op(b, "\x80\x02"
	      "ccollections\nOrderedDict\n)R(");
}

/* name: a view of n_dims <= 2 into the storage of n elements. */
static inline void pickle_tensor(struct bytes *b, const char *name, const char *type,
				 const char *key, int32_t n, int32_t offset, int n_dims,
				 const int32_t *dims, const int32_t *strides)
{
	static const char *const tuples[] = {")", "\x85", "\x86"};
	int i;

	pickle_text(b, name);
	op(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
	pickle_text(b, "storage");
	op(b, "ctorch\n");
	op(b, type);
	op(b, "\n");
	pickle_text(b, key);
	pickle_text(b, "cpu");
	pickle_int(b, n);
	op(b, "tQ");
	pickle_int(b, offset);
	for (i = 0; i < n_dims; i++)
		pickle_int(b, dims[i]);
	op(b, tuples[n_dims]);
	for (i = 0; i < n_dims; i++)
		pickle_int(b, strides[i]);
	op(b, tuples[n_dims]);
	op(b, "\x89"
	      "ccollections\nOrderedDict\n)RtR");
}

static inline void pickle_end(struct bytes *b)
{
	op(b, "u}");
	pickle_text(b, "_metadata");
	op(b, "}sb.");
}

/* --- ZIP --- */

struct zip {
	struct bytes file, directory;
	unsigned n;
};

#define ZIP_DESCRIPTOR 8u /* sizes follow the data, as torch.save has it */

/* Both headers of a member; `at`: where the directory says that the local one is. */
static inline void zip_headers(struct zip *z, const char *name, size_t packed, size_t n,
			       uint32_t crc, unsigned method, unsigned flags, size_t at)
{
	size_t k = strlen(name);
	int later = (flags & ZIP_DESCRIPTOR) != 0;

	put_number(&z->file, 0x04034b50, 4);
	put_number(&z->file, 20, 2);
	put_number(&z->file, flags, 2);
	put_number(&z->file, method, 2);
	put_number(&z->file, 0, 4);
	put_number(&z->file, later ? 0 : crc, 4);
	put_number(&z->file, later ? 0 : packed, 4);
	put_number(&z->file, later ? 0 : n, 4);
	put_number(&z->file, k, 2);
	put_number(&z->file, 0, 2);
	op(&z->file, name);
	put_number(&z->directory, 0x02014b50, 4);
	put_number(&z->directory, 20, 2);
	put_number(&z->directory, 20, 2);
	put_number(&z->directory, flags, 2);
	put_number(&z->directory, method, 2);
	put_number(&z->directory, 0, 4);
	put_number(&z->directory, crc, 4);
	put_number(&z->directory, packed, 4);
	put_number(&z->directory, n, 4);
	put_number(&z->directory, k, 2);
	put_number(&z->directory, 0, 2);
	put_number(&z->directory, 0, 2);
	put_number(&z->directory, 0, 2);
	put_number(&z->directory, 0, 2);
	put_number(&z->directory, 0, 4);
	put_number(&z->directory, at, 4);
	op(&z->directory, name);
	z->n++;
}

static inline void zip_put(struct zip *z, const char *name, const void *data, size_t n,
			   unsigned flags)
{
	const uint32_t crc = 0; /* nobody looks: whoever turns checksums off has none either */

	zip_headers(z, name, n, n, crc, 0, flags, z->file.n);
	put_bytes(&z->file, data, n);
	if (flags & ZIP_DESCRIPTOR) {
		put_number(&z->file, 0x08074b50, 4);
		put_number(&z->file, crc, 4);
		put_number(&z->file, n, 4);
		put_number(&z->file, n, 4);
	}
}

/* The directory and its end; what was there before is freed, the file is given. */
static inline struct bytes zip_end(struct zip *z)
{
	size_t at = z->file.n;

	put_bytes(&z->file, z->directory.p, z->directory.n);
	put_number(&z->file, 0x06054b50, 4);
	put_number(&z->file, 0, 4);
	put_number(&z->file, z->n, 2);
	put_number(&z->file, z->n, 2);
	put_number(&z->file, z->directory.n, 4);
	put_number(&z->file, at, 4);
	put_number(&z->file, 0, 2);
	free(z->directory.p);
	return z->file;
}

/* A file of a pickle and one storage, data/0. */
static inline struct bytes torch_file(const struct bytes *pickle, const void *data, size_t n)
{
	struct zip z = {{0}, {0}, 0};

	zip_put(&z, "archive/data.pkl", pickle->p, pickle->n, ZIP_DESCRIPTOR);
	zip_put(&z, "archive/data/0", data, n, ZIP_DESCRIPTOR);
	zip_put(&z, "archive/version", "3\n", 2, ZIP_DESCRIPTOR);
	return zip_end(&z);
}

#endif
