/* Weights: checked, then written from the map. */
#include "task/calib_weights.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/pages.h"

static int tensor_bytes(const struct vq_tensor *t, size_t *bytes)
{
	size_t n;

	if (vq_tensor_count(t, &n) < 0)
		return VQ_E_DATA;
	return vq_mul_size(bytes, n, vq_dtype_size(t->dtype));
}

/* Has the system read a tensor while others are at work. */
static void want(const struct vq_config *c, const struct vq_ckpt *k, const struct vq_name *name,
		 const uint32_t *kept)
{
	struct vq_name there = *name;
	struct vq_tensor t;
	size_t n;

	if (kept)
		vq_names_from_layer(&there, kept);
	/* What is wrong with it is said when its turn comes. */
	if (vq_names_find(c, k, &there, &t, NULL) >= 0 && tensor_bytes(&t, &n) >= 0)
		vq_pages_want(t.data, n);
}

/* x [n], given, as type: *out is given. */
static int narrow(float *x, size_t n, enum vq_dtype type, void **out, struct vq_err *err)
{
	uint16_t *h;
	size_t i;

	*out = x;
	if (type == VQ_F32)
		return VQ_OK;
	*out = h = vq_alloc(n, sizeof(*h), err);
	for (i = 0; h && i < n; i++)
		h[i] = type == VQ_F16 ? vq_f32_to_f16(x[i]) : vq_f32_to_bf16(x[i]);
	vq_free(x);
	return h ? VQ_OK : VQ_E_SYS;
}

/* The tensor's other numbers, if there are some, in t and *own, to be freed. */
static int edit_one(const struct vq_weight_edit *edit, const char *name, struct vq_tensor *t,
		    void **own, struct vq_err *err)
{
	float *x = NULL;
	size_t n;
	int rc = vq_tensor_count(t, &n);

	if (rc >= 0)
		rc = edit->tensor(edit->ctx, name, &x, err);
	if (rc < 0 || !x)
		return rc;
	rc = narrow(x, n, t->dtype, own, err);
	if (rc < 0)
		return rc;
	t->data = *own;
	return vq_names_check_finite(t, name, "new weights", err);
}

static int put_one(struct vq_writer *w, const struct vq_config *c, const struct vq_ckpt *k,
		   const struct vq_name *name, const uint32_t *kept, int check,
		   const struct vq_weight_edit *edit, struct vq_err *err)
{
	struct vq_name there = *name;
	struct vq_tensor t;
	void *own = NULL;
	json_t *attrs;
	int rc;

	if (kept)
		vq_names_from_layer(&there, kept);
	rc = vq_names_find(c, k, &there, &t, err);

	if (rc >= 0 && check)
		rc = vq_names_check_finite(&t, there.name, vq_ckpt_path(k), err);
	if (rc >= 0 && edit)
		rc = edit_one(edit, name->name, &t, &own, err);
	attrs = rc < 0 ? NULL
		       : json_pack("{s:I, s:I}", "unit", (json_int_t)name->unit, "linear",
				   (json_int_t)name->linear);
	if (attrs)
		rc = vq_writer_put_tensor(w, VQ_KIND_TENSOR, name->name, &t, attrs, err);
	else if (rc >= 0)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot have attributes");
	json_decref(attrs);
	vq_free(own);
	return rc;
}

int vq_calib_weights(struct vq_writer *w, const struct vq_config *c, const struct vq_ckpt *k,
		     const uint32_t *kept, int check, const struct vq_weight_edit *edit,
		     struct vq_err *err)
{
	struct vq_name *names = NULL;
	struct vq_progress p;
	size_t n, i;
	int rc = vq_names_list(c, &names, &n, err);

	if (rc < 0)
		return rc;
	vq_progress_start(&p, "weights", n);
	for (i = 0; i < n && rc >= 0; i++) {
		if (i + 1 < n)
			want(c, k, &names[i + 1], kept);
		rc = put_one(w, c, k, &names[i], kept, check, edit, err);
		vq_progress_step(&p, i + 1);
	}
	vq_progress_end(&p);
	vq_free(names);
	return rc;
}

int vq_calib_weights_check(const struct vq_config *c, const struct vq_ckpt *k, uint32_t unit,
			   struct vq_err *err)
{
	struct vq_name *names = NULL;
	size_t n, i;
	int rc = vq_names_list(c, &names, &n, err);

	for (i = 0; rc >= 0 && i < n; i++) {
		struct vq_tensor t;

		if (names[i].unit != unit)
			continue;
		rc = vq_names_find(c, k, &names[i], &t, err);
		if (rc >= 0)
			rc = vq_names_check_finite(&t, names[i].name, vq_ckpt_path(k), err);
	}
	for (i = 0; rc >= 0 && i < n; i++)
		if (names[i].unit == unit + 1)
			want(c, k, &names[i], NULL);
	vq_free(names);
	return rc;
}

int vq_calib_weight_bytes(const struct vq_config *c, const struct vq_ckpt *k, uint64_t *bytes,
			  uint64_t *largest, struct vq_err *err)
{
	struct vq_name *names = NULL;
	size_t n, i, one;
	int rc = vq_names_list(c, &names, &n, err);

	*bytes = *largest = 0;
	for (i = 0; i < n && rc >= 0; i++) {
		struct vq_tensor t;

		rc = vq_names_find(c, k, &names[i], &t, err);
		if (rc >= 0 && tensor_bytes(&t, &one) < 0)
			rc = vq_fail(err, VQ_E_DATA, "tensor '%s': size overflows", names[i].name);
		if (rc < 0)
			break;
		*bytes += one;
		*largest = one > *largest ? one : *largest;
	}
	vq_free(names);
	return rc;
}
