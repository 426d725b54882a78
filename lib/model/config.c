/* The shape of a model: units, and the checks that hold wherever a configuration came from. */
#include "model/config.h"

#include <stdio.h>
#include <string.h>

#include "model/config_limits.h"

int vq_config_arch(struct vq_config *c, const char *arch)
{
	static const char *const names[] = {
		[VQ_FAMILY_LLAMA] = "llama",
		[VQ_FAMILY_STABLELM] = "stablelm",
		[VQ_FAMILY_PHI] = "phi",
		[VQ_FAMILY_QWEN] = "qwen",
	};
	int behind = strncmp(arch, "llava_", 6) == 0, idefics = strcmp(arch, "idefics3") == 0;
	const char *family = behind ? arch + 6 : arch;
	size_t i;

	if (strcmp(arch, "llava") == 0 || idefics)
		family = names[VQ_FAMILY_LLAMA];
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(family, names[i]) == 0 && !(behind && i == VQ_FAMILY_LLAMA))
			break;
	if (i == sizeof(names) / sizeof(names[0]))
		return VQ_E_DATA;
	c->family = (enum vq_family)i;
	c->has_vision = strncmp(arch, "llava", 5) == 0 || idefics;
	snprintf(c->arch, sizeof(c->arch), "%s", arch);
	return VQ_OK;
}

uint32_t vq_config_n_units(const struct vq_config *c)
{
	return vq_config_decoder_unit(c) + c->decoder.n_layers;
}

uint32_t vq_config_projector_unit(const struct vq_config *c)
{
	return c->vision.n_layers;
}

uint32_t vq_config_decoder_unit(const struct vq_config *c)
{
	return c->has_vision ? c->vision.n_layers + 1 : 0;
}

uint32_t vq_config_shuffled(const struct vq_config *c)
{
	return c->projector.shuffle ? c->projector.shuffle * c->projector.shuffle : 1;
}

struct vq_config vq_config_cut(const struct vq_config *c, const uint32_t *kept, uint32_t n)
{
	struct vq_config cut = *c;
	struct vq_moe_config *m = &cut.decoder.moe;
	uint32_t i, any = 0;

	cut.decoder.n_layers = n;
	memset(m->n_experts, 0, sizeof(m->n_experts));
	for (i = 0; i < n; i++)
		any |= m->n_experts[i] = c->decoder.moe.n_experts[kept[i]];
	if (!any)
		*m = (struct vq_moe_config){0};
	return cut;
}

static int check_layer(const struct vq_layer_config *l, const char *label, const char *part,
		       struct vq_err *err)
{
	if (l->n_heads % l->n_kv_heads != 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: %s: want a number of attention heads that is a multiple of the "
			       "key and value heads, got %u and %u",
			       label, part, l->n_heads, l->n_kv_heads);
	if ((uint64_t)l->n_heads * l->head_dim > VQ_LIMIT_DIM)
		return vq_fail(err, VQ_E_DATA, "%s: %s: want heads x head_dim <= %u, got %u x %u",
			       label, part, VQ_LIMIT_DIM, l->n_heads, l->head_dim);
	if (l->rope_theta != 0 && (l->head_dim % 2 != 0 || l->rope_theta < 1))
		return vq_fail(err, VQ_E_DATA,
			       "%s: %s: rotary embedding wants an even head_dim and rope_theta >= "
			       "1, got %u and %g",
			       label, part, l->head_dim, (double)l->rope_theta);
	if (l->rotary_dim % 2 != 0 || l->rotary_dim > l->head_dim)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: %s: want an even part of a head's %u numbers that turns (rotary "
			"embedding), got %u",
			label, part, l->head_dim, l->rotary_dim);
	return VQ_OK;
}

static int check_vision(const struct vq_config *c, const char *label, struct vq_err *err)
{
	const struct vq_vision_config *v = &c->vision;
	uint32_t side, tokens;
	uint64_t width;

	/* Idefics3's convolution leaves out what is no whole patch. */
	if (v->image_size % v->patch_size != 0 && (v->has_class || v->image_size < v->patch_size))
		return vq_fail(err, VQ_E_DATA,
			       "%s: vision: want an image_size that is a multiple of patch_size, "
			       "got %u and %u",
			       label, v->image_size, v->patch_size);
	side = v->image_size / v->patch_size;
	if ((uint64_t)side * side > VQ_LIMIT_PATCHES)
		return vq_fail(err, VQ_E_DATA, "%s: vision: want at most %u patches, got %u x %u",
			       label, VQ_LIMIT_PATCHES, side, side);
	if (v->keep_class && !v->has_class)
		return vq_fail(err, VQ_E_DATA, "%s: vision: keep_class without a class token",
			       label);
	if (c->projector.shuffle > 1 && (v->has_class || side % c->projector.shuffle != 0))
		return vq_fail(err, VQ_E_DATA,
			       "%s: projector: want %u x %u patches that squares of %u tile, and "
			       "no class token",
			       label, side, side, c->projector.shuffle);
	if (c->projector.shuffle > 1)
		side /= c->projector.shuffle;
	tokens = side * side + (v->keep_class ? 1 : 0);
	if (c->n_image_tokens != tokens)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want %u image tokens for %u x %u patches%s, got %u", label,
			       tokens, side, side, v->keep_class ? " and the class token" : "",
			       c->n_image_tokens);
	width = (uint64_t)v->layer.hidden * vq_config_shuffled(c);
	if (c->projector.in != width || c->projector.out != c->decoder.layer.hidden)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want a projector from %llu (vision) to %u (decoder), got %u "
			       "to %u",
			       label, (unsigned long long)width, c->decoder.layer.hidden,
			       c->projector.in, c->projector.out);
	if (c->preproc.crop != v->image_size)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want pictures of %u pixels a side (vision), the preprocessor "
			       "makes %u",
			       label, v->image_size, c->preproc.crop);
	if (c->image_token < 0)
		return vq_fail(err, VQ_E_DATA, "%s: no image token", label);
	return VQ_OK;
}

int vq_config_check(const struct vq_config *c, const char *label, struct vq_err *err)
{
	int rc = check_layer(&c->decoder.layer, label, "decoder", err);

	if (rc == VQ_OK && c->has_vision)
		rc = check_layer(&c->vision.layer, label, "vision", err);
	if (rc == VQ_OK && c->has_vision)
		rc = check_vision(c, label, err);
	return rc;
}
