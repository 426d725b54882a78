/* Blocks of weights in GGUF files. */
#include "format/ggml_block.h"

#include <string.h>

/* ggml.h's numbers; those that are missing were given up. */
static const struct {
	uint32_t type;
	struct vq_ggml_layout l;
} types[] = {
	{VQ_GGML_F32, {"F32", 1, 4}},
	{VQ_GGML_F16, {"F16", 1, 2}},
	{VQ_GGML_Q4_0, {"Q4_0", 32, 18}},
	{VQ_GGML_Q4_1, {"Q4_1", 32, 20}},
	{VQ_GGML_Q5_0, {"Q5_0", 32, 22}},
	{VQ_GGML_Q5_1, {"Q5_1", 32, 24}},
	{VQ_GGML_Q8_0, {"Q8_0", 32, 34}},
	{9, {"Q8_1", 32, 36}},
	{VQ_GGML_Q2_K, {"Q2_K", 256, 84}},
	{VQ_GGML_Q3_K, {"Q3_K", 256, 110}},
	{VQ_GGML_Q4_K, {"Q4_K", 256, 144}},
	{VQ_GGML_Q5_K, {"Q5_K", 256, 176}},
	{VQ_GGML_Q6_K, {"Q6_K", 256, 210}},
	{15, {"Q8_K", 256, 292}},
	{16, {"IQ2_XXS", 256, 66}},
	{17, {"IQ2_XS", 256, 74}},
	{18, {"IQ3_XXS", 256, 98}},
	{19, {"IQ1_S", 256, 50}},
	{20, {"IQ4_NL", 32, 18}},
	{21, {"IQ3_S", 256, 110}},
	{22, {"IQ2_S", 256, 82}},
	{23, {"IQ4_XS", 256, 136}},
	{24, {"I8", 1, 1}},
	{25, {"I16", 1, 2}},
	{26, {"I32", 1, 4}},
	{27, {"I64", 1, 8}},
	{28, {"F64", 1, 8}},
	{29, {"IQ1_M", 256, 56}},
	{VQ_GGML_BF16, {"BF16", 1, 2}},
	{34, {"TQ1_0", 256, 54}},
	{35, {"TQ2_0", 256, 66}},
	{39, {"MXFP4", 32, 17}},
	{40, {"NVFP4", 64, 36}},
	{41, {"Q1_0", 128, 18}},
	{42, {"Q2_0", 64, 18}},
};

#define N_TYPES (sizeof(types) / sizeof(types[0]))

const struct vq_ggml_layout *vq_ggml_layout(uint32_t type)
{
	size_t i;

	for (i = 0; i < N_TYPES; i++)
		if (types[i].type == type)
			return &types[i].l;
	return NULL;
}

size_t vq_ggml_bytes(enum vq_ggml_type t, size_t n)
{
	const struct vq_ggml_layout *l = vq_ggml_layout(t);

	return l ? n / l->n * l->bytes : 0;
}

const char *vq_ggml_name(enum vq_ggml_type t)
{
	const struct vq_ggml_layout *l = vq_ggml_layout(t);

	return l ? l->name : "?";
}

static void put_nibbles(const uint8_t *u, uint8_t *out)
{
	uint32_t j;

	for (j = 0; j < VQ_GGML_BLOCK / 2; j++)
		out[j] = (uint8_t)(u[j] | u[j + VQ_GGML_BLOCK / 2] << 4);
}

void vq_ggml_q4_0(const uint8_t *u, uint16_t d, uint8_t *out)
{
	memcpy(out, &d, 2);
	put_nibbles(u, out + 2);
}

void vq_ggml_q4_1(const uint8_t *u, uint16_t d, uint16_t m, uint8_t *out)
{
	memcpy(out, &d, 2);
	memcpy(out + 2, &m, 2);
	put_nibbles(u, out + 4);
}

void vq_ggml_q8_0(const int8_t *q, uint16_t d, uint8_t *out)
{
	memcpy(out, &d, 2);
	memcpy(out + 2, q, VQ_GGML_BLOCK);
}
