/* Exporting: scales of inputs (vqlm-search --smooth without --rotate) into the norms that the inputs come from.
 *
 * A linear computes W' (s x) with x = norm(h), and a norm ends with a product by its weight (and a bias): with both
 * multiplied by s the engine computes the same, but for one rounding of a float32.  So what is folded goes out as float32.
 * Inputs that come from no norm (o_proj, down_proj, the projector) have s in the scales of integers before them at best, which
 * are float16 and would be rounded: these are refused. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "quant/transform_attr.h"
#include "task/export_parts.h"

static int ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);

	return n >= k && strcmp(s + n - k, end) == 0;
}

int vq_export_norm_of(const struct vq_export *x, const char *weight, char *norm, size_t room)
{
	/* Both halves of a parallel layer read its one norm. */
	const int one = x->config.decoder.layer.parallel && strncmp(weight, "decoder.", 8) == 0;
	static const char *const leaves[2][5] = {
		{".q_proj.weight", ".k_proj.weight", ".v_proj.weight"},
		{".gate_proj.weight", ".up_proj.weight", ".router.weight"}};
	const char *layers = strstr(weight, ".layers.");
	int which, i;

	if (!layers)
		return 0;
	layers += strlen(".layers.");
	layers += strcspn(layers, ".");
	for (which = 0; which < 2; which++)
		for (i = 0; leaves[which][i]; i++)
			if (ends_with(weight, leaves[which][i])) {
				snprintf(norm, room, "%.*s.norm%d.", (int)(layers - weight), weight,
					 one ? 1 : which + 1);
				return 1;
			}
	return 0;
}

/* The linear whose records hold the scales. */
static const struct vq_name *find_from(const struct vq_export *x, const char *from)
{
	size_t i, n = strlen(from);

	for (i = 0; i < x->n; i++)
		if (strncmp(x->names[i].name, from, n) == 0 &&
		    strcmp(x->names[i].name + n, ".weight") == 0)
			return &x->names[i];
	return NULL;
}

int vq_export_fold_find(const struct vq_export *x, struct vq_export_item *i, const json_t *attr,
			struct vq_err *err)
{
	struct vq_transform_attr a;
	char norm[VQ_NAME_MAX + 16], label[VQ_NAME_MAX + 300];
	int rc;

	snprintf(label, sizeof(label), "%.200s: '%s'", x->v->label, i->name->name);
	rc = vq_transform_attr_parse(&a, attr, i->n_in, label, err);
	if (rc < 0)
		return rc;
	if (a.kind != VQ_TRANSFORM_SCALE)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: its input goes through a transform (%.20s), which %s cannot say; "
			"search again with vqlm-search --rotate none --smooth off",
			label, json_string_value(json_object_get(attr, "kind")),
			vq_export_name(x->o->to));
	if (!vq_export_norm_of(x, i->name->name, norm, sizeof(norm)))
		return vq_fail(
			err, VQ_E_DATA,
			"%s: its input goes through scales (--smooth), and no norm comes before "
			"it that could take them; search again with vqlm-search --smooth-at norms",
			label);
	i->from = find_from(x, a.from);
	return i->from ? VQ_OK
		       : vq_fail(err, VQ_E_DATA,
				 "%s: its transform is that of '%.100s', which the model "
				 "has not",
				 label, a.from);
}

/* All that read the norm, or its bias, n: they agree on the scales. */
static int fold_norm(const struct vq_export *x, struct vq_export_item *n, struct vq_err *err)
{
	const struct vq_export_item *first = NULL;
	char norm[VQ_NAME_MAX + 16];
	size_t i;

	for (i = 0; i < x->n; i++) {
		const struct vq_export_item *it = &x->items[i];

		if (!vq_export_norm_of(x, it->name->name, norm, sizeof(norm)) ||
		    strncmp(n->name->name, norm, strlen(norm)) != 0)
			continue;
		if (!first)
			first = it;
		if (it->from != first->from)
			return vq_fail(
				err, VQ_E_DATA,
				"%s: '%s' and '%s' share an input, but not the scales that it goes "
				"through (--smooth), so no norm can take them; search again with "
				"vqlm-search --smooth off",
				x->v->label, first->name->name, it->name->name);
	}
	n->fold = first ? first->from : NULL;
	return VQ_OK;
}

int vq_export_fold(struct vq_export *x, struct vq_err *err)
{
	size_t i;
	int rc = VQ_OK;

	for (i = 0; rc == VQ_OK && i < x->n; i++) {
		const char *name = x->items[i].name->name;

		if (strstr(name, ".layers.") &&
		    (strstr(name, ".norm1.") || strstr(name, ".norm2.")))
			rc = fold_norm(x, &x->items[i], err);
	}
	return rc;
}

int vq_export_scale(const struct vq_vqm *v, const struct vq_name *from, uint32_t n,
		    const float **scale, struct vq_err *err)
{
	struct vq_packed_entry r = {.v = v};
	struct vq_transform_attr a = {.kind = VQ_TRANSFORM_SCALE, .n = n, .n_parts = 1};
	struct vq_transform t = {0};
	char stem[VQ_NAME_MAX + 1];
	struct vq_tensor s;
	int rc;

	snprintf(stem, sizeof(stem), "%.*s", (int)(strlen(from->name) - strlen(".weight")),
		 from->name);
	rc = vq_packed_beside(&r, stem, vq_transform_suffix(VQ_TRANSFORM_PART_SCALE), &s, err);
	if (rc == VQ_OK)
		rc = vq_transform_set(&t, &a, VQ_TRANSFORM_PART_SCALE, &s, r.label, err);
	json_decref(r.j);
	*scale = t.scale;
	return rc;
}

int vq_export_open_item(struct vq_export_tensor *t, const struct vq_export *x,
			const struct vq_export_item *i, struct vq_err *err)
{
	const float *scale;
	float *out = NULL;
	uint32_t k;
	int rc = vq_export_open(t, x->v, i->name, err);

	if (rc < 0 || !i->fold)
		return rc;
	rc = vq_export_scale(x->v, i->fold, i->n_out, &scale, err);
	if (rc == VQ_OK) {
		out = vq_alloc_f32(i->n_out, err);
		rc = out ? vq_tensor_to_f32(&t->t, 0, i->n_out, out, err) : VQ_E_SYS;
	}
	for (k = 0; rc == VQ_OK && k < i->n_out; k++)
		out[k] *= scale[k];
	if (rc < 0) {
		vq_free(out);
		vq_export_close(t);
		return rc;
	}
	t->own = out;
	t->t.data = out;
	t->t.dtype = VQ_F32;
	return VQ_OK;
}
