/* Exporting: which models the formats hold, and what engines call their tensors.
 *
 * The first Qwen computes what Qwen 2 does (whole heads turn, biases of q, k and v alone), so it goes out as that: engines
 * have Qwen 2 built in, and its q, k and v are three matrices, as here. */
#include <stdio.h>
#include <string.h>

#include "model/names_spell.h"
#include "task/export_parts.h"

int vq_export_is_idefics3(const struct vq_export *x)
{
	return strcmp(x->config.arch, "idefics3") == 0;
}

/* Modules are spelled as their weights, without ".weight". */
void vq_export_spell(const struct vq_export *x, const char *canonical, char *buf, size_t room)
{
	enum vq_family family = x->config.family;
	int decoder = strncmp(canonical, "decoder.", 8) == 0, vision = x->config.has_vision;
	int head = strncmp(canonical, "decoder.head.", 13) == 0, own;
	struct vq_spellings sp;
	size_t i = 0;

	if (family == VQ_FAMILY_QWEN)
		family = VQ_FAMILY_LLAMA;
	own = family != VQ_FAMILY_LLAMA && decoder; /* of these there is the decoder alone */
	vq_spell(&sp, family, canonical);
	if (vq_export_is_idefics3(x))
		i = sp.n - 1;
	else if (!vision && !own)
		i = head ? 1 : 2;
	if (sp.n == 0) /* no name of vq_names_list is without */
		snprintf(buf, room, "%s", canonical);
	else
		snprintf(buf, room, "%s%s", own && vision ? "language_model." : "", sp.s[i]);
}

/* --- what cannot be said --- */

/* Of the decoder, whatever holds it. */
static const char *unsaid_decoder(const struct vq_config *c)
{
	const struct vq_layer_config *l = &c->decoder.layer;

	if (c->family != VQ_FAMILY_QWEN)
		return NULL;
	if (l->o_bias || l->mlp_bias)
		return "biases but of q, k and v, which Qwen 2 has not (the first Qwen goes out as "
		       "that)";
	if (vq_rotary_dim(l) != l->head_dim)
		return "heads that turn in part, which Qwen 2 has not (the first Qwen goes out as "
		       "that)";
	if (l->n_heads * l->head_dim != l->hidden)
		return "heads that do not add up to the width, which Qwen 2 has not (the first "
		       "Qwen "
		       "goes out as that)";
	return NULL;
}

/* What the engine computes whatever a GGUF file says. */
static const char *unsaid_gguf(const struct vq_config *c)
{
	const struct vq_projector_config *p = &c->projector;
	int phi = c->family == VQ_FAMILY_PHI;

	if (!phi && c->decoder.layer.act != VQ_ACT_SILU)
		return "a decoder with another activation than SiLU";
	if (phi && c->decoder.layer.act != VQ_ACT_GELU_TANH)
		return "a Phi with another activation than GELU by tanh";
	if (c->decoder.tied && (phi || c->family == VQ_FAMILY_STABLELM))
		return "a head that is the embedding in decoders of this kind";
	if (!c->has_vision)
		return NULL;
	if (c->vision.keep_class)
		return "features of the class token (vision_feature_select_strategy \"full\")";
	if (p->n_linears == 2 && p->act != VQ_ACT_GELU_ERF && p->act != VQ_ACT_GELU_TANH)
		return "a projector with another activation than GELU";
	if (c->vision.post_norm && p->shuffle < 2)
		return "a connector that leaves patches single (scale_factor 1)";
	return NULL;
}

int vq_export_check_family(const struct vq_export *x, struct vq_err *err)
{
	const struct vq_decoder_config *d = &x->config.decoder;
	const char *what = unsaid_decoder(&x->config);
	uint32_t i;

	for (i = 0; i < d->n_layers; i++)
		if (d->moe.n_experts[i])
			return vq_fail(err, VQ_E_DATA,
				       "%s: a decoder with experts (layer %u has %u) cannot be "
				       "exported: no engine reads MoE-LLaVA's; vqlm-infer runs the "
				       "packed model",
				       x->v->label, i, d->moe.n_experts[i]);
	if (what)
		return vq_fail(err, VQ_E_DATA,
			       "%s: the decoder has %s; vqlm-infer runs the packed model",
			       x->v->label, what);
	what = x->o->to == VQ_EXPORT_GGUF ? unsaid_gguf(&x->config) : NULL;
	return what ? vq_fail(err, VQ_E_DATA,
			      "%s: gguf: engines have no place for %s; want "
			      "another --to",
			      x->v->label, what)
		    : VQ_OK;
}
