/* Element types and tensor views. */
#include "stream/tensor.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"

static const struct {
	const char *name;
	size_t size;
} types[VQ_N_DTYPES] = {
	[VQ_BYTES] = {"bytes", 1}, [VQ_F32] = {"f32", 4},   [VQ_F16] = {"f16", 2},
	[VQ_BF16] = {"bf16", 2},   [VQ_F64] = {"f64", 8},   [VQ_I8] = {"i8", 1},
	[VQ_U8] = {"u8", 1},       [VQ_I16] = {"i16", 2},   [VQ_U16] = {"u16", 2},
	[VQ_I32] = {"i32", 4},     [VQ_U32] = {"u32", 4},   [VQ_I64] = {"i64", 8},
	[VQ_U64] = {"u64", 8},     [VQ_BOOL] = {"bool", 1},
};

size_t vq_dtype_size(enum vq_dtype t)
{
	return (unsigned)t < VQ_N_DTYPES ? types[t].size : 0;
}

const char *vq_dtype_name(enum vq_dtype t)
{
	return (unsigned)t < VQ_N_DTYPES ? types[t].name : "?";
}

int vq_tensor_count(const struct vq_tensor *t, size_t *n)
{
	size_t total = 1;
	uint32_t i;

	for (i = 0; i < t->n_dims; i++)
		if (vq_mul_size(&total, total, t->dims[i]) < 0)
			return VQ_E_DATA;
	*n = total;
	return VQ_OK;
}

const char *vq_shape_text(uint32_t n_dims, const uint64_t *dims, char *buf, size_t room)
{
	size_t at = (size_t)snprintf(buf, room, "[");
	uint32_t i;

	for (i = 0; i < n_dims && at < room; i++)
		at += (size_t)snprintf(buf + at, room - at, "%s%llu", i ? ", " : "",
				       (unsigned long long)dims[i]);
	if (at < room)
		snprintf(buf + at, room - at, "]");
	return buf;
}

/* The source may be unaligned (old safetensors files are), so 16-bit data pass through a small buffer. */
static void from_16(float *dst, const uint8_t *src, size_t n, enum vq_dtype type)
{
	uint16_t part[512];

	while (n > 0) {
		size_t m = n < 512 ? n : 512;

		memcpy(part, src, 2 * m);
		if (type == VQ_F16)
			vq_f16_to_f32_n(dst, part, m);
		else
			vq_bf16_to_f32_n(dst, part, m);
		dst += m;
		src += 2 * m;
		n -= m;
	}
}

int vq_tensor_to_f32(const struct vq_tensor *t, size_t first, size_t n, float *dst,
		     struct vq_err *err)
{
	const uint8_t *src = (const uint8_t *)t->data + first * vq_dtype_size(t->dtype);

	if (t->dtype == VQ_F32)
		memcpy(dst, src, n * sizeof(float));
	else if (t->dtype == VQ_F16 || t->dtype == VQ_BF16)
		from_16(dst, src, n, t->dtype);
	else
		return vq_fail(err, VQ_E_DATA, "want f32, f16 or bf16, got %s",
			       vq_dtype_name(t->dtype));
	return VQ_OK;
}
