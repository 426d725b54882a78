/* What checkpoints call a canonical name. */
#include "model/names_spell.h"

#include <stdio.h>
#include <string.h>

struct pair {
	const char *ours, *theirs;
};

static const struct pair vision_top[] = {
	{"class_embed", "embeddings.class_embedding"},
	{"patch_embed.weight", "embeddings.patch_embedding.weight"},
	{"patch_embed.bias", "embeddings.patch_embedding.bias"},
	{"position_embed", "embeddings.position_embedding.weight"},
	{"pre_norm.weight", "pre_layrnorm.weight"}, /* sic */
	{"pre_norm.bias", "pre_layrnorm.bias"},
	{"post_norm.weight", "post_layernorm.weight"},
	{"post_norm.bias", "post_layernorm.bias"},
	{0},
};
static const struct pair vision_layer[] = {
	{"norm1", "layer_norm1"},
	{"norm2", "layer_norm2"},
	{"q_proj", "self_attn.q_proj"},
	{"k_proj", "self_attn.k_proj"},
	{"v_proj", "self_attn.v_proj"},
	{"o_proj", "self_attn.out_proj"},
	{"up_proj", "mlp.fc1"},
	{"down_proj", "mlp.fc2"},
	{0},
};
static const struct pair decoder_top[] = {
	{"embed.weight", "embed_tokens.weight"},
	{"norm.weight", "norm.weight"},
	{"norm.bias", "norm.bias"}, /* StableLM */
	{0},
};
static const struct pair decoder_layer[] = {
	{"norm1", "input_layernorm"},   {"norm2", "post_attention_layernorm"},
	{"q_proj", "self_attn.q_proj"}, {"k_proj", "self_attn.k_proj"},
	{"v_proj", "self_attn.v_proj"}, {"o_proj", "self_attn.o_proj"},
	{"gate_proj", "mlp.gate_proj"}, {"up_proj", "mlp.up_proj"},
	{"down_proj", "mlp.down_proj"}, {0},
};
/* transformers' Phi: both halves of a layer read input_layernorm. */
static const struct pair phi_top[] = {
	{"embed.weight", "embed_tokens.weight"},
	{"norm.weight", "final_layernorm.weight"},
	{"norm.bias", "final_layernorm.bias"},
	{0},
};
static const struct pair phi_layer[] = {
	{"norm1", "input_layernorm"},   {"q_proj", "self_attn.q_proj"},
	{"k_proj", "self_attn.k_proj"}, {"v_proj", "self_attn.v_proj"},
	{"o_proj", "self_attn.dense"},  {"up_proj", "mlp.fc1"},
	{"down_proj", "mlp.fc2"},       {0},
};
/* Microsoft's own Phi: Wqkv is q, k and v one below the other (vq_names_find). */
static const struct pair phi_old_top[] = {{"embed.weight", "embd.wte.weight"}, {0}};
static const struct pair phi_old_norm[] = {
	{"norm.weight", "lm_head.ln.weight"}, {"norm.bias", "lm_head.ln.bias"}, {0}};
static const struct pair phi_old_layer[] = {
	{"norm1", "ln"},
	{"q_proj", "mixer.Wqkv"},
	{"k_proj", "mixer.Wqkv"},
	{"v_proj", "mixer.Wqkv"},
	{"o_proj", "mixer.out_proj"},
	{"up_proj", "mlp.fc1"},
	{"down_proj", "mlp.fc2"},
	{0},
};
/* The first Qwen: w2 is the gate; c_attn is q, k and v one below the other (vq_names_find). */
static const struct pair qwen_top[] = {
	{"embed.weight", "wte.weight"},
	{"norm.weight", "ln_f.weight"},
	{0},
};
static const struct pair qwen_layer[] = {
	{"norm1", "ln_1"},           {"norm2", "ln_2"},
	{"q_proj", "attn.c_attn"},   {"k_proj", "attn.c_attn"},
	{"v_proj", "attn.c_attn"},   {"o_proj", "attn.c_proj"},
	{"gate_proj", "mlp.w2"},     {"up_proj", "mlp.w1"},
	{"down_proj", "mlp.c_proj"}, {0},
};
static const struct pair projector_top[] = {
	{"0.weight", "linear_1.weight"},
	{"0.bias", "linear_1.bias"},
	{"1.weight", "linear_2.weight"},
	{"1.bias", "linear_2.bias"},
	{0},
};
/* The LLaVA authors': a sequence with the activation at 1, or one linear. */
static const struct pair projector_flat[] = {
	{"0.weight", "0.weight"},
	{"0.bias", "0.bias"},
	{"1.weight", "2.weight"},
	{"1.bias", "2.bias"},
	{0},
};
static const struct pair projector_one[] = {{"0.weight", "weight"}, {"0.bias", "bias"}, {0}};
static const struct pair connector[] = {{"0.weight", "proj.weight"}, {0}};

#define ANY        0xffu
#define OF(family) (1u << (family))

/* The old spelling first, then that of transformers 4.52 and later, then plain
 * LLaMA's and the LLaVA authors': a tower inside the checkpoint, then the one
 * of a CLIP folder beside it; then MoE-LLaVA's; then Idefics3's. */
static const struct part {
	const char *ours;
	unsigned families;
	const struct pair *top, *layer;
	const char *layers; /* what stands before a layer's number */
	const char *prefixes[VQ_MAX_SPELLINGS];
} parts[] = {
	{"vision.",
	 ANY,
	 vision_top,
	 vision_layer,
	 "encoder.layers.",
	 {"vision_tower.vision_model.", "model.vision_tower.vision_model.",
	  "model.vision_tower.vision_tower.vision_model.", "vision_model.",
	  "model.image_tower.image_tower.vision_model.",
	  "transformer.image_tower.image_tower.vision_model.", "model.vision_model."}},
	{"projector.",
	 ANY,
	 projector_top,
	 NULL,
	 NULL,
	 {"multi_modal_projector.", "model.multi_modal_projector."}},
	{"projector.", ANY, projector_flat, NULL, NULL, {"model.mm_projector."}},
	{"projector.", ANY, projector_one, NULL, NULL, {"model.mm_projector."}},
	{"projector.",
	 ANY,
	 projector_flat,
	 NULL,
	 NULL,
	 {"model.mm_projector.image_spatial_proj.",
	  "transformer.mm_projector.image_spatial_proj."}},
	{"projector.",
	 ANY,
	 projector_one,
	 NULL,
	 NULL,
	 {"model.mm_projector.image_spatial_proj.",
	  "transformer.mm_projector.image_spatial_proj."}},
	{"projector.", ANY, connector, NULL, NULL, {"model.connector.modality_projection."}},
	{"decoder.",
	 OF(VQ_FAMILY_LLAMA),
	 decoder_top,
	 decoder_layer,
	 "layers.",
	 {"language_model.model.", "model.language_model.", "model.", "model.text_model."}},
	{"decoder.", OF(VQ_FAMILY_STABLELM), decoder_top, decoder_layer, "layers.", {"model."}},
	{"decoder.", OF(VQ_FAMILY_PHI), phi_top, phi_layer, "layers.", {"model."}},
	{"decoder.", OF(VQ_FAMILY_PHI), phi_old_top, phi_old_layer, "h.", {"transformer."}},
	{"decoder.", OF(VQ_FAMILY_PHI), phi_old_norm, NULL, NULL, {""}},
	{"decoder.", OF(VQ_FAMILY_QWEN), qwen_top, qwen_layer, "h.", {"transformer."}},
};

static const char *translate(const struct pair *table, const char *ours, size_t n)
{
	for (; table && table->ours; table++)
		if (strlen(table->ours) == n && strncmp(table->ours, ours, n) == 0)
			return table->theirs;
	return NULL;
}

/* What stands behind a layer's number: "norm1.weight" -> "layer_norm1.weight".  Experts are called as their backbone calls
 * its MLP, below DeepSpeed's modules: "experts.E.up_proj.weight" -> "PREFIX.E.up_proj.weight". */
static int spell_in_layer(const struct part *p, const char *what, char *buf, size_t room)
{
	static const char experts[] = "experts.", mlp[] = "mlp.", router[] = "router.weight";
	static const char deepspeed[] = "mlp.deepspeed_moe.";
	const char *leaf, *theirs;
	int digits = 0;

	if (strcmp(what, router) == 0) {
		snprintf(buf, room, "%sgate.wg.weight", deepspeed);
		return 1;
	}
	if (strncmp(what, experts, sizeof(experts) - 1) == 0) {
		what += sizeof(experts) - 1;
		digits = (int)strspn(what, "0123456789");
		if (digits == 0 || what[digits] != '.')
			return 0;
	}
	leaf = strchr(digits ? what + digits + 1 : what, '.');
	if (!leaf)
		return 0;
	if (!digits) {
		theirs = translate(p->layer, what, (size_t)(leaf - what));
		if (theirs)
			snprintf(buf, room, "%s%s", theirs, leaf);
		return theirs != NULL;
	}
	theirs = translate(p->layer, what + digits + 1, (size_t)(leaf - what) - (size_t)digits - 1);
	if (!theirs || strncmp(theirs, mlp, sizeof(mlp) - 1) != 0)
		return 0;
	snprintf(buf, room, "%sexperts.deepspeed_experts.%.*s.%s%s", deepspeed, digits, what,
		 theirs + sizeof(mlp) - 1, leaf);
	return 1;
}

/* "layers.N.norm1.weight" -> "encoder.layers.N.layer_norm1.weight" into buf; 0 when it is no such name. */
static int spell_layer(const struct part *p, const char *rest, char *buf, size_t room)
{
	const char *number = rest + 7;
	char inner[96];
	size_t digits;

	if (!p->layer || strncmp(rest, "layers.", 7) != 0)
		return 0;
	digits = strspn(number, "0123456789");
	if (digits == 0 || number[digits] != '.')
		return 0;
	if (!spell_in_layer(p, number + digits + 1, inner, sizeof(inner)))
		return 0;
	snprintf(buf, room, "%s%.*s.%s", p->layers, (int)digits, number, inner);
	return 1;
}

void vq_spell(struct vq_spellings *out, enum vq_family family, const char *name)
{
	char suffix[120];
	size_t i, k;

	out->n = 0;
	if (strncmp(name, "decoder.head.", 13) == 0) {
		if (family == VQ_FAMILY_LLAMA)
			snprintf(out->s[out->n++], VQ_SPELLING_ROOM, "language_model.lm_head.%s",
				 name + 13);
		snprintf(out->s[out->n++], VQ_SPELLING_ROOM, "lm_head.%s", name + 13);
		if (family == VQ_FAMILY_PHI)
			snprintf(out->s[out->n++], VQ_SPELLING_ROOM, "lm_head.linear.%s",
				 name + 13);
		return;
	}
	for (i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		const struct part *p = &parts[i];
		size_t n = strlen(p->ours);
		const char *top;

		if (strncmp(name, p->ours, n) != 0 || !(p->families & OF(family)))
			continue;
		top = translate(p->top, name + n, strlen(name + n));
		if (top)
			snprintf(suffix, sizeof(suffix), "%s", top);
		else if (!spell_layer(p, name + n, suffix, sizeof(suffix)))
			continue;
		for (k = 0; k < VQ_MAX_SPELLINGS && p->prefixes[k]; k++)
			snprintf(out->s[out->n++], VQ_SPELLING_ROOM, "%s%s", p->prefixes[k],
				 suffix);
	}
}
