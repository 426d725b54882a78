/* The insides of format/pickle.h: values, the stack and the tables that they lie in.  pickle.c reads opcodes,
 * pickle_stack.c moves values, pickle_tensor.c knows what classes and functions stand for. */
#ifndef VQ_FORMAT_PICKLE_PARTS_H
#define VQ_FORMAT_PICKLE_PARTS_H

#include "format/pickle.h"

#define VQ_PICKLE_OBJECTS \
	((size_t)1 << 20) /* of a kind, at most; a 13B model makes some 10^4 in all */

enum vq_pv_type {
	VQ_PV_UNSET,
	VQ_PV_MARK,
	VQ_PV_NONE,
	VQ_PV_BOOL,
	VQ_PV_INT,
	VQ_PV_TEXT,
	VQ_PV_GLOBAL,
	VQ_PV_TUPLE,
	VQ_PV_DICT,
	VQ_PV_STORAGE,
	VQ_PV_TENSOR
};

/* A value is small and is copied; what is larger lies in a table under the index i. */
struct vq_pv {
	enum vq_pv_type type;
	int64_t i;
};

struct vq_pv_text {
	const char *s; /* in the pickle */
	size_t n;
};

struct vq_pv_tuple {
	size_t first, n; /* in items */
};

struct vq_pv_pair {
	struct vq_pv key, value;
	size_t next; /* 1 + index of the pair that follows in its dict, or 0 */
};

struct vq_pv_dict {
	size_t first, last; /* 1 + index, or 0 */
};

struct vq_pv_storage {
	size_t type; /* index of a global */
	struct vq_pv_text key;
	uint64_t n;
};

struct vq_pv_tensor {
	size_t storage;
	struct vq_pickled t; /* without name and key */
};

/* A growing table of one kind of things. */
struct vq_pv_table {
	void *v;
	size_t n, room;
};

struct vq_pickle {
	const uint8_t *data;
	size_t n, at; /* at: after the opcode and what was read of its argument */
	size_t op;    /* offset of the opcode, for messages */
	struct vq_pv_table stack, memo, items, texts, tuples, dicts, pairs, storages, tensors;
	const char *label;
	struct vq_err *err;
};

#define VQ_PV_STACK(m)           ((struct vq_pv *)(m)->stack.v)
#define VQ_PV_AT(m, kind, value) (&((struct vq_pv_##kind *)(m)->kind##s.v)[(value).i])

/* "FILE: pickle, offset N: want WHAT, got GOT"; got may be NULL. */
int vq_pickle_fail(struct vq_pickle *m, const char *what, const char *got);

/* Puts a copy of the thing into the table; *at, when not NULL, is its index. */
VQ_MUST_CHECK int vq_pickle_put(struct vq_pickle *m, struct vq_pv_table *t, const void *thing,
				size_t size, size_t *at);

VQ_MUST_CHECK int vq_pickle_push(struct vq_pickle *m, enum vq_pv_type type, int64_t i);
/* A thing goes to its table, and a value for it to the stack. */
VQ_MUST_CHECK int vq_pickle_push_new(struct vq_pickle *m, enum vq_pv_type type,
				     struct vq_pv_table *t, const void *thing, size_t size);
/* Takes the top; it must be of the type. */
VQ_MUST_CHECK int vq_pickle_pop(struct vq_pickle *m, enum vq_pv_type type, struct vq_pv *out);
const char *vq_pickle_type(enum vq_pv_type type);     /* "a tuple" */
const char *vq_pickle_top(const struct vq_pickle *m); /* the type at the top, for messages */

/* Opcodes. */
VQ_MUST_CHECK int vq_pickle_memo_put(struct vq_pickle *m, uint64_t i);
VQ_MUST_CHECK int vq_pickle_memo_get(struct vq_pickle *m, uint64_t i);
VQ_MUST_CHECK int vq_pickle_tuple(struct vq_pickle *m, size_t n); /* of the last n values */
VQ_MUST_CHECK int vq_pickle_tuple_to_mark(struct vq_pickle *m);
VQ_MUST_CHECK int vq_pickle_dict(struct vq_pickle *m);
VQ_MUST_CHECK int vq_pickle_set_item(struct vq_pickle *m);
VQ_MUST_CHECK int vq_pickle_set_to_mark(struct vq_pickle *m);
VQ_MUST_CHECK int vq_pickle_build(struct vq_pickle *m);
VQ_MUST_CHECK int vq_pickle_global(struct vq_pickle *m, struct vq_pv_text module,
				   struct vq_pv_text name);
VQ_MUST_CHECK int vq_pickle_storage(struct vq_pickle *m);
VQ_MUST_CHECK int vq_pickle_reduce(struct vq_pickle *m);

enum vq_dtype vq_pickle_dtype(const struct vq_pv_storage *s);

int vq_pickle_is(struct vq_pv_text t, const char *s);
/* What may be printed of a name that is not ours. */
void vq_pickle_printable(char *out, size_t room, struct vq_pv_text t);

#endif
