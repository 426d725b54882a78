/* What a state dict's pickle calls: storages and the tensors in them. */
#include "format/pickle_parts.h"

#include <string.h>

/* What VQ_PV_GLOBAL may name. */
enum global_kind { ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, STORAGE_TYPE };
static const struct global {
	const char *module, *name;
	enum global_kind kind;
	enum vq_dtype dtype; /* of a storage */
} globals[] = {
	{"collections", "OrderedDict", ORDERED_DICT, VQ_BYTES},
	{"torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR, VQ_BYTES},
	{"torch._utils", "_rebuild_parameter", REBUILD_PARAMETER, VQ_BYTES},
	{"torch", "HalfStorage", STORAGE_TYPE, VQ_F16},
	{"torch", "BFloat16Storage", STORAGE_TYPE, VQ_BF16},
	{"torch", "FloatStorage", STORAGE_TYPE, VQ_F32},
	{"torch", "DoubleStorage", STORAGE_TYPE, VQ_F64},
	{"torch", "CharStorage", STORAGE_TYPE, VQ_I8},
	{"torch", "ByteStorage", STORAGE_TYPE, VQ_U8},
	{"torch", "ShortStorage", STORAGE_TYPE, VQ_I16},
	{"torch", "IntStorage", STORAGE_TYPE, VQ_I32},
	{"torch", "LongStorage", STORAGE_TYPE, VQ_I64},
	{"torch", "BoolStorage", STORAGE_TYPE, VQ_BOOL},
};

#define N_GLOBALS (sizeof(globals) / sizeof(globals[0]))

int vq_pickle_is(struct vq_pv_text t, const char *s)
{
	return strlen(s) == t.n && memcmp(t.s, s, t.n) == 0;
}

/* For messages: what may be printed of a name that is not ours. */
void vq_pickle_printable(char *out, size_t room, struct vq_pv_text t)
{
	size_t i;

	for (i = 0; i < t.n && i + 1 < room; i++)
		out[i] = t.s[i] > ' ' && t.s[i] < 127 ? t.s[i] : '?';
	out[i] = '\0';
}

int vq_pickle_global(struct vq_pickle *m, struct vq_pv_text module, struct vq_pv_text name)
{
	char a[64], b[64];
	size_t i;

	for (i = 0; i < N_GLOBALS; i++)
		if (vq_pickle_is(module, globals[i].module) && vq_pickle_is(name, globals[i].name))
			return vq_pickle_push(m, VQ_PV_GLOBAL, (int64_t)i);
	vq_pickle_printable(a, sizeof(a), module);
	vq_pickle_printable(b, sizeof(b), name);
	return vq_fail(
		m->err, VQ_E_DATA,
		"%s: pickle, offset %zu: the global '%s %s' is refused (nothing was executed); "
		"want a state dict of plain tensors: save it again as one, or as safetensors",
		m->label, m->op, a, b);
}

/* --- storages and tensors --- */

/* Item i of a tuple if it is of the type, else VQ_PV_UNSET. */
static struct vq_pv item(const struct vq_pickle *m, const struct vq_pv_tuple *t, size_t i,
			 enum vq_pv_type type)
{
	static const struct vq_pv unset = {VQ_PV_UNSET, 0};
	const struct vq_pv *v = m->items.v;

	return i < t->n && v[t->first + i].type == type ? v[t->first + i] : unset;
}

/* ("storage", class, key, place, number of elements) */
int vq_pickle_storage(struct vq_pickle *m)
{
	struct vq_pv_storage s;
	struct vq_pv v, what, type, key, n;
	const struct vq_pv_tuple *t;
	int rc = vq_pickle_pop(m, VQ_PV_TUPLE, &v);

	if (rc < 0)
		return rc;
	t = VQ_PV_AT(m, tuple, v);
	what = item(m, t, 0, VQ_PV_TEXT);
	type = item(m, t, 1, VQ_PV_GLOBAL);
	key = item(m, t, 2, VQ_PV_TEXT);
	n = item(m, t, 4, VQ_PV_INT);
	if (t->n != 5 || !what.type || !vq_pickle_is(*VQ_PV_AT(m, text, what), "storage") ||
	    !type.type || !key.type || !n.type || n.i < 0 || globals[type.i].kind != STORAGE_TYPE)
		return vq_pickle_fail(m, "('storage', type, key, place, elements)",
				      "another persistent id");
	s = (struct vq_pv_storage){(size_t)type.i, *VQ_PV_AT(m, text, key), (uint64_t)n.i};
	return vq_pickle_push_new(m, VQ_PV_STORAGE, &m->storages, &s, sizeof(s));
}

/* Sizes or strides: integers of at least 0. */
static int numbers(struct vq_pickle *m, struct vq_pv v, uint64_t *out, size_t *n)
{
	const struct vq_pv_tuple *t;
	size_t i;

	if (v.type != VQ_PV_TUPLE)
		return vq_pickle_fail(m, "a tuple of sizes and one of strides", NULL);
	t = VQ_PV_AT(m, tuple, v);
	if (t->n > VQ_MAX_DIMS)
		return vq_pickle_fail(m, "a tensor of at most 8 dimensions", "more");
	for (i = 0; i < t->n; i++) {
		const struct vq_pv x = item(m, t, i, VQ_PV_INT);

		if (!x.type || x.i < 0)
			return vq_pickle_fail(
				m, "sizes and strides that are integers of at least 0", "another");
		out[i] = (uint64_t)x.i;
	}
	*n = t->n;
	return VQ_OK;
}

/* _rebuild_tensor_v2(storage, offset, sizes, strides, requires_grad, hooks[, metadata]) */
static int rebuild_tensor(struct vq_pickle *m, const struct vq_pv_tuple *args)
{
	struct vq_pv storage = item(m, args, 0, VQ_PV_STORAGE),
		     offset = item(m, args, 1, VQ_PV_INT);
	struct vq_pv_tensor t = {.storage = (size_t)storage.i};
	size_t n_dims = 0, n_strides = 0;
	int rc;

	if (args->n < 6 || args->n > 7 || !storage.type || !offset.type)
		return vq_pickle_fail(m, "_rebuild_tensor_v2(storage, offset, sizes, strides, ...)",
				      "other arguments");
	if (offset.i < 0)
		return vq_pickle_fail(m, "an offset into the storage of at least 0",
				      "a negative one");
	t.t.offset = (uint64_t)offset.i;
	rc = numbers(m, item(m, args, 2, VQ_PV_TUPLE), t.t.dims, &n_dims);
	if (rc == VQ_OK)
		rc = numbers(m, item(m, args, 3, VQ_PV_TUPLE), t.t.strides, &n_strides);
	if (rc == VQ_OK && n_dims != n_strides)
		rc = vq_pickle_fail(m, "as many strides as sizes", "another number");
	t.t.n_dims = (uint32_t)n_dims;
	return rc < 0 ? rc : vq_pickle_push_new(m, VQ_PV_TENSOR, &m->tensors, &t, sizeof(t));
}

int vq_pickle_reduce(struct vq_pickle *m)
{
	struct vq_pv args, callee, t;
	const struct vq_pv_tuple *a;
	int rc = vq_pickle_pop(m, VQ_PV_TUPLE, &args);

	if (rc == VQ_OK)
		rc = vq_pickle_pop(m, VQ_PV_GLOBAL, &callee);
	if (rc < 0)
		return rc;
	a = VQ_PV_AT(m, tuple, args);
	switch (globals[callee.i].kind) {
	case ORDERED_DICT:
		return a->n ? vq_pickle_fail(m, "OrderedDict()", "it with arguments")
			    : vq_pickle_dict(m);
	case REBUILD_TENSOR: return rebuild_tensor(m, a);
	case REBUILD_PARAMETER:
		t = item(m, a, 0, VQ_PV_TENSOR);
		return t.type ? vq_pickle_push(m, VQ_PV_TENSOR, t.i)
			      : vq_pickle_fail(m, "_rebuild_parameter(tensor, ...)", NULL);
	case STORAGE_TYPE: break;
	}
	return vq_pickle_fail(m, "a function that builds a tensor", globals[callee.i].name);
}

enum vq_dtype vq_pickle_dtype(const struct vq_pv_storage *s)
{
	return globals[s->type].dtype;
}
