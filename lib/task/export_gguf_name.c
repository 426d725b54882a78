/* Exporting: what tensors are called in GGUF files: https://github.com/ggml-org/ggml, docs/gguf.md, and the loaders of
 * llama.cpp. */
#include <stdio.h>
#include <string.h>

#include "task/export_gguf.h"

struct pair {
	const char *ours, *theirs;
};

static const struct pair tops[] = {
	{"decoder.embed", "token_embd"},
	{"decoder.norm", "output_norm"},
	{"decoder.head", "output"},
	{"vision.class_embed", "v.class_embd"},
	{"vision.patch_embed", "v.patch_embd"},
	{"vision.position_embed", "v.position_embd.weight"},
	{"vision.pre_norm", "v.pre_ln"},
	{"vision.post_norm", "v.post_ln"},
	{"projector.0", "mm.0"},
	{"projector.1", "mm.2"},
};
static const struct pair leaves[] = {
	{"norm1", "attn_norm"}, {"norm2", "ffn_norm"},     {"q_proj", "attn_q"},
	{"k_proj", "attn_k"},   {"v_proj", "attn_v"},      {"o_proj", "attn_output"},
	{"up_proj", "ffn_up"},  {"gate_proj", "ffn_gate"}, {"down_proj", "ffn_down"},
};
static const struct pair vision_leaves[] = {
	{"norm1", "ln1"},
	{"norm2", "ln2"},
	{"o_proj", "attn_out"},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const char *look_up(const struct pair *p, size_t n, const char *s, size_t len)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (strlen(p[i].ours) == len && strncmp(p[i].ours, s, len) == 0)
			return p[i].theirs;
	return NULL;
}

/* PART.layers.N.LEAF.what */
static int name_layer(const char *canonical, int vision, char *buf, size_t room)
{
	const char *number = strstr(canonical, ".layers."), *leaf, *what, *theirs;
	size_t digits;

	if (!number)
		return 0;
	number += strlen(".layers.");
	digits = strspn(number, "0123456789");
	leaf = number + digits + 1;
	what = strrchr(canonical, '.');
	if (what <= leaf)
		return 0;
	theirs = vision ? look_up(vision_leaves, COUNT(vision_leaves), leaf, (size_t)(what - leaf))
			: NULL;
	if (!theirs)
		theirs = look_up(leaves, COUNT(leaves), leaf, (size_t)(what - leaf));
	if (!theirs)
		return 0;
	snprintf(buf, room, "%sblk.%.*s.%s%s", vision ? "v." : "", (int)digits, number, theirs,
		 what);
	return 1;
}

int vq_export_gguf_name(const struct vq_export *x, const char *canonical, char *buf, size_t room,
			int *vision, uint32_t *heads)
{
	const struct vq_layer_config *l = &x->config.decoder.layer;
	const char *dot = strrchr(canonical, '.'), *top;

	*vision = strncmp(canonical, "decoder.", 8) != 0;
	/* Of the decoders the engine permutes LLaMA's alone. */
	*heads = *vision || x->config.family != VQ_FAMILY_LLAMA ? 0
		 : strstr(canonical, ".q_proj.")                ? l->n_heads
		 : strstr(canonical, ".k_proj.")                ? l->n_kv_heads
								: 0;
	if (name_layer(canonical, strncmp(canonical, "vision.", 7) == 0, buf, room))
		return VQ_OK;
	top = look_up(tops, COUNT(tops), canonical, strlen(canonical));
	if (top) {
		snprintf(buf, room, "%s", top);
		return VQ_OK;
	}
	top = x->config.projector.shuffle && strncmp(canonical, "projector.0.", 12) == 0
		      ? "mm.model.fc"
		      : look_up(tops, COUNT(tops), canonical, (size_t)(dot - canonical));
	snprintf(buf, room, "%s%s", top ? top : "", dot);
	return top ? VQ_OK : VQ_E_DATA;
}
