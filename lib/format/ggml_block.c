/* Blocks of weights in GGUF files. */
#include "format/ggml_block.h"

#include <string.h>

static const struct {
	enum vq_ggml_type type;
	const char *name;
	size_t n, bytes; /* elements and bytes of a block */
} types[] = {
	{VQ_GGML_F32, "F32", 1, 4},     {VQ_GGML_F16, "F16", 1, 2},
	{VQ_GGML_Q4_0, "Q4_0", 32, 18}, {VQ_GGML_Q4_1, "Q4_1", 32, 20},
	{VQ_GGML_Q8_0, "Q8_0", 32, 34}, {VQ_GGML_BF16, "BF16", 1, 2},
};

#define N_TYPES (sizeof(types) / sizeof(types[0]))

size_t vq_ggml_bytes(enum vq_ggml_type t, size_t n)
{
	size_t i;

	for (i = 0; i < N_TYPES; i++)
		if (types[i].type == t)
			return n / types[i].n * types[i].bytes;
	return 0;
}

const char *vq_ggml_name(enum vq_ggml_type t)
{
	size_t i;

	for (i = 0; i < N_TYPES; i++)
		if (types[i].type == t)
			return types[i].name;
	return "?";
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
