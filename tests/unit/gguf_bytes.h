/* Small GGUF files in memory, for the tests of their reader. */
#ifndef GGUF_BYTES_H
#define GGUF_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/gguf_write.h"

/* The file of g's keys and tensors, whose bytes are 0, 1, 2, ...; g is freed. */
static inline uint8_t *gguf_bytes(struct vq_gguf *g, size_t *n)
{
	FILE *f = tmpfile();
	uint8_t *data, byte;
	size_t i;

	assert_non_null(f);
	assert_int_equal(vq_gguf_head(g, fileno(f), "tmp", NULL), VQ_OK);
	for (i = 0; i < g->end; i++) {
		byte = (uint8_t)(i % 64);
		assert_int_equal(vq_gguf_data(g, &byte, 1, NULL), VQ_OK);
	}
	assert_int_equal(vq_gguf_pad(g, NULL), VQ_OK);
	assert_int_equal(vq_gguf_end(g, NULL), VQ_OK);
	*n = (size_t)lseek(fileno(f), 0, SEEK_END);
	data = malloc(*n);
	assert_non_null(data);
	assert_int_equal(pread(fileno(f), data, *n, 0), *n);
	fclose(f);
	vq_gguf_free(g);
	return data;
}

/* Five tokens, of SentencePiece or with two merges. */
static inline void gguf_put_tokens(struct vq_gguf *g, int merges)
{
	static const char *const text[] = {"<s>", "</s>", "a", "b", "ab"};
	static const int32_t types[] = {3, 3, 1, 1, 1};
	static const float scores[] = {0, 0, -1, -2, -3};
	size_t i;

	vq_gguf_text(g, "tokenizer.ggml.model", merges ? "gpt2" : "llama");
	vq_gguf_text(g, "tokenizer.ggml.pre", merges ? "qwen2" : "default");
	vq_gguf_texts(g, "tokenizer.ggml.tokens", 5);
	for (i = 0; i < 5; i++)
		vq_gguf_texts_add(g, text[i], strlen(text[i]));
	vq_gguf_i32s(g, "tokenizer.ggml.token_type", types, 5);
	vq_gguf_u32(g, "tokenizer.ggml.bos_token_id", 0);
	vq_gguf_u32(g, "tokenizer.ggml.unknown_token_id", 2);
	vq_gguf_bool(g, "tokenizer.ggml.add_bos_token", 1);
	if (merges) {
		vq_gguf_texts(g, "tokenizer.ggml.merges", 1);
		vq_gguf_texts_add(g, "a b", 3);
	} else {
		vq_gguf_f32s(g, "tokenizer.ggml.scores", scores, 5);
	}
}

/* A language model with a tensor of every type that is read. */
static inline uint8_t *gguf_llama(int merges, size_t *n)
{
	static const struct {
		const char *name;
		enum vq_ggml_type type;
		uint64_t rows;
	} tensors[] = {
		{"token_embd.weight", VQ_GGML_Q8_0, 5},
		{"blk.0.attn_q.weight", VQ_GGML_Q4_K, 4},
		{"blk.0.attn_k.weight", VQ_GGML_F16, 2},
		{"blk.0.attn_v.weight", VQ_GGML_Q5_K, 1},
		{"blk.0.attn_output.weight", VQ_GGML_Q2_K, 1},
		{"blk.0.ffn_up.weight", VQ_GGML_Q3_K, 1},
		{"blk.0.ffn_gate.weight", VQ_GGML_Q6_K, 1},
		{"blk.0.ffn_down.weight", VQ_GGML_Q4_0, 1},
		{"output.weight", VQ_GGML_Q4_1, 1},
		{"blk.0.attn_norm.weight", VQ_GGML_Q5_0, 0},
		{"blk.0.ffn_norm.weight", VQ_GGML_Q5_1, 0},
		{"output_norm.weight", VQ_GGML_BF16, 0},
	};
	struct vq_gguf g = {0};
	size_t i;

	vq_gguf_text(&g, "general.architecture", "llama");
	vq_gguf_u32(&g, "llama.block_count", 1);
	vq_gguf_u32(&g, "llama.embedding_length", 256);
	vq_gguf_u32(&g, "llama.feed_forward_length", 256);
	vq_gguf_u32(&g, "llama.context_length", 64);
	vq_gguf_u32(&g, "llama.attention.head_count", 2);
	vq_gguf_u32(&g, "llama.attention.head_count_kv", 1);
	vq_gguf_f32(&g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
	gguf_put_tokens(&g, merges);
	for (i = 0; i < sizeof(tensors) / sizeof(tensors[0]); i++)
		vq_gguf_tensor(&g, tensors[i].name, tensors[i].type, tensors[i].rows ? 2 : 1,
			       (uint64_t[2]){tensors[i].rows ? tensors[i].rows : 256, 256});
	return gguf_bytes(&g, n);
}

/* A vision tower's head and a few of its tensors. */
static inline uint8_t *gguf_clip(size_t *n)
{
	static const int32_t layer = 1;
	static const float grey[3] = {0.5f, 0.5f, 0.5f};
	struct vq_gguf g = {0};

	vq_gguf_text(&g, "general.architecture", "clip");
	vq_gguf_text(&g, "clip.projector_type", "mlp");
	vq_gguf_u32(&g, "clip.vision.embedding_length", 32);
	vq_gguf_u32(&g, "clip.vision.feed_forward_length", 64);
	vq_gguf_u32(&g, "clip.vision.attention.head_count", 2);
	vq_gguf_u32(&g, "clip.vision.block_count", 1);
	vq_gguf_u32(&g, "clip.vision.image_size", 28);
	vq_gguf_u32(&g, "clip.vision.patch_size", 14);
	vq_gguf_f32(&g, "clip.vision.attention.layer_norm_epsilon", 1e-5f);
	vq_gguf_i32s(&g, "clip.vision.feature_layer", &layer, 1);
	vq_gguf_f32s(&g, "clip.vision.image_mean", grey, 3);
	vq_gguf_bool(&g, "clip.use_gelu", 0);
	vq_gguf_tensor(&g, "v.class_embd", VQ_GGML_F32, 1, (uint64_t[]){32});
	vq_gguf_tensor(&g, "v.blk.0.ffn_up.weight", VQ_GGML_Q8_0, 2, (uint64_t[]){2, 32});
	vq_gguf_tensor(&g, "v.blk.0.ffn_down.weight", VQ_GGML_F16, 2, (uint64_t[]){32, 2});
	vq_gguf_tensor(&g, "mm.0.weight", VQ_GGML_F16, 2, (uint64_t[]){2, 32});
	return gguf_bytes(&g, n);
}

#endif
