/* Pickle's machine, as far as state dicts need it: a stack, marks, a memo, and values that are only ever looked at. */
#include "format/pickle_parts.h"

#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

static int cut(struct vq_pickle *m)
{
	return vq_pickle_fail(m, "more bytes: the pickle is cut", NULL);
}

/* --- arguments in the pickle --- */

static int take(struct vq_pickle *m, size_t n, const uint8_t **p)
{
	if (n > m->n - m->at)
		return cut(m);
	*p = m->data + m->at;
	m->at += n;
	return VQ_OK;
}

/* n <= 8 bytes, little-endian. */
static int take_number(struct vq_pickle *m, size_t n, uint64_t *out)
{
	const uint8_t *p = NULL;
	int rc = take(m, n, &p);

	for (*out = 0; rc == VQ_OK && n-- > 0;)
		*out = *out << 8 | p[n];
	return rc;
}

static int push_number(struct vq_pickle *m, size_t n, int is_signed)
{
	uint64_t v = 0;
	int rc = take_number(m, n, &v);

	if (rc == VQ_OK && is_signed && n > 0 && n < 8 && v >> (8 * n - 1))
		v |= ~(uint64_t)0 << 8 * n;
	return rc < 0 ? rc : vq_pickle_push(m, VQ_PV_INT, (int64_t)v);
}

static int push_long(struct vq_pickle *m)
{
	uint64_t n = 0;
	int rc = take_number(m, 1, &n);

	if (rc == VQ_OK && n > 8)
		rc = vq_pickle_fail(m, "an integer of at most 64 bits", "a longer one");
	return rc < 0 ? rc : push_number(m, (size_t)n, 1);
}

static int push_text(struct vq_pickle *m)
{
	struct vq_pv_text t;
	const uint8_t *p = NULL;
	uint64_t n = 0;
	int rc = take_number(m, 4, &n);

	if (rc == VQ_OK)
		rc = take(m, (size_t)n, &p);
	if (rc < 0)
		return rc;
	t = (struct vq_pv_text){(const char *)p, (size_t)n};
	return vq_pickle_push_new(m, VQ_PV_TEXT, &m->texts, &t, sizeof(t));
}

/* A line of the pickle, without its end. */
static int take_line(struct vq_pickle *m, struct vq_pv_text *t)
{
	const uint8_t *p = m->data + m->at, *end = memchr(p, '\n', m->n - m->at);

	if (!end)
		return cut(m);
	*t = (struct vq_pv_text){(const char *)p, (size_t)(end - p)};
	m->at += t->n + 1;
	return VQ_OK;
}

static int push_global(struct vq_pickle *m)
{
	struct vq_pv_text module, name;
	int rc = take_line(m, &module);

	if (rc == VQ_OK)
		rc = take_line(m, &name);
	return rc < 0 ? rc : vq_pickle_global(m, module, name);
}

static int memo(struct vq_pickle *m, size_t width, int (*move)(struct vq_pickle *, uint64_t))
{
	uint64_t i;
	int rc = take_number(m, width, &i);

	return rc < 0 ? rc : move(m, i);
}

/* --- the machine --- */

static int refuse_opcode(struct vq_pickle *m, uint8_t op)
{
	/* Those that files of other makers have; the rest is named by its byte. */
	static const struct {
		uint8_t op;
		const char *name;
	} names[] = {
		{'i', "INST"},   {'o', "OBJ"},        {0x81, "NEWOBJ"},  {0x93, "STACK_GLOBAL"},
		{'P', "PERSID"}, {']', "EMPTY_LIST"}, {'G', "BINFLOAT"}, {'U', "SHORT_BINSTRING"},
		{'d', "DICT"},   {0x82, "EXT1"},
	};
	size_t i;
	const char *name = "";

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].op == op)
			name = names[i].name;
	return vq_fail(
		m->err, VQ_E_DATA,
		"%s: pickle, offset %zu: the opcode 0x%02x%s%s is refused (nothing was executed); "
		"want a state dict of plain tensors: save it again as one, or as safetensors",
		m->label, m->op, op, *name ? " " : "", name);
}

static int step(struct vq_pickle *m, uint8_t op)
{
	switch (op) {
	case '}': return vq_pickle_dict(m);
	case ')': return vq_pickle_tuple(m, 0);
	case '(': return vq_pickle_push(m, VQ_PV_MARK, 0);
	case 'N': return vq_pickle_push(m, VQ_PV_NONE, 0);
	case 0x88: return vq_pickle_push(m, VQ_PV_BOOL, 1);
	case 0x89: return vq_pickle_push(m, VQ_PV_BOOL, 0);
	case 'J': return push_number(m, 4, 1);
	case 'K': return push_number(m, 1, 0);
	case 'M': return push_number(m, 2, 0);
	case 0x8a: return push_long(m);
	case 'X': return push_text(m);
	case 'c': return push_global(m);
	case 'q': return memo(m, 1, vq_pickle_memo_put);
	case 'r': return memo(m, 4, vq_pickle_memo_put);
	case 'h': return memo(m, 1, vq_pickle_memo_get);
	case 'j': return memo(m, 4, vq_pickle_memo_get);
	case 't': return vq_pickle_tuple_to_mark(m);
	case 0x85: return vq_pickle_tuple(m, 1);
	case 0x86: return vq_pickle_tuple(m, 2);
	case 0x87: return vq_pickle_tuple(m, 3);
	case 's': return vq_pickle_set_item(m);
	case 'u': return vq_pickle_set_to_mark(m);
	case 'b': return vq_pickle_build(m);
	case 'Q': return vq_pickle_storage(m);
	case 'R': return vq_pickle_reduce(m);
	default: return refuse_opcode(m, op);
	}
}

static int run(struct vq_pickle *m)
{
	uint64_t protocol = 0;
	const uint8_t *op = NULL;
	int rc = take(m, 1, &op);

	if (rc == VQ_OK && *op != 0x80)
		return vq_pickle_fail(m, "a pickle", "another file");
	if (rc == VQ_OK)
		rc = take_number(m, 1, &protocol);
	if (rc == VQ_OK && protocol != 2)
		rc = vq_pickle_fail(m, "a pickle of protocol 2, which torch.save writes by itself",
				    "another");
	while (rc == VQ_OK) {
		m->op = m->at;
		rc = take(m, 1, &op);
		if (rc == VQ_OK && *op == '.')
			break;
		if (rc == VQ_OK)
			rc = step(m, *op);
	}
	return rc;
}

/* --- what came of it --- */

static char *copy_text(struct vq_pickle *m, struct vq_pv_text t)
{
	char *s = vq_alloc(t.n + 1, 1, m->err);

	if (s) {
		if (t.n)
			memcpy(s, t.s, t.n);
		s[t.n] = '\0';
	}
	return s;
}

static int check_name(struct vq_pickle *m, struct vq_pv_text t)
{
	size_t i = 0;

	while (i < t.n) {
		int c = t.s[i] ? vq_utf8_next(t.s + i, t.n - i, NULL) : 0;

		if (c < 1)
			return vq_pickle_fail(m, "names in UTF-8 without a zero byte", "another");
		i += (size_t)c;
	}
	return t.n ? VQ_OK : vq_pickle_fail(m, "a tensor with a name", "an empty one");
}

static int give(struct vq_pickle *m, const struct vq_pv_pair *p, struct vq_pickled *out)
{
	struct vq_pv_text name = *VQ_PV_AT(m, text, p->key);
	const struct vq_pv_tensor *t;
	const struct vq_pv_storage *s;
	char shown[64];
	int rc = check_name(m, name);

	if (rc < 0)
		return rc;
	if (p->value.type != VQ_PV_TENSOR) {
		vq_pickle_printable(shown, sizeof(shown), name);
		return vq_fail(
			m->err, VQ_E_DATA,
			"%s: '%s' is %s; want a state dict, which has tensors alone: save that",
			m->label, shown, vq_pickle_type(p->value.type));
	}
	t = VQ_PV_AT(m, tensor, p->value);
	s = &((const struct vq_pv_storage *)m->storages.v)[t->storage];
	rc = check_name(m, s->key);
	if (rc < 0)
		return rc;
	*out = t->t;
	out->dtype = vq_pickle_dtype(s);
	out->n_storage = s->n;
	out->name = copy_text(m, name);
	out->key = copy_text(m, s->key);
	return out->name && out->key ? VQ_OK : VQ_E_SYS;
}

/* The root's pairs. */
static int collect(struct vq_pickle *m, struct vq_pickled **out, size_t *n)
{
	const struct vq_pv_pair *pairs = m->pairs.v;
	struct vq_pickled *v;
	struct vq_pv root;
	size_t i, count = 0;
	int rc = vq_pickle_pop(m, VQ_PV_DICT, &root);

	if (rc == VQ_OK && m->stack.n)
		rc = vq_pickle_fail(m, "one state dict", "more on the stack");
	if (rc < 0)
		return rc;
	for (i = VQ_PV_AT(m, dict, root)->first; i; i = pairs[i - 1].next)
		count++;
	v = vq_calloc(count, sizeof(*v), m->err);
	if (!v)
		return VQ_E_SYS;
	count = 0;
	for (i = VQ_PV_AT(m, dict, root)->first; rc == VQ_OK && i; i = pairs[i - 1].next)
		rc = give(m, &pairs[i - 1], &v[count++]);
	if (rc < 0) {
		vq_pickled_free(v, count);
		return rc;
	}
	*out = v;
	*n = count;
	return VQ_OK;
}

int vq_pickle_read(struct vq_pickled **out, size_t *n, const uint8_t *data, size_t n_data,
		   const char *label, struct vq_err *err)
{
	struct vq_pickle m = {.data = data, .n = n_data, .label = label, .err = err};
	struct vq_pv_table *const all[] = {&m.stack, &m.memo,  &m.items,    &m.texts,  &m.tuples,
					   &m.dicts, &m.pairs, &m.storages, &m.tensors};
	size_t i;
	int rc = n_data > VQ_PICKLE_LIMIT
			 ? vq_pickle_fail(&m, "a pickle of at most 16 MiB", "a longer one")
			 : run(&m);

	if (rc == VQ_OK)
		rc = collect(&m, out, n);
	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		vq_free(all[i]->v);
	return rc;
}

void vq_pickled_free(struct vq_pickled *t, size_t n)
{
	size_t i;

	for (i = 0; t && i < n; i++) {
		vq_free(t[i].name);
		vq_free(t[i].key);
	}
	vq_free(t);
}
