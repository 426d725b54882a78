/* Tensors of a packed file: what their JSON says, and plain ones. */
#include "model/packed_entry.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

json_t *vq_packed_json(const struct vq_vqm *v, const char *name, struct vq_err *err)
{
	const struct vq_vqm_member *m = vq_vqm_find(v, name);
	char label[384];

	if (!m) {
		vq_fail(err, VQ_E_DATA, "%s: there is no member '%s'", v->label, name);
		return NULL;
	}
	snprintf(label, sizeof(label), "%.250s: %.120s", v->label, name);
	return vq_json_parse((const char *)m->data, m->n, label, err);
}

int vq_packed_open(struct vq_packed_entry *e, const char *name, const char **layout,
		   struct vq_err *err)
{
	char json[VQ_NAME_MAX + 40];

	snprintf(json, sizeof(json), "%.*s.json", VQ_NAME_MAX + 32, name);
	snprintf(e->label, sizeof(e->label), "%.250s: %.120s", e->v->label, json);
	e->data = vq_vqm_find(e->v, name);
	if (!e->data)
		return vq_fail(err, VQ_E_DATA, "%s: tensor '%s' is missing", e->v->label, name);
	e->j = vq_packed_json(e->v, json, err);
	return e->j ? vq_json_str(e->j, "layout", "", layout, e->label, err) : VQ_E_DATA;
}

int vq_packed_shape(const struct vq_packed_entry *e, uint32_t *n_dims, uint64_t *dims,
		    struct vq_err *err)
{
	const json_t *shape = json_object_get(e->j, "shape");
	size_t n = json_array_size(shape), i;

	if (!json_is_array(shape) || n > VQ_MAX_DIMS)
		return vq_fail(err, VQ_E_DATA, "%s: want a shape of at most %d dimensions",
			       e->label, VQ_MAX_DIMS);
	for (i = 0; i < n; i++) {
		const json_t *d = json_array_get(shape, i);

		if (!json_is_integer(d) || json_integer_value(d) < 0)
			return vq_fail(err, VQ_E_DATA, "%s: shape: want whole numbers", e->label);
		dims[i] = (uint64_t)json_integer_value(d);
	}
	*n_dims = (uint32_t)n;
	return VQ_OK;
}

int vq_packed_plain(const struct vq_packed_entry *e, struct vq_tensor *t, struct vq_err *err)
{
	const char *type = NULL;
	size_t n = 0, bytes;
	int rc = vq_json_str(e->j, "dtype", "", &type, e->label, err);

	*t = (struct vq_tensor){.data = e->data->data};
	if (rc == VQ_OK)
		rc = vq_packed_shape(e, &t->n_dims, t->dims, err);
	if (rc < 0)
		return rc;
	t->dtype = VQ_BYTES;
	while (t->dtype < VQ_N_DTYPES && strcmp(vq_dtype_name(t->dtype), type) != 0)
		t->dtype++;
	if (t->dtype == VQ_N_DTYPES)
		return vq_fail(err, VQ_E_DATA, "%s: unknown dtype '%.20s'", e->label, type);
	if (vq_tensor_count(t, &n) < 0 || vq_mul_size(&bytes, n, vq_dtype_size(t->dtype)) < 0 ||
	    bytes != e->data->n)
		return vq_fail(err, VQ_E_DATA, "%s: its shape does not make %zu bytes", e->label,
			       e->data->n);
	return VQ_OK;
}

int vq_packed_beside(struct vq_packed_entry *e, const char *name, const char *suffix,
		     struct vq_tensor *t, struct vq_err *err)
{
	const char *layout = NULL;
	char full[VQ_NAME_MAX + 32];
	int rc;

	snprintf(full, sizeof(full), "%.*s%s", VQ_NAME_MAX, name, suffix);
	rc = vq_packed_open(e, full, &layout, err);
	if (rc == VQ_OK && strcmp(layout, "plain") != 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: want layout plain, got '%.20s'", e->label,
			     layout);
	return rc < 0 ? rc : vq_packed_plain(e, t, err);
}
