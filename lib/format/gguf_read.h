/* GGUF files, versions 2 and 3, little-endian: reading.  https://github.com/ggml-org/ggml, docs/gguf.md.
 *
 *   "GGUF", u32 version, u64 tensors, u64 keys; keys: string, u32 type, value; tensors: string name, u32 n_dims, u64 dims
 *   (the fastest first), u32 type, u64 offset; then, at a multiple of general.alignment, the tensors' data
 *
 * A string is u64 bytes and the bytes, an array u32 type, u64 elements and the elements.  Whatever the file says is held
 * against its size before memory is taken.  Everything that does not hold is VQ_E_DATA and names the file, the key or
 * the tensor, what was wanted and what came. */
#ifndef VQ_FORMAT_GGUF_READ_H
#define VQ_FORMAT_GGUF_READ_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define VQ_GGUF_MAX_NAME  63u /* bytes of a tensor's name */
#define VQ_GGUF_MAX_DIMS  4u
#define VQ_GGUF_HEAD_SIZE 24u /* bytes before the first key */

/* Types of values, by their numbers in files. */
enum vq_gguf_type {
	VQ_GGUF_U8,
	VQ_GGUF_I8,
	VQ_GGUF_U16,
	VQ_GGUF_I16,
	VQ_GGUF_U32,
	VQ_GGUF_I32,
	VQ_GGUF_F32,
	VQ_GGUF_BOOL,
	VQ_GGUF_STRING,
	VQ_GGUF_ARRAY,
	VQ_GGUF_U64,
	VQ_GGUF_I64,
	VQ_GGUF_F64,
	VQ_GGUF_N_TYPES
};

/* A key and its value, where they lie in the file. */
struct vq_gguf_key {
	const char *name; /* not ended by a zero byte */
	size_t n_name;
	uint32_t type, item; /* item: of an array's elements, else type again */
	uint64_t n;          /* elements of an array, else 1 */
	const uint8_t *p;    /* the value, or the first element; a string begins with its length */
};

struct vq_gguf_tensor_info {
	char name[VQ_GGUF_MAX_NAME + 1];
	uint32_t type; /* vq_ggml_layout has it */
	uint32_t n_dims;
	uint64_t dims[VQ_GGUF_MAX_DIMS]; /* slowest first, as everywhere here */
	const uint8_t *data;
	size_t bytes;
};

struct vq_gguf_file {
	const char *path; /* for messages; borrowed */
	uint32_t version;
	struct vq_gguf_key *keys; /* sorted by name */
	size_t n_keys;
	struct vq_gguf_tensor_info *tensors; /* in the file's order */
	size_t n_tensors;
};

/* 1 when the first bytes of a file are GGUF's. */
int vq_gguf_is(const uint8_t *head, size_t n);

/* A file that lies in memory, which is kept until close. */
VQ_MUST_CHECK int vq_gguf_parse(struct vq_gguf_file *g, const uint8_t *data, size_t n,
				const char *path, struct vq_err *err);
void vq_gguf_close(struct vq_gguf_file *g); /* fine on zeroes, and after a failed parse */

/* NULL when there is none of that name. */
const struct vq_gguf_key *vq_gguf_find(const struct vq_gguf_file *g, const char *name);

/* --- values: 1 when the key is there and *out is set, 0 when it is not and *out stays, VQ_E_DATA when its value is of
 * another type or out of range --- */

/* A whole number of any type in lo..hi. */
VQ_MUST_CHECK int vq_gguf_get_u32(const struct vq_gguf_file *g, const char *name, uint32_t lo,
				  uint32_t hi, uint32_t *out, struct vq_err *err);
VQ_MUST_CHECK int vq_gguf_get_f64(const struct vq_gguf_file *g, const char *name, double *out,
				  struct vq_err *err); /* a finite number of either type */
VQ_MUST_CHECK int vq_gguf_get_bool(const struct vq_gguf_file *g, const char *name, int *out,
				   struct vq_err *err);
/* Ended by a zero byte; a string with one inside is refused.  Given. */
VQ_MUST_CHECK int vq_gguf_get_text(const struct vq_gguf_file *g, const char *name, char **out,
				   struct vq_err *err);
/* An array of that type. */
VQ_MUST_CHECK int vq_gguf_get_array(const struct vq_gguf_file *g, const char *name,
				    enum vq_gguf_type item, const struct vq_gguf_key **out,
				    struct vq_err *err);

/* The string at *p, which moves behind it.  Borrowed, not ended by a zero byte. */
const char *vq_gguf_next_text(const uint8_t **p, size_t *n);
const char *vq_gguf_type_name(uint32_t type); /* "u32"; "?" for others */

#endif
