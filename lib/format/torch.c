/* PyTorch's files. */
#include "format/torch.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "format/members.h"
#include "format/pickle.h"

static const uint8_t zip_magic[] = {'P', 'K', 3, 4};
/* The magic number of the format before 1.6, as a pickle of protocol 2. */
static const uint8_t old_magic[] = {0x80, 2,    0x8a, 10,   0x6c, 0xfc, 0x9c,
				    0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

struct file {
	struct vq_torch *t;
	struct vq_members members;
	const uint8_t *data;
	char *prefix; /* "archive/": what stands before data.pkl */
	const char *label;
	struct vq_err *err;
};

static int begins(const uint8_t *p, size_t n, const uint8_t *with, size_t n_with)
{
	return n >= n_with && memcmp(p, with, n_with) == 0;
}

int vq_torch_is(const uint8_t *head, size_t n)
{
	return begins(head, n, zip_magic, sizeof(zip_magic)) ||
	       begins(head, n, old_magic, sizeof(old_magic));
}

/* A member under the prefix, by its name after that; NULL when there is none. */
static const struct vq_member *find(const struct file *f, const char *name)
{
	const struct vq_member *m = NULL;
	struct vq_str full = {0};

	vq_str_printf(&full, "%s%s", f->prefix, name);
	if (!full.failed)
		m = vq_members_find(&f->members, full.s);
	vq_str_free(&full);
	return m;
}

static int compressed(const struct file *f, const struct vq_member *m)
{
	return vq_fail(
		f->err, VQ_E_DATA,
		"%s: '%s' is compressed, which torch.save never does; want it stored: unpack "
		"the archive and pack it with zip -0, or save the model again",
		f->label, m->name);
}

/* The one member that is called data.pkl gives the prefix. */
static int find_pickle(struct file *f, const struct vq_member **out)
{
	static const char name[] = "data.pkl";
	const struct vq_member *found = NULL;
	size_t i, n, k = sizeof(name) - 1;

	for (i = 0; i < f->members.n; i++) {
		const struct vq_member *m = &f->members.v[i];

		n = strlen(m->name);
		if (n < k || strcmp(m->name + n - k, name) != 0 ||
		    (n > k && m->name[n - k - 1] != '/'))
			continue;
		if (found)
			return vq_fail(f->err, VQ_E_DATA,
				       "%s: want one data.pkl, got '%s' and '%s'", f->label,
				       found->name, m->name);
		found = m;
	}
	if (!found)
		return vq_fail(f->err, VQ_E_DATA,
			       "%s: no data.pkl: a ZIP, but not one of torch.save", f->label);
	if (found->packed)
		return compressed(f, found);
	n = strlen(found->name) - k;
	f->prefix = vq_alloc(n + 1, 1, f->err);
	if (!f->prefix)
		return VQ_E_SYS;
	memcpy(f->prefix, found->name, n);
	f->prefix[n] = '\0';
	*out = found;
	return VQ_OK;
}

/* Files before 2.1 do not say and are little-endian. */
static int check_byte_order(const struct file *f)
{
	static const char little[] = "little";
	const struct vq_member *m = find(f, "byteorder");

	if (!m)
		return VQ_OK;
	if (m->packed)
		return compressed(f, m);
	if (m->n == sizeof(little) - 1 && memcmp(f->data + m->at, little, m->n) == 0)
		return VQ_OK;
	return vq_fail(f->err, VQ_E_DATA,
		       "%s: '%s': want byte order 'little'; save the model again on "
		       "a little-endian machine",
		       f->label, m->name);
}

/* 1 when elements follow each other row by row.  A dimension of one element may have any stride, and so may all of a
 * tensor without elements. */
static int row_major(const struct vq_pickled *p)
{
	uint64_t want = 1;
	uint32_t d;

	for (d = p->n_dims; d-- > 0; want *= p->dims[d])
		if (p->dims[d] != 1 && p->strides[d] != want)
			return 0;
	return 1;
}

/* Elements of the storage that the view reaches: 1 + index of its last one.  Too many for 64 bits: the most there are. */
static uint64_t reach(const struct vq_pickled *p)
{
	uint64_t last = p->offset, step;
	uint32_t d;

	for (d = 0; d < p->n_dims; d++)
		if (p->dims[d] == 0)
			return 0;
	for (d = 0; d < p->n_dims; d++)
		if (__builtin_mul_overflow(p->dims[d] - 1, p->strides[d], &step) ||
		    __builtin_add_overflow(last, step, &last))
			return UINT64_MAX;
	return last == UINT64_MAX ? last : last + 1;
}

/* Where the storage begins; checks that all of the view lies in it. */
static int find_storage(const struct file *f, const struct vq_pickled *p, const uint8_t **data)
{
	const struct vq_member *m = NULL;
	struct vq_str name = {0};
	size_t bytes;

	vq_str_printf(&name, "data/%s", p->key);
	if (!name.failed)
		m = find(f, name.s);
	vq_str_free(&name);
	if (!m)
		return vq_fail(f->err, VQ_E_DATA,
			       "%s: tensor '%s': no member '%sdata/%.64s' for its data", f->label,
			       p->name, f->prefix, p->key);
	if (m->packed)
		return compressed(f, m);
	if (vq_mul_size(&bytes, p->n_storage, vq_dtype_size(p->dtype)) < 0 || bytes > m->n)
		return vq_fail(
			f->err, VQ_E_DATA,
			"%s: tensor '%s': want %llu elements of %s in '%s', it has %zu bytes",
			f->label, p->name, (unsigned long long)p->n_storage,
			vq_dtype_name(p->dtype), m->name, m->n);
	if (reach(p) > p->n_storage)
		return vq_fail(
			f->err, VQ_E_DATA,
			"%s: tensor '%s': reaches past the %llu elements of its storage '%s'",
			f->label, p->name, (unsigned long long)p->n_storage, m->name);
	*data = f->data + m->at;
	return VQ_OK;
}

/* Copies a view element by element to row-major order. */
static void gather(uint8_t *to, const uint8_t *from, const struct vq_pickled *p, size_t count,
		   size_t size)
{
	uint64_t index[VQ_MAX_DIMS] = {0}, at = 0;
	uint32_t d;

	for (; count > 0; count--, to += size) {
		memcpy(to, from + at * size, size);
		for (d = p->n_dims; d-- > 0; index[d] = 0) {
			at += p->strides[d];
			if (++index[d] < p->dims[d])
				break;
			at -= p->strides[d] * p->dims[d];
		}
	}
}

/* e->t.data of a copy is an offset into the spool until all are made. */
static int make_row_major(const struct file *f, const struct vq_pickled *p, const uint8_t *first,
			  struct vq_st_entry *e)
{
	size_t count, bytes, at, size = vq_dtype_size(p->dtype);
	void *to;
	int rc;

	vq_info("%s: tensor '%s' is not row-major and is copied", f->label, p->name);
	if (vq_tensor_count(&e->t, &count) < 0 || vq_mul_size(&bytes, count, size) < 0)
		return vq_fail(f->err, VQ_E_DATA, "%s: tensor '%s' is too large", f->label,
			       p->name);
	rc = f->t->copies.fd >= 0 ? VQ_OK : vq_spool_open(&f->t->copies, f->err);
	if (rc == VQ_OK)
		rc = vq_spool_room(&f->t->copies, bytes, &to, &at, f->err);
	if (rc < 0)
		return rc;
	gather(to, first, p, count, size);
	e->t.data = (const void *)(uintptr_t)at;
	return VQ_OK;
}

/* Entry for a description; the name moves. */
static int add(const struct file *f, struct vq_pickled *p, struct vq_st_entry *e, int *copied)
{
	const uint8_t *storage = NULL;
	int rc = find_storage(f, p, &storage);

	if (rc < 0)
		return rc;
	e->t.dtype = p->dtype;
	e->t.n_dims = p->n_dims;
	memcpy(e->t.dims, p->dims, sizeof(e->t.dims));
	/* A view without elements may begin anywhere. */
	e->t.data = storage + (reach(p) ? p->offset * vq_dtype_size(p->dtype) : 0);
	*copied = reach(p) && !row_major(p);
	if (*copied)
		rc = make_row_major(f, p, e->t.data, e);
	e->name = p->name;
	p->name = NULL;
	return rc;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct vq_st_entry *)a)->name, ((const struct vq_st_entry *)b)->name);
}

static int list(const struct file *f, struct vq_pickled *p, size_t n)
{
	struct vq_torch *t = f->t;
	int *copied = vq_calloc(n, sizeof(*copied), f->err), rc = VQ_OK;
	size_t i;

	t->entries = vq_calloc(n, sizeof(*t->entries), f->err);
	if (!copied || !t->entries)
		rc = VQ_E_SYS;
	for (; rc == VQ_OK && t->n < n; t->n++)
		rc = add(f, &p[t->n], &t->entries[t->n], &copied[t->n]);
	if (rc == VQ_OK && t->copies.fd >= 0)
		rc = vq_spool_map(&t->copies, 0, f->err);
	for (i = 0; rc == VQ_OK && i < n; i++)
		if (copied[i])
			t->entries[i].t.data = t->copies.map.data + (uintptr_t)t->entries[i].t.data;
	if (rc == VQ_OK && n > 1)
		qsort(t->entries, n, sizeof(*t->entries), by_name);
	for (i = 1; rc == VQ_OK && i < n; i++)
		if (strcmp(t->entries[i - 1].name, t->entries[i].name) == 0)
			rc = vq_fail(f->err, VQ_E_DATA, "%s: tensor '%s' is there twice", f->label,
				     t->entries[i].name);
	vq_free(copied);
	return rc;
}

static int read_pickle(struct file *f)
{
	const struct vq_member *m = NULL;
	struct vq_pickled *p = NULL;
	size_t n = 0;
	int rc = find_pickle(f, &m);

	if (rc == VQ_OK)
		rc = check_byte_order(f);
	if (rc == VQ_OK)
		rc = vq_pickle_read(&p, &n, f->data + m->at, m->n, f->label, f->err);
	if (rc == VQ_OK)
		rc = list(f, p, n);
	vq_pickled_free(p, n);
	return rc;
}

int vq_torch_open(struct vq_torch *t, const uint8_t *data, size_t n, const char *label,
		  struct vq_err *err)
{
	struct file f = {.t = t, .data = data, .label = label, .err = err};
	int rc;

	memset(t, 0, sizeof(*t));
	t->copies.fd = -1;
	if (begins(data, n, old_magic, sizeof(old_magic)))
		return vq_fail(err, VQ_E_DATA,
			       "%s: saved in PyTorch's format from before 1.6; save it again: "
			       "python3 -c \"import torch; f = '%s'; torch.save(torch.load(f, "
			       "'cpu'), f)\"",
			       label, label);
	rc = vq_members_read(&f.members, data, n, label, err);
	if (rc == VQ_OK)
		rc = read_pickle(&f);
	vq_members_free(&f.members);
	vq_free(f.prefix);
	if (rc < 0)
		vq_torch_close(t);
	return rc;
}

void vq_torch_close(struct vq_torch *t)
{
	size_t i;

	for (i = 0; t->entries && i < t->n; i++)
		vq_free(t->entries[i].name);
	vq_free(t->entries);
	vq_spool_close(&t->copies);
	memset(t, 0, sizeof(*t));
	t->copies.fd = -1;
}
