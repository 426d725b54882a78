/* Transforms as attributes and records. */
#include "quant/transform_attr.h"

#include <math.h>
#include <string.h>

static const char *const kinds[] = {"scale", "hadamard", "matrix"};

const char *vq_transform_suffix(enum vq_transform_part p)
{
	return p == VQ_TRANSFORM_PART_SCALE ? ".transform_scale" : ".transform_matrix";
}

int vq_transform_is_own(const struct vq_transform_attr *a, const char *weight)
{
	size_t n = strlen(a->from);

	return strncmp(weight, a->from, n) == 0 && strcmp(weight + n, ".weight") == 0;
}

static int check_block(const struct vq_transform_attr *a, const char *label, struct vq_err *err)
{
	uint32_t b = a->block;

	if (a->kind == VQ_TRANSFORM_SCALE)
		return b == 0 ? VQ_OK
			      : vq_fail(err, VQ_E_DATA,
					"%s: transform: a scale has block 0, got %u", label, b);
	if (b < 2 || b > VQ_TRANSFORM_BLOCK || a->n % b != 0)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: transform: want a block of 2..%u that divides %u inputs, got %u",
			label, VQ_TRANSFORM_BLOCK, a->n, b);
	if (a->kind == VQ_TRANSFORM_HADAMARD && (b & (b - 1)) != 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: transform: want a power of two for the block of a Hadamard "
			       "transform, got %u",
			       label, b);
	return VQ_OK;
}

int vq_transform_attr_parse(struct vq_transform_attr *a, const json_t *j, uint32_t n_in,
			    const char *label, struct vq_err *err)
{
	struct vq_transform_attr t = {.n = n_in};
	const char *kind = NULL;

	if (!json_is_object(j))
		return vq_fail(err, VQ_E_DATA, "%s: transform: want an object", label);
	if (vq_json_u32(j, "block", 0, &t.block, label, err) < 0 ||
	    vq_json_str(j, "from", "", &t.from, label, err) < 0 ||
	    vq_json_str(j, "kind", "", &kind, label, err) < 0)
		return VQ_E_DATA;
	while (t.kind < VQ_TRANSFORM_N_KINDS && strcmp(kinds[t.kind], kind) != 0)
		t.kind++;
	if (t.kind == VQ_TRANSFORM_N_KINDS)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: transform: want kind scale, hadamard or matrix, got '%.20s'; a later "
			"version may know it",
			label, kind);
	if (!t.from[0])
		return vq_fail(err, VQ_E_DATA, "%s: transform: want the linear that it is 'from'",
			       label);
	if (check_block(&t, label, err) < 0)
		return VQ_E_DATA;
	t.n_parts = t.kind == VQ_TRANSFORM_MATRIX ? 2 : 1;
	*a = t;
	return VQ_OK;
}

json_t *vq_transform_attr_json(const struct vq_transform *t, const char *from)
{
	enum vq_transform_kind kind = !t->block   ? VQ_TRANSFORM_SCALE
				      : t->matrix ? VQ_TRANSFORM_MATRIX
						  : VQ_TRANSFORM_HADAMARD;

	return json_pack("{s:I, s:s, s:s}", "block", (json_int_t)t->block, "from", from, "kind",
			 kinds[kind]);
}

int vq_transform_set(struct vq_transform *t, const struct vq_transform_attr *a,
		     enum vq_transform_part p, const struct vq_tensor *v, const char *label,
		     struct vq_err *err)
{
	const uint64_t scale[] = {a->n},
		       matrix[] = {a->block ? a->n / a->block : 0, a->block, a->block};
	const uint64_t *dims = p == VQ_TRANSFORM_PART_SCALE ? scale : matrix;
	uint32_t n_dims = p == VQ_TRANSFORM_PART_SCALE ? 1 : 3;
	const float *x = v->data;
	char want[128], got[256];
	size_t n = 0, i;

	if (v->dtype != VQ_F32 || v->n_dims != n_dims ||
	    memcmp(v->dims, dims, n_dims * sizeof(*dims)) != 0)
		return vq_fail(err, VQ_E_DATA, "%s: want f32 %s, got %s %s", label,
			       vq_shape_text(n_dims, dims, want, sizeof(want)),
			       vq_dtype_name(v->dtype),
			       vq_shape_text(v->n_dims, v->dims, got, sizeof(got)));
	if (vq_tensor_count(v, &n) < 0)
		return vq_fail(err, VQ_E_DATA, "%s: is too large", label);
	for (i = 0; i < n; i++)
		if (!isfinite(x[i]) || (p == VQ_TRANSFORM_PART_SCALE && x[i] == 0))
			return vq_fail(err, VQ_E_DATA, "%s: element %zu is %g", label, i,
				       (double)x[i]);
	t->n = a->n;
	t->block = a->block;
	if (p == VQ_TRANSFORM_PART_SCALE)
		t->scale = x;
	else
		t->matrix = x;
	return VQ_OK;
}
