/* Exporting: tensors of the packed model as their writers want them. */
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/stop.h"
#include "quant/agrid.h"
#include "quant/grid.h"
#include "task/export_parts.h"

/* The parts of NF codes, which vq_packed_linear has found to be where the layout has them. */
static int find_absmax(struct vq_export_tensor *t, struct vq_err *err)
{
	struct vq_packed_nf_parts at;
	const uint8_t *data = t->e.data->data;

	if (vq_packed_place_nf(&at, t->nf, t->p.n_out, t->p.n_in) < 0)
		return vq_fail(err, VQ_E_DATA, "%s: too large", t->e.label);
	t->absmax.n = vq_nf_n_blocks(t->p.n_out, t->p.n_in);
	t->absmax.q = (uint8_t *)(uintptr_t)(data + at.absmax); /* only read, as the next */
	t->absmax.scale = (float *)(uintptr_t)(data + at.scale);
	t->absmax.offset = *(const float *)(const void *)(data + at.offset);
	return VQ_OK;
}

static int open_packed(struct vq_export_tensor *t, struct vq_err *err)
{
	const json_t *grid = json_object_get(json_object_get(t->e.j, "attrs"), "grid");
	const struct vq_name *n = t->e.name;
	int rc = n->n_dims == 2 ? VQ_OK
				: vq_fail(err, VQ_E_DATA, "%s: want layout plain", t->e.label);

	if (rc == VQ_OK)
		rc = vq_packed_linear(&t->e, (uint32_t)n->dims[0], (uint32_t)n->dims[1], &t->p,
				      &t->own, err);
	if (rc == VQ_OK)
		rc = vq_nf_grid_parse(grid, &t->nf, t->e.label, err);
	if (rc == VQ_OK)
		rc = t->nf ? find_absmax(t, err) : vq_packed_check(&t->p, t->e.label, err);
	return rc;
}

static int open_plain(struct vq_export_tensor *t, struct vq_err *err)
{
	const struct vq_name *n = t->e.name;
	char a[96], b[192];
	int rc = vq_packed_plain(&t->e, &t->t, err);

	if (rc < 0)
		return rc;
	if (t->t.n_dims != n->n_dims || memcmp(t->t.dims, n->dims, n->n_dims * sizeof(n->dims[0])))
		return vq_fail(err, VQ_E_DATA, "%s: want shape %s, got %s", t->e.label,
			       vq_shape_text(n->n_dims, n->dims, a, sizeof(a)),
			       vq_shape_text(t->t.n_dims, t->t.dims, b, sizeof(b)));
	return t->t.dtype == VQ_F16 || t->t.dtype == VQ_BF16 || t->t.dtype == VQ_F32
		       ? VQ_OK
		       : vq_fail(err, VQ_E_DATA, "%s: want f16, bf16 or f32, got %s", t->e.label,
				 vq_dtype_name(t->t.dtype));
}

int vq_export_open(struct vq_export_tensor *t, const struct vq_vqm *v, const struct vq_name *name,
		   struct vq_err *err)
{
	const char *layout = NULL;
	const json_t *attrs, *act;
	int rc;

	*t = (struct vq_export_tensor){.e = {.v = v, .name = name}, .act = {.bits = VQ_ACT_FLOAT}};
	rc = vq_packed_open(&t->e, name->name, &layout, err);
	if (rc == VQ_OK && strcmp(layout, "plain") == 0)
		rc = open_plain(t, err);
	else if (rc == VQ_OK && strcmp(layout, VQ_LAYOUT) == 0)
		rc = open_packed(t, err);
	else if (rc == VQ_OK)
		rc = vq_fail(err, VQ_E_DATA, "%s: want layout plain or %s, got '%.20s'", t->e.label,
			     VQ_LAYOUT, layout);
	attrs = json_object_get(t->e.j, "attrs");
	act = json_object_get(attrs, "act");
	if (rc == VQ_OK && act)
		rc = vq_agrid_parse(&t->act, act, t->e.label, err);
	t->transform = json_object_get(attrs, "transform");
	if (rc < 0)
		vq_export_close(t);
	return rc;
}

void vq_export_close(struct vq_export_tensor *t)
{
	json_decref(t->e.j);
	vq_free(t->own);
	*t = (struct vq_export_tensor){0};
}

int vq_export_go_on(const struct vq_export *x, struct vq_err *err)
{
	return vq_stop_asked() ? vq_fail(err, VQ_E_STOP,
					 "%s: stopped by a signal; nothing is left, run it again",
					 x->folder.path)
			       : VQ_OK;
}

int vq_export_ranges(struct vq_export_tensor *t, struct vq_err *err)
{
	const char *name = t->e.name->name;
	struct vq_packed_entry r = {.v = t->e.v};
	char stem[VQ_NAME_MAX + 1];
	struct vq_tensor v;
	int rc;

	snprintf(stem, sizeof(stem), "%.*s", (int)(strlen(name) - strlen(".weight")), name);
	rc = vq_packed_beside(&r, stem, ".range", &v, err);
	if (rc == VQ_OK && (v.dtype != VQ_F32 || v.n_dims != 2 || v.dims[0] != 2))
		rc = vq_fail(err, VQ_E_DATA, "%s: want f32 [2, ranges]", r.label);
	if (rc == VQ_OK) {
		t->act.n_ranges = (uint32_t)v.dims[1];
		t->act.lo = v.data;
		t->act.hi = t->act.lo + v.dims[1];
		rc = vq_agrid_check_ranges(t->act.lo, t->act.hi, t->act.n_ranges, r.label, err);
	}
	json_decref(r.j);
	return rc;
}

uint8_t *vq_export_codes(const struct vq_export_tensor *t, struct vq_err *err)
{
	uint8_t *codes = vq_alloc((size_t)t->p.n_out * t->p.n_in, 1, err);

	if (codes)
		vq_unpack_codes(t->p.bits, t->p.planes, t->p.n_out, t->p.n_in, codes);
	return codes;
}

int vq_export_grid(const struct vq_export_tensor *t, uint32_t group, uint16_t **scale,
		   uint8_t **zero, uint32_t *n_groups, struct vq_err *err)
{
	const struct vq_packed *p = &t->p;
	uint32_t own = p->group ? p->group : p->n_in, n = group ? p->n_in / group : 1, o, g;
	size_t have = (size_t)p->n_out * p->n_groups;
	uint16_t *s = vq_alloc(have, sizeof(*s), err);
	uint8_t *z = vq_alloc(have, 1, err);
	int rc = VQ_OK;

	*scale = vq_alloc((size_t)p->n_out * n, sizeof(**scale), err);
	*zero = vq_alloc((size_t)p->n_out * n, 1, err);
	if (!s || !z || !*scale || !*zero) {
		vq_free(*scale);
		vq_free(*zero);
		rc = VQ_E_SYS;
		goto out;
	}
	vq_unpack_scales(p->scale, p->n_out, p->n_groups, s);
	if (p->zero)
		vq_unpack_zeros(p->zero, p->n_out, p->n_groups, z);
	else
		memset(z, 1 << (p->bits - 1), have);
	for (o = 0; o < p->n_out; o++)
		for (g = 0; g < n; g++) {
			size_t from = (size_t)o * p->n_groups + (size_t)g * group / own;

			(*scale)[(size_t)o * n + g] = s[from];
			(*zero)[(size_t)o * n + g] = z[from];
		}
	*n_groups = n;
out:
	vq_free(s);
	vq_free(z);
	return rc;
}
