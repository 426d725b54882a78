/* Pickle's stack and memo, tuples and dicts. */
#include "format/pickle_parts.h"

#include <string.h>

#include "base/mem.h"

static const char *const type_names[] = {"nothing",    "a mark",    "None",    "a bool",
					 "an integer", "a string",  "a class", "a tuple",
					 "a dict",     "a storage", "a tensor"};

const char *vq_pickle_type(enum vq_pv_type type)
{
	return type_names[type];
}

int vq_pickle_fail(struct vq_pickle *m, const char *what, const char *got)
{
	return vq_fail(m->err, VQ_E_DATA, "%s: pickle, offset %zu: want %s%s%s", m->label, m->op,
		       what, got ? ", got " : "", got ? got : "");
}

/* Room for one more in the table; its index. */
int vq_pickle_put(struct vq_pickle *m, struct vq_pv_table *t, const void *thing, size_t size,
		  size_t *at)
{
	int rc;

	if (t->n == VQ_PICKLE_OBJECTS)
		return vq_pickle_fail(m, "at most 2^20 objects of a kind", "more");
	rc = vq_grow_one(&t->v, t->n, &t->room, size, m->err);
	if (rc < 0)
		return rc;
	memcpy((char *)t->v + t->n * size, thing, size);
	if (at)
		*at = t->n;
	t->n++;
	return VQ_OK;
}

int vq_pickle_push(struct vq_pickle *m, enum vq_pv_type type, int64_t i)
{
	const struct vq_pv v = {type, i};

	return vq_pickle_put(m, &m->stack, &v, sizeof(v), NULL);
}

/* A thing goes to its table, and a value for it to the stack. */
int vq_pickle_push_new(struct vq_pickle *m, enum vq_pv_type type, struct vq_pv_table *t,
		       const void *thing, size_t size)
{
	size_t at = 0;
	int rc = vq_pickle_put(m, t, thing, size, &at);

	return rc < 0 ? rc : vq_pickle_push(m, type, (int64_t)at);
}

const char *vq_pickle_top(const struct vq_pickle *m)
{
	return m->stack.n ? type_names[VQ_PV_STACK(m)[m->stack.n - 1].type] : "an empty stack";
}

/* Takes the top; it must be of the type. */
int vq_pickle_pop(struct vq_pickle *m, enum vq_pv_type type, struct vq_pv *out)
{
	if (m->stack.n == 0 || VQ_PV_STACK(m)[m->stack.n - 1].type != type)
		return vq_pickle_fail(m, type_names[type], vq_pickle_top(m));
	*out = VQ_PV_STACK(m)[--m->stack.n];
	return VQ_OK;
}

/* Index of the first value after the last mark. */
static int find_mark(struct vq_pickle *m, size_t *first)
{
	size_t i = m->stack.n;

	while (i > 0 && VQ_PV_STACK(m)[i - 1].type != VQ_PV_MARK)
		i--;
	*first = i;
	return i ? VQ_OK : vq_pickle_fail(m, "a mark", "none on the stack");
}

/* --- memo --- */

int vq_pickle_memo_put(struct vq_pickle *m, uint64_t i)
{
	static const struct vq_pv unset = {VQ_PV_UNSET, 0};
	int rc = VQ_OK;

	if (i >= VQ_PICKLE_OBJECTS)
		rc = vq_pickle_fail(m, "a memo index below 2^20", "a larger one");
	if (rc == VQ_OK && (m->stack.n == 0 || VQ_PV_STACK(m)[m->stack.n - 1].type == VQ_PV_MARK))
		rc = vq_pickle_fail(m, "a value for the memo", vq_pickle_top(m));
	while (rc == VQ_OK && m->memo.n <= i)
		rc = vq_pickle_put(m, &m->memo, &unset, sizeof(unset), NULL);
	if (rc == VQ_OK)
		((struct vq_pv *)m->memo.v)[i] = VQ_PV_STACK(m)[m->stack.n - 1];
	return rc;
}

int vq_pickle_memo_get(struct vq_pickle *m, uint64_t i)
{
	const struct vq_pv *memo = m->memo.v;

	if (i >= m->memo.n || memo[i].type == VQ_PV_UNSET)
		return vq_pickle_fail(m, "a memo index that was set before", "another");
	return vq_pickle_push(m, memo[i].type, memo[i].i);
}

/* --- tuples and dicts --- */

/* The last n values of the stack as a tuple. */
int vq_pickle_tuple(struct vq_pickle *m, size_t n)
{
	struct vq_pv_tuple t = {m->items.n, n};
	size_t i, from;
	int rc = VQ_OK;

	if (n > m->stack.n)
		return vq_pickle_fail(m, "more values", "an empty stack");
	from = m->stack.n - n;
	for (i = 0; rc == VQ_OK && i < n; i++) {
		const struct vq_pv v = VQ_PV_STACK(m)[from + i];

		rc = v.type == VQ_PV_MARK ? vq_pickle_fail(m, "a value", "a mark")
					  : vq_pickle_put(m, &m->items, &v, sizeof(v), NULL);
	}
	if (rc < 0)
		return rc;
	m->stack.n = from;
	return vq_pickle_push_new(m, VQ_PV_TUPLE, &m->tuples, &t, sizeof(t));
}

int vq_pickle_tuple_to_mark(struct vq_pickle *m)
{
	size_t first;
	int rc = find_mark(m, &first);

	if (rc == VQ_OK)
		rc = vq_pickle_tuple(m, m->stack.n - first);
	if (rc < 0)
		return rc;
	/* The mark lies below the tuple. */
	VQ_PV_STACK(m)[m->stack.n - 2] = VQ_PV_STACK(m)[m->stack.n - 1];
	m->stack.n--;
	return VQ_OK;
}

int vq_pickle_dict(struct vq_pickle *m)
{
	static const struct vq_pv_dict empty = {0, 0};

	return vq_pickle_push_new(m, VQ_PV_DICT, &m->dicts, &empty, sizeof(empty));
}

static int dict_put(struct vq_pickle *m, struct vq_pv dict, struct vq_pv key, struct vq_pv value)
{
	struct vq_pv_pair p = {key, value, 0};
	struct vq_pv_dict *d;
	size_t at;
	int rc = key.type == VQ_PV_TEXT
			 ? vq_pickle_put(m, &m->pairs, &p, sizeof(p), &at)
			 : vq_pickle_fail(m, "a string as a dict's key", vq_pickle_type(key.type));

	if (rc < 0)
		return rc;
	d = VQ_PV_AT(m, dict, dict);
	if (d->last)
		((struct vq_pv_pair *)m->pairs.v)[d->last - 1].next = at + 1;
	else
		d->first = at + 1;
	d->last = at + 1;
	return VQ_OK;
}

/* Puts the pairs in stack[from..] into the dict below `under` and takes all of it off the stack but the dict. */
static int set_items(struct vq_pickle *m, size_t from, size_t under)
{
	struct vq_pv dict;
	size_t i;
	int rc = VQ_OK;

	if (under == 0 || VQ_PV_STACK(m)[under - 1].type != VQ_PV_DICT)
		return vq_pickle_fail(m, "a dict to fill",
				      under ? vq_pickle_type(VQ_PV_STACK(m)[under - 1].type)
					    : "nothing");
	if ((m->stack.n - from) % 2)
		return vq_pickle_fail(m, "keys with values", "a key without one");
	dict = VQ_PV_STACK(m)[under - 1];
	for (i = from; rc == VQ_OK && i < m->stack.n; i += 2)
		rc = dict_put(m, dict, VQ_PV_STACK(m)[i], VQ_PV_STACK(m)[i + 1]);
	m->stack.n = under;
	return rc;
}

int vq_pickle_set_item(struct vq_pickle *m)
{
	if (m->stack.n < 3)
		return vq_pickle_fail(m, "a dict, a key and a value", "less");
	return set_items(m, m->stack.n - 2, m->stack.n - 2);
}

int vq_pickle_set_to_mark(struct vq_pickle *m)
{
	size_t first;
	int rc = find_mark(m, &first);

	return rc < 0 ? rc : set_items(m, first, first - 1);
}

/* The attributes of a state dict ("_metadata": versions of modules) are of no use. */
int vq_pickle_build(struct vq_pickle *m)
{
	struct vq_pv state;
	int rc = vq_pickle_pop(m, VQ_PV_DICT, &state);

	if (rc == VQ_OK && (m->stack.n == 0 || VQ_PV_STACK(m)[m->stack.n - 1].type != VQ_PV_DICT))
		rc = vq_pickle_fail(m, "an OrderedDict with attributes", vq_pickle_top(m));
	return rc;
}
