/* Packing: transforms of inputs. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "task/pack_parts.h"

static struct vq_pack_transform *find(const struct vq_pack *k, const char *from)
{
	size_t i;

	for (i = 0; i < k->n_transforms; i++)
		if (strcmp(k->transforms[i].from, from) == 0)
			return &k->transforms[i];
	return NULL;
}

static int add(struct vq_pack *k, const struct vq_transform_attr *a, const struct vq_name *name,
	       struct vq_err *err)
{
	struct vq_pack_transform *t;

	if (k->n_transforms == k->room_transforms) {
		size_t room = 2 * k->room_transforms + 64;
		int rc = vq_grow((void **)&k->transforms, k->n_transforms, room, sizeof(*t), err);

		if (rc < 0)
			return rc;
		k->room_transforms = room;
	}
	t = &k->transforms[k->n_transforms++];
	*t = (struct vq_pack_transform){
		.name = name, .kind = a->kind, .n = a->n, .block = a->block, .n_parts = a->n_parts};
	snprintf(t->from, sizeof(t->from), "%s", a->from);
	return VQ_OK;
}

int vq_pack_transform(struct vq_pack *k, const struct vq_record *rec, const struct vq_name *name,
		      struct vq_err *err)
{
	const json_t *j = json_object_get(rec->attrs, "transform");
	const struct vq_pack_transform *t;
	struct vq_transform_attr a;
	char where[VQ_NAME_MAX + 100];
	int rc = VQ_OK;

	if (!j)
		return VQ_OK;
	snprintf(where, sizeof(where), "%.80s: '%s'", k->label, rec->name);
	if (vq_transform_attr_parse(&a, j, (uint32_t)rec->dims[1], where, err) < 0)
		return VQ_E_DATA;
	if (vq_transform_is_own(&a, rec->name)) {
		rc = add(k, &a, name, err);
	} else {
		t = find(k, a.from);
		/* Names are in order of execution, in which a model is loaded. */
		if (!t || t->name->unit != name->unit || t->name > name)
			rc = vq_fail(
				err, VQ_E_DATA,
				"%s: its transform is that of '%s', which has none ahead of it in "
				"unit %u",
				where, a.from, name->unit);
		else if (t->kind != a.kind || t->n != a.n || t->block != a.block)
			rc = vq_fail(
				err, VQ_E_DATA,
				"%s: its transform is that of '%s', but of another kind, width or "
				"block",
				where, a.from);
	}
	k->n_transformed[a.kind]++;
	return rc;
}

const char *vq_pack_transform_wants(const struct vq_pack *k, char buf[VQ_NAME_MAX + 32])
{
	const struct vq_pack_transform *t;

	if (k->n_transforms == 0)
		return NULL;
	t = &k->transforms[k->n_transforms - 1];
	if (t->n_seen == t->n_parts)
		return NULL;
	snprintf(buf, VQ_NAME_MAX + 32, "%s%s", t->from, vq_transform_suffix(t->n_seen));
	return buf;
}

int vq_pack_transform_part(struct vq_pack *k, const struct vq_record *rec, struct vq_err *err)
{
	struct vq_pack_transform *t;
	char name[VQ_NAME_MAX + 32], where[VQ_NAME_MAX + 100];
	const char *want = vq_pack_transform_wants(k, name);
	struct vq_transform_attr a;
	struct vq_transform ignored;
	struct vq_pack_size *s;
	struct vq_tensor v = {rec->dtype, rec->n_dims, {0}, NULL};
	void *data = NULL;
	int rc;

	if (!want)
		return vq_pack_bad(k, rec, err, "there is nothing before it that wants it");
	t = &k->transforms[k->n_transforms - 1];
	snprintf(where, sizeof(where), "%.80s: '%s'", k->label, rec->name);
	if (strcmp(rec->name, want) != 0)
		return vq_fail(err, VQ_E_DATA, "%s: want '%s' here", where, want);
	rc = vq_reader_load(k->in, &data, err);
	memcpy(v.dims, rec->dims, sizeof(v.dims));
	v.data = data;
	a = (struct vq_transform_attr){.kind = t->kind, .n = t->n, .block = t->block};
	if (rc == VQ_OK)
		rc = vq_transform_set(&ignored, &a, t->n_seen, &v, where, err);
	if (rc == VQ_OK)
		rc = vq_pack_put(k, rec, data, err);
	vq_free(data);
	s = &k->sizes[vq_pack_part_of(rec->name)];
	s->after += rec->raw_bytes;
	s->q_after += rec->raw_bytes;
	t->n_seen++;
	return rc;
}
