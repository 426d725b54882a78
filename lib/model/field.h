/* Tables that say which member of a JSON object becomes which field of a struct, in what range. */
#ifndef VQ_MODEL_FIELD_H
#define VQ_MODEL_FIELD_H

#include <stddef.h>

#include "base/json.h"

enum vq_field_type {
	VQ_FIELD_U32,
	VQ_FIELD_I32,
	VQ_FIELD_F32,
	VQ_FIELD_BOOL, /* int, 0 or 1 */
	VQ_FIELD_WORD, /* an enum, by name */
};

struct vq_word {
	const char *text;
	int value;
}; /* a list ends with {0} */

#define VQ_REQUIRED ((double)__builtin_nan(""))

struct vq_field {
	const char *key;
	enum vq_field_type type;
	size_t offset;
	double lo, hi; /* both allowed; U32, I32 and F32 */
	double dflt; /* for an absent key or null; not held to the range.  VQ_REQUIRED: an error */
	const struct vq_word *words; /* WORD; the first of a value is the one that is written */
};

/* base: the struct that the offsets are in.  VQ_E_DATA names label, key, what was wanted, what came. */
VQ_MUST_CHECK int vq_fields_read(const struct vq_field *f, size_t n, void *base, const json_t *o,
				 const char *label, struct vq_err *err);

/* Sets the members of o.  What vq_fields_read reads back to the same bits. */
VQ_MUST_CHECK int vq_fields_write(const struct vq_field *f, size_t n, const void *base, json_t *o,
				  struct vq_err *err);

/* "label: 'key': want WANT, got VALUE"; v may be NULL (nothing).  Returns VQ_E_DATA. */
int vq_field_refuse(const char *label, const char *key, const char *want, const json_t *v,
		    struct vq_err *err);

#endif
