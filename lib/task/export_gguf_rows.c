/* Exporting: rows of a matrix in the types of GGUF. */
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "task/export_gguf.h"

/* Vectors, and what is added to activations, are float32 whatever the model has; a convolution has no bfloat16. */
enum vq_ggml_type vq_export_rows_type(const struct vq_export_item *i, enum vq_dtype t)
{
	if (i->as == VQ_AS_CODES)
		return i->block;
	if (i->as == VQ_AS_HALF)
		return VQ_GGML_F16;
	if (i->name->n_dims == 1 || strcmp(i->name->name, "vision.position_embed") == 0 ||
	    t == VQ_F32 || (t == VQ_BF16 && i->name->n_dims > 2))
		return VQ_GGML_F32;
	return t == VQ_F16 ? VQ_GGML_F16 : VQ_GGML_BF16;
}

int vq_export_rows_open(struct vq_export_rows *r, const struct vq_export_item *item,
			struct vq_export_tensor *t, uint32_t heads, struct vq_err *err)
{
	uint32_t n;

	*r = (struct vq_export_rows){.item = item,
				     .t = t,
				     .type = vq_export_rows_type(item, t->t.dtype),
				     .n_rows = item->n_out,
				     .n_cols = item->n_in,
				     .heads = heads};
	if (item->as != VQ_AS_CODES)
		return VQ_OK;
	r->codes = vq_export_codes(t, err);
	return r->codes ? vq_export_grid(t, VQ_GGML_BLOCK, &r->scale, &r->zero, &n, err) : VQ_E_SYS;
}

void vq_export_rows_close(struct vq_export_rows *r)
{
	vq_free(r->codes);
	vq_free(r->scale);
	vq_free(r->zero);
	*r = (struct vq_export_rows){0};
}

/* The engine rotates neighbours, the model halves: row 2i + h of a head is its row h dh / 2 + i. */
static uint32_t source_row(const struct vq_export_rows *r, uint32_t o)
{
	uint32_t dh = r->heads ? r->n_rows / r->heads : 0, at = dh ? o % dh : 0;

	return dh ? o - at + at % 2 * (dh / 2) + at / 2 : o;
}

static void make_blocks(const struct vq_export_rows *r, uint32_t row, uint8_t *out)
{
	uint32_t n = r->n_cols / VQ_GGML_BLOCK, b, j;
	const uint8_t *u = r->codes + (size_t)row * r->n_cols;
	int8_t q[VQ_GGML_BLOCK];

	for (b = 0; b < n; b++, u += VQ_GGML_BLOCK, out += vq_ggml_bytes(r->type, VQ_GGML_BLOCK)) {
		uint16_t d = r->scale[(size_t)row * n + b];
		uint8_t z = r->zero[(size_t)row * n + b];

		if (r->type == VQ_GGML_Q4_0) {
			vq_ggml_q4_0(u, d, out);
		} else if (r->type == VQ_GGML_Q4_1) {
			vq_ggml_q4_1(u, d, vq_f32_to_f16(-vq_f16_to_f32(d) * (float)z), out);
		} else {
			for (j = 0; j < VQ_GGML_BLOCK; j++)
				q[j] = (int8_t)(u[j] - z);
			vq_ggml_q8_0(q, d, out);
		}
	}
}

int vq_export_rows_make(const struct vq_export_rows *r, uint32_t o, uint8_t *out, float *tmp,
			struct vq_err *err)
{
	uint32_t row = source_row(r, o);
	size_t size = vq_dtype_size(r->t->t.dtype) * r->n_cols;
	int rc;

	if (r->codes) {
		make_blocks(r, row, out);
		return VQ_OK;
	}
	if (!r->t->t.data) {
		vq_packed_row(&r->t->p, row, tmp);
		vq_f32_to_f16_n((uint16_t *)(void *)out, tmp, r->n_cols);
		return VQ_OK;
	}
	if (r->type != VQ_GGML_F32 || r->t->t.dtype == VQ_F32) {
		memcpy(out, (const uint8_t *)r->t->t.data + row * size, size);
		return VQ_OK;
	}
	rc = vq_tensor_to_f32(&r->t->t, (size_t)row * r->n_cols, r->n_cols, tmp, err);
	if (rc == VQ_OK)
		memcpy(out, tmp, r->n_cols * sizeof(*tmp));
	return rc;
}
