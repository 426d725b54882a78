/* Canonical tensor names, and what checkpoints call them. */
#include "model/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/round.h"
#include "base/str.h"
#include "model/names_spell.h"

/* --- the list --- */

struct list {
	struct vq_name *v;
	size_t n, room;
};

/* The bounds of vq_names_list make room enough; a name that would not fit is a fault of this file. */
static void add(struct list *l, uint32_t unit, int linear, uint32_t n_dims, const uint64_t dims[4],
		const char *prefix, const char *name)
{
	struct vq_name *e = &l->v[l->n];

	if (l->n == l->room)
		return;
	l->n++;
	snprintf(e->name, sizeof(e->name), "%s%s", prefix, name);
	e->unit = unit;
	e->linear = linear;
	e->n_dims = n_dims;
	memcpy(e->dims, dims, sizeof(e->dims));
}

static void add_vector(struct list *l, uint32_t unit, const char *prefix, const char *name,
		       uint64_t n)
{
	add(l, unit, 0, 1, (const uint64_t[4]){n}, prefix, name);
}

static void add_linear(struct list *l, uint32_t unit, const char *prefix, const char *name,
		       uint64_t n_out, uint64_t n_in, int bias)
{
	char full[32];

	snprintf(full, sizeof(full), "%s.weight", name);
	add(l, unit, 1, 2, (const uint64_t[4]){n_out, n_in}, prefix, full);
	snprintf(full, sizeof(full), "%s.bias", name);
	if (bias)
		add_vector(l, unit, prefix, full, n_out);
}

static void add_norm(struct list *l, uint32_t unit, const char *prefix, const char *name,
		     const struct vq_layer_config *c)
{
	char full[32];

	snprintf(full, sizeof(full), "%s.weight", name);
	add_vector(l, unit, prefix, full, c->hidden);
	snprintf(full, sizeof(full), "%s.bias", name);
	if (c->norm == VQ_NORM_LAYER)
		add_vector(l, unit, prefix, full, c->hidden);
}

static void add_mlp(struct list *l, uint32_t unit, const char *prefix,
		    const struct vq_layer_config *c)
{
	if (c->gated)
		add_linear(l, unit, prefix, "gate_proj", c->inter, c->hidden, c->mlp_bias);
	add_linear(l, unit, prefix, "up_proj", c->inter, c->hidden, c->mlp_bias);
	add_linear(l, unit, prefix, "down_proj", c->hidden, c->inter, c->mlp_bias);
}

static void add_experts(struct list *l, uint32_t unit, const char *prefix,
			const struct vq_layer_config *c, uint32_t n_experts)
{
	char p[64];
	uint32_t e;

	add(l, unit, 0, 2, (const uint64_t[4]){n_experts, c->hidden}, prefix, "router.weight");
	for (e = 0; e < n_experts; e++) {
		snprintf(p, sizeof(p), "%sexperts.%u.", prefix, e);
		add_mlp(l, unit, p, c);
	}
}

/* n_experts 0: a dense layer. */
static void add_layer(struct list *l, uint32_t unit, const char *part, uint32_t i,
		      const struct vq_layer_config *c, uint32_t n_experts)
{
	uint64_t q = (uint64_t)c->n_heads * c->head_dim, kv = (uint64_t)c->n_kv_heads * c->head_dim;
	char p[40];

	snprintf(p, sizeof(p), "%s.layers.%u.", part, i);
	add_norm(l, unit, p, "norm1", c);
	add_linear(l, unit, p, "q_proj", q, c->hidden, c->qkv_bias);
	add_linear(l, unit, p, "k_proj", kv, c->hidden, c->qkv_bias);
	add_linear(l, unit, p, "v_proj", kv, c->hidden, c->qkv_bias);
	add_linear(l, unit, p, "o_proj", c->hidden, q, c->o_bias);
	if (!c->parallel)
		add_norm(l, unit, p, "norm2", c);
	if (n_experts)
		add_experts(l, unit, p, c, n_experts);
	else
		add_mlp(l, unit, p, c);
}

static void add_vision(struct list *l, const struct vq_config *c)
{
	const struct vq_vision_config *v = &c->vision;
	uint64_t w = v->layer.hidden, side = v->image_size / v->patch_size, p = v->patch_size;
	uint32_t i, unit = vq_config_projector_unit(c);

	if (v->has_class)
		add_vector(l, 0, "vision.", "class_embed", w);
	add(l, 0, 0, 4, (const uint64_t[4]){w, 3, p, p}, "vision.", "patch_embed.weight");
	if (v->patch_bias)
		add_vector(l, 0, "vision.", "patch_embed.bias", w);
	add(l, 0, 0, 2, (const uint64_t[4]){side * side + (v->has_class ? 1 : 0), w}, "vision.",
	    "position_embed");
	if (v->pre_norm)
		add_norm(l, 0, "vision.", "pre_norm", &v->layer);
	for (i = 0; i < v->n_layers; i++)
		add_layer(l, i, "vision", i, &v->layer, 0);
	if (v->post_norm)
		add_norm(l, v->n_layers - 1, "vision.", "post_norm", &v->layer);
	for (i = 0; i < c->projector.n_linears; i++)
		add_linear(l, unit, "projector.", i == 0 ? "0" : "1", c->projector.out,
			   i == 0 ? c->projector.in : c->projector.out, c->projector.bias);
}

static void add_decoder(struct list *l, const struct vq_config *c)
{
	const struct vq_decoder_config *d = &c->decoder;
	uint32_t i, unit = vq_config_decoder_unit(c), last = vq_config_n_units(c) - 1;
	const uint64_t table[4] = {d->vocab, d->layer.hidden};

	add(l, unit, 0, 2, table, "decoder.", "embed.weight");
	for (i = 0; i < d->n_layers; i++)
		add_layer(l, unit + i, "decoder", i, &d->layer, d->moe.n_experts[i]);
	add_norm(l, last, "decoder.", "norm", &d->layer);
	if (!d->tied)
		add(l, last, 0, 2, table, "decoder.", "head.weight");
	if (d->head_bias)
		add_vector(l, last, "decoder.", "head.bias", d->vocab);
}

int vq_names_list(const struct vq_config *c, struct vq_name **out, size_t *n, struct vq_err *err)
{
	struct list l = {0};
	uint32_t i;

	/* At most 18 tensors a layer, 6 an expert, and some around the layers. */
	l.room = 18 * ((size_t)(c->has_vision ? c->vision.n_layers : 0) + c->decoder.n_layers) + 32;
	for (i = 0; i < c->decoder.n_layers; i++)
		l.room += 6u * c->decoder.moe.n_experts[i];
	l.v = vq_calloc(l.room, sizeof(*l.v), err);
	if (!l.v)
		return VQ_E_SYS;
	if (c->has_vision)
		add_vision(&l, c);
	add_decoder(&l, c);
	*out = l.v;
	*n = l.n;
	return VQ_OK;
}

static const char layer_prefix[] = "decoder.layers.";

int vq_names_in_layer(const char *canonical)
{
	return strncmp(canonical, layer_prefix, sizeof(layer_prefix) - 1) == 0;
}

void vq_names_from_layer(struct vq_name *name, const uint32_t *kept)
{
	char rest[sizeof(name->name)], *end;
	unsigned long i;

	if (!vq_names_in_layer(name->name))
		return;
	i = strtoul(name->name + sizeof(layer_prefix) - 1, &end, 10);
	snprintf(rest, sizeof(rest), "%s", end);
	snprintf(name->name, sizeof(name->name), "%s%u%.40s", layer_prefix, kept[i], rest);
}

/* --- in a checkpoint --- */

/* Every name that the checkpoint may have for it: a model stream has ours. */
static void spell_for(struct vq_spellings *out, const struct vq_ckpt *k, enum vq_family family,
		      const char *name)
{
	if (vq_ckpt_form(k) == VQ_CKPT_HF) {
		vq_spell(out, family, name);
		return;
	}
	snprintf(out->s[0], VQ_SPELLING_ROOM, "%s", name);
	out->n = 1;
}

static const struct vq_tensor *look_up(const struct vq_ckpt *k, const struct vq_spellings *sp,
				       const char **name, const char **where)
{
	size_t i;

	for (i = 0; i < sp->n; i++) {
		const struct vq_tensor *t = vq_ckpt_find(k, sp->s[i], where);

		if (t) {
			*name = sp->s[i];
			return t;
		}
	}
	return NULL;
}

int vq_names_spell(const char *canonical, unsigned i, char *buf, size_t room)
{
	struct vq_spellings sp;

	vq_spell(&sp, VQ_FAMILY_LLAMA, canonical);
	if (i >= sp.n)
		return 0;
	snprintf(buf, room, "%s", sp.s[i]);
	return 1;
}

int vq_names_has_as(const struct vq_ckpt *k, enum vq_family family, const char *canonical,
		    char *buf, size_t room)
{
	struct vq_spellings sp;
	const char *name, *where;

	spell_for(&sp, k, family, canonical);
	if (!look_up(k, &sp, &name, &where))
		return 0;
	if (buf)
		snprintf(buf, room, "%s", name);
	return 1;
}

int vq_names_has(const struct vq_ckpt *k, const char *canonical)
{
	/* Projector and head have the same names in every family. */
	return vq_names_has_as(k, VQ_FAMILY_LLAMA, canonical, NULL, 0);
}

static int missing(const struct vq_ckpt *k, const char *canonical, const struct vq_spellings *sp,
		   struct vq_err *err)
{
	struct vq_str tried = {0};
	size_t i;

	for (i = 0; i < sp->n; i++)
		vq_str_printf(&tried, "%s%s", i ? ", " : "", sp->s[i]);
	vq_fail(err, VQ_E_DATA, "%s: tensor '%s' is missing; looked for %s", vq_ckpt_path(k),
		canonical, tried.s ? tried.s : "nothing: no checkpoint has such a name");
	vq_str_free(&tried);
	return VQ_E_DATA;
}

static int other_shape(const struct vq_tensor *t, uint32_t n_dims, const uint64_t *want,
		       const char *name, const char *where, struct vq_err *err)
{
	char a[96], b[192];

	return vq_fail(err, VQ_E_DATA,
		       "%s: tensor '%s': want shape %s by config.json, got %s; the two are "
		       "not of one model",
		       where, name, vq_shape_text(n_dims, want, a, sizeof(a)),
		       vq_shape_text(t->n_dims, t->dims, b, sizeof(b)));
}

static int check_type(const struct vq_tensor *t, const char *name, const char *where,
		      struct vq_err *err)
{
	if (t->dtype == VQ_F16 || t->dtype == VQ_BF16 || t->dtype == VQ_F32)
		return VQ_OK;
	return vq_fail(err, VQ_E_DATA, "%s: tensor '%s': want f16, bf16 or f32, got %s", where,
		       name, vq_dtype_name(t->dtype));
}

/* 1 when the tensor that was found for the decoder's q, k or v has all of them one below the other, as Qwen's and the first
 * Phi's have: *first is the row at which this one begins. */
static int is_fused(const struct vq_config *c, const char *found, const char *canonical,
		    uint64_t *first)
{
	static const char *const parts[] = {".q_proj.", ".k_proj.", ".v_proj."};
	const struct vq_layer_config *l = &c->decoder.layer;
	const uint64_t q = (uint64_t)l->n_heads * l->head_dim,
		       kv = (uint64_t)l->n_kv_heads * l->head_dim;
	const uint64_t rows[] = {0, q, q + kv};
	size_t i;

	if (!strstr(found, ".attn.c_attn.") && !strstr(found, ".mixer.Wqkv."))
		return 0;
	for (i = 0; i < 3 && !strstr(canonical, parts[i]); i++)
		;
	if (i < 3)
		*first = rows[i];
	return i < 3;
}

/* Rows first.. of a fused tensor: a view, nothing is copied. */
static int part_of(const struct vq_config *c, const struct vq_tensor *t, const struct vq_name *want,
		   uint64_t first, const char *name, const char *where, struct vq_tensor *out,
		   struct vq_err *err)
{
	const struct vq_layer_config *l = &c->decoder.layer;
	uint64_t all[4], row = want->n_dims > 1 ? want->dims[1] : 1;

	memcpy(all, want->dims, sizeof(all));
	all[0] = ((uint64_t)l->n_heads + 2 * (uint64_t)l->n_kv_heads) * l->head_dim;
	if (t->n_dims != want->n_dims || memcmp(t->dims, all, t->n_dims * sizeof(t->dims[0])))
		return other_shape(t, want->n_dims, all, name, where, err);
	if (check_type(t, name, where, err) < 0)
		return VQ_E_DATA;
	*out = *t;
	out->dims[0] = want->dims[0];
	out->data = (const uint8_t *)t->data + first * row * vq_dtype_size(t->dtype);
	return VQ_OK;
}

int vq_names_find(const struct vq_config *c, const struct vq_ckpt *k, const struct vq_name *want,
		  struct vq_tensor *out, struct vq_err *err)
{
	const char *canonical = want->name, *name, *where;
	const struct vq_tensor *t;
	struct vq_spellings sp;
	uint64_t first;

	if (c->decoder.tied && strcmp(canonical, "decoder.head.weight") == 0)
		canonical = "decoder.embed.weight";
	spell_for(&sp, k, c->family, canonical);
	t = look_up(k, &sp, &name, &where);
	if (!t)
		return missing(k, canonical, &sp, err);
	if (is_fused(c, name, canonical, &first))
		return part_of(c, t, want, first, name, where, out, err);
	if (t->n_dims != want->n_dims ||
	    memcmp(t->dims, want->dims, t->n_dims * sizeof(t->dims[0])))
		return other_shape(t, want->n_dims, want->dims, name, where, err);
	if (check_type(t, name, where, err) < 0)
		return VQ_E_DATA;
	*out = *t;
	return VQ_OK;
}

/* --- NaN and infinity --- */

int vq_names_check_finite(const struct vq_tensor *t, const char *name, const char *where,
			  struct vq_err *err)
{
	size_t n, i, k;
	uint64_t index[VQ_MAX_DIMS];
	char text[192];

	if (vq_tensor_count(t, &n) < 0)
		return vq_fail(err, VQ_E_DATA, "%s: tensor '%s' is too large", where, name);
	i = vq_first_bad(t->dtype, t->data, n);
	if (i == n)
		return VQ_OK;
	for (k = t->n_dims, n = i; k-- > 0; n /= t->dims[k])
		index[k] = n % t->dims[k];
	return vq_fail(err, VQ_E_DATA,
		       "%s: tensor '%s': NaN or infinity at %s; want finite weights", where, name,
		       vq_shape_text(t->n_dims, index, text, sizeof(text)));
}
