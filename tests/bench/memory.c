/* memory [ROWS]: what a model holds while it runs, from its shapes, in 16 bits and packed: LLaVA-1.5 at 7B and 13B with
 * CLIP ViT-L/14-336.  Weights and the cache of 2,048 tokens are exact; ROWS of a prompt at a time make the rest.
 * memory --blocks N...: weights of LLaMA-7B's decoder alone with N of its blocks, and their bytes. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/parse.h"
#include "model/kv.h"
#include "model/names.h"
#include "model/packed.h"

#define TOKENS 2048u
#define GROUP  128u

static struct vq_config shape(uint32_t layers, uint32_t hidden, uint32_t inter, uint32_t heads)
{
	struct vq_config c = {.arch = "llava", .has_vision = 1, .n_image_tokens = 576};

	c.vision.layer = (struct vq_layer_config){.hidden = 1024,
						  .inter = 4096,
						  .n_heads = 16,
						  .n_kv_heads = 16,
						  .head_dim = 64,
						  .norm = VQ_NORM_LAYER,
						  .qkv_bias = 1,
						  .o_bias = 1,
						  .mlp_bias = 1};
	c.vision.n_layers = 23;
	c.vision.image_size = 336;
	c.vision.patch_size = 14;
	c.vision.has_class = c.vision.pre_norm = 1;
	c.projector = (struct vq_projector_config){2, 1024, hidden, VQ_ACT_GELU_ERF, 1, 0};
	c.decoder.layer = (struct vq_layer_config){.hidden = hidden,
						   .inter = inter,
						   .n_heads = heads,
						   .n_kv_heads = heads,
						   .head_dim = hidden / heads,
						   .norm = VQ_NORM_RMS,
						   .gated = 1};
	c.decoder.n_layers = layers;
	c.decoder.vocab = 32064;
	return c;
}

/* A weight in `bits`, groups of 128: symmetric (no zero points) or not. */
static size_t packed_bytes(const struct vq_name *n, uint32_t bits, int sym)
{
	uint32_t n_out = (uint32_t)n->dims[0], n_in = (uint32_t)n->dims[1];
	struct vq_packed_parts p;

	return vq_packed_place(&p, bits, n_out, n_in, vq_ceil_div(n_in, GROUP), sym) < 0 ? 0
											 : p.bytes;
}

/* All tensors: w bits where search quantizes, head bits for embedding and head, the rest in 16. */
static double weights(const struct vq_config *c, uint32_t w, uint32_t head)
{
	struct vq_err err = {0};
	struct vq_name *names = NULL;
	size_t n = 0, i, d;
	double sum = 0;

	if (vq_names_list(c, &names, &n, &err) < 0)
		return 0;
	for (i = 0; i < n; i++) {
		int outer = strcmp(names[i].name, "decoder.embed.weight") == 0 ||
			    strcmp(names[i].name, "decoder.head.weight") == 0;
		double bytes = 2;

		for (d = 0; d < names[i].n_dims; d++)
			bytes *= (double)names[i].dims[d];
		if (outer && head == 8)
			bytes = (double)packed_bytes(&names[i], 8, 1);
		else if (names[i].linear && !outer && w < 16)
			bytes = (double)packed_bytes(&names[i], w, 0);
		sum += bytes;
	}
	vq_free(names);
	return sum;
}

/* Floats of a layer's widest stage, and of the hidden states that run through: gate and up at once, or q, k, v, what
 * went in and what attention makes. */
static double rows_bytes(const struct vq_config *c, uint32_t rows)
{
	double mlp = 2.0 * c->decoder.layer.inter + c->decoder.layer.hidden;
	double attention = 5.0 * c->decoder.layer.hidden;

	return 4.0 * rows * (c->decoder.layer.hidden + (mlp > attention ? mlp : attention));
}

static double row(const char *model, const struct vq_config *c, uint32_t w, uint32_t head,
		  enum vq_kv_type kv, uint32_t rows, double against)
{
	static const int bits[] = {32, 16, 8};
	size_t cache = 0;
	double all, ws = weights(c, w, head), r = rows_bytes(c, rows);

	if (vq_kv_bytes(c->decoder.n_layers, 1, TOKENS, c->decoder.layer.n_kv_heads,
			c->decoder.layer.head_dim, kv, &cache) < 0)
		return 0;
	all = ws + (double)cache + r;
	printf("%s\t%u\t%u\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t", model, w, head, bits[kv], ws / 1e9,
	       (double)cache / 1e9, r / 1e9, all / 1e9);
	printf(against > 0 ? "%.2f\n" : "\n", against / all);
	return all;
}

/* How many weights the tensors have. */
static double count(const struct vq_config *c)
{
	return weights(c, 16, 16) / 2;
}

static int pruned(int n, char **blocks)
{
	struct vq_config c = shape(32, 4096, 11008, 32);
	int i;

	snprintf(c.arch, sizeof(c.arch), "llama");
	c.has_vision = 0;
	c.decoder.vocab = 32000;
	for (i = 0; i < n; i++) {
		if (vq_parse_u32(&c.decoder.n_layers, blocks[i], 1, 32) < 0) {
			fprintf(stderr, "memory: --blocks wants 1..32, got '%s'\n", blocks[i]);
			return 2;
		}
		if (i == 0)
			puts("blocks\tparams\tf16_bytes\tw4_bytes");
		printf("%u\t%.0f\t%.0f\t%.0f\n", c.decoder.n_layers, count(&c), weights(&c, 16, 16),
		       weights(&c, 4, 16));
	}
	return 0;
}

int main(int argc, char **argv)
{
	const struct {
		const char *name;
		struct vq_config c;
	} models[] = {{"7b", shape(32, 4096, 11008, 32)}, {"13b", shape(40, 5120, 13824, 40)}};
	uint32_t rows = TOKENS, i;

	if (argc > 2 && strcmp(argv[1], "--blocks") == 0)
		return pruned(argc - 2, argv + 2);
	if (argc > 2 || (argc == 2 && vq_parse_u32(&rows, argv[1], 1, TOKENS) < 0)) {
		fputs("usage: memory [ROWS] | --blocks N...\n", stderr);
		return 2;
	}
	puts("model\tw\thead\tkv\tweights GB\tcache GB\trows GB\tall GB\tless");
	for (i = 0; i < 2; i++) {
		double full = row(models[i].name, &models[i].c, 16, 16, VQ_KV_F16, rows, 0);

		row(models[i].name, &models[i].c, 4, 16, VQ_KV_F16, rows, full);
		row(models[i].name, &models[i].c, 4, 8, VQ_KV_I8, rows, full);
	}
	return 0;
}
