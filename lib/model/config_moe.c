/* Which layers of a decoder have experts. */
#include "model/config_moe.h"

#include <stdio.h>
#include <string.h>

#include "format/checkpoint.h"
#include "model/config_limits.h"
#include "model/field.h"
#include "model/names.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define M(m)     offsetof(struct vq_moe_config, m)

/* --- MoE-LLaVA's --- */

static const struct vq_field fields[] = {
	{"top_k_experts", VQ_FIELD_U32, M(top_k), 1, 2, 2, NULL},
	{"eval_capacity_factor", VQ_FIELD_F32, M(capacity_factor), 1e-6, VQ_LIMIT_CAPACITY, 2,
	 NULL},
	{"min_capacity", VQ_FIELD_U32, M(min_capacity), 0, VQ_LIMIT_POSITION, 0, NULL},
};

enum mode { EVERY_SECOND, FIRST_HALF, SECOND_HALF, EVERY };
static const struct vq_word modes[] = {{"sparse", EVERY_SECOND},
				       {"first_half", FIRST_HALF},
				       {"second_half", SECOND_HALF},
				       {"dense", EVERY},
				       {"custom", EVERY_SECOND}, /* with a list */
				       {0}};
static const struct vq_field mode_field = {
	"moe_mode", VQ_FIELD_WORD, 0, 0, 0, EVERY_SECOND, modes,
};

static int in_mode(enum mode m, uint32_t i, uint32_t n)
{
	switch (m) {
	case EVERY_SECOND: return i % 2 == 0;
	case FIRST_HALF: return i < n / 2;
	case SECOND_HALF: return i >= n / 2;
	case EVERY: break;
	}
	return 1;
}

/* moe_layers_idx, or what moe_mode stands for: chosen [n_layers]. */
static int which_layers(uint8_t *chosen, uint32_t n_layers, const json_t *moe, const char *label,
			struct vq_err *err)
{
	static const char key[] = "moe_layers_idx";
	const json_t *list = json_object_get(moe, key);
	char want[96];
	uint32_t i;
	int mode, rc = vq_fields_read(&mode_field, 1, &mode, moe, label, err);

	if (rc < 0)
		return rc;
	for (i = 0; i < n_layers; i++)
		chosen[i] = (uint8_t)in_mode((enum mode)mode, i, n_layers);
	if (!list || json_is_null(list))
		return VQ_OK;
	snprintf(want, sizeof(want), "different layers of 0..%u", n_layers - 1);
	memset(chosen, 0, n_layers);
	for (i = 0; i < json_array_size(list); i++) {
		const json_t *v = json_array_get(list, i);
		json_int_t at = json_is_integer(v) ? json_integer_value(v) : -1;

		if (at < 0 || at >= (json_int_t)n_layers || chosen[at])
			return vq_field_refuse(label, key, want, v, err);
		chosen[at] = 1;
	}
	return i ? VQ_OK : vq_field_refuse(label, key, want, list, err);
}

/* num_experts: one number, a list of one, or one for each of the chosen layers. */
static int how_many(struct vq_moe_config *m, const uint8_t *chosen, uint32_t n_layers,
		    const json_t *moe, const char *label, struct vq_err *err)
{
	static const char key[] = "num_experts";
	const json_t *v = json_object_get(moe, key), *one = v;
	size_t n = json_array_size(v), i, k = 0, n_chosen = 0;
	char want[96];

	for (i = 0; i < n_layers; i++)
		n_chosen += chosen[i];
	if (!n_chosen)
		return vq_fail(err, VQ_E_DATA, "%s: 'moe_mode': no layer of %u would have experts",
			       label, n_layers);
	snprintf(want, sizeof(want), "one number of %u..%u, or a list of %zu", m->top_k,
		 VQ_LIMIT_EXPERTS, n_chosen);
	if (json_is_array(v) && n != 1 && n != n_chosen)
		return vq_field_refuse(label, key, want, v, err);
	for (i = 0; i < n_layers; i++) {
		json_int_t e;

		if (!chosen[i])
			continue;
		if (json_is_array(v))
			one = json_array_get(v, n == 1 ? 0 : k++);
		e = json_is_integer(one) ? json_integer_value(one) : 0;
		if (e < (json_int_t)m->top_k || e > (json_int_t)VQ_LIMIT_EXPERTS)
			return vq_field_refuse(label, key, want, v, err);
		m->n_experts[i] = (uint8_t)e;
	}
	return VQ_OK;
}

/* The experts of layer i in the checkpoint; the name of the last one's tensor goes to name. */
static uint32_t experts_there(const struct vq_ckpt *k, enum vq_family family, uint32_t i,
			      char *name, size_t room)
{
	char canonical[64];
	uint32_t e;

	for (e = 0; e <= VQ_LIMIT_EXPERTS; e++) {
		snprintf(canonical, sizeof(canonical),
			 "decoder.layers.%u.experts.%u.up_proj.weight", i, e);
		if (!vq_names_has_as(k, family, canonical, name, room))
			break;
	}
	return e;
}

static int check_tensors(const struct vq_decoder_config *d, enum vq_family family,
			 const struct vq_ckpt *k, const char *label, struct vq_err *err)
{
	char name[160];
	uint32_t i;

	for (i = 0; i < d->n_layers; i++) {
		uint32_t want = d->moe.n_experts[i],
			 got = experts_there(k, family, i, name, sizeof(name));

		if (got == want)
			continue;
		if (!want)
			return vq_fail(
				err, VQ_E_DATA,
				"%s: moe: 'moe_layers_idx': layer %u is not among them, but the "
				"checkpoint has %u experts of it ('%s'); add it, or take the "
				"config.json that belongs to these weights",
				label, i, got, name);
		if (!got)
			snprintf(name, sizeof(name), "model.layers.%u.mlp.deepspeed_moe", i);
		return vq_fail(
			err, VQ_E_DATA,
			"%s: moe: 'num_experts': want %u for layer %u, the checkpoint has %u "
			"('%s'); take the config.json that belongs to these weights",
			label, want, i, got, name);
	}
	return VQ_OK;
}

int vq_moe_from(struct vq_decoder_config *d, enum vq_family family, const struct vq_ckpt *k,
		const json_t *config, const char *label, struct vq_err *err)
{
	const json_t *moe = json_object_get(config, "moe");
	uint8_t chosen[VQ_LIMIT_LAYERS];
	int on = 0, residual = 0, rc;
	char where[560];

	if (!moe || json_is_null(moe))
		return check_tensors(d, family, k, label, err);
	if (!json_is_object(moe))
		return vq_field_refuse(label, "moe", "an object", moe, err);
	snprintf(where, sizeof(where), "%s: moe", label);
	rc = vq_json_bool(moe, "moe_enable", 1, &on, where, err);
	if (rc == VQ_OK)
		rc = vq_json_bool(moe, "use_residual", 0, &residual, where, err);
	if (rc == VQ_OK && on && residual)
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: 'use_residual': residual experts are not supported; want false",
			     where);
	if (rc == VQ_OK && on)
		rc = vq_fields_read(fields, COUNT(fields), &d->moe, moe, where, err);
	if (rc == VQ_OK && on)
		rc = which_layers(chosen, d->n_layers, moe, where, err);
	if (rc == VQ_OK && on)
		rc = how_many(&d->moe, chosen, d->n_layers, moe, where, err);
	return rc < 0 ? rc : check_tensors(d, family, k, label, err);
}

/* --- ours --- */

static const struct vq_field own_fields[] = {
	{"top_k", VQ_FIELD_U32, M(top_k), 1, 2, VQ_REQUIRED, NULL},
	{"capacity_factor", VQ_FIELD_F32, M(capacity_factor), 1e-6, VQ_LIMIT_CAPACITY, VQ_REQUIRED,
	 NULL},
	{"min_capacity", VQ_FIELD_U32, M(min_capacity), 0, VQ_LIMIT_POSITION, VQ_REQUIRED, NULL},
};

int vq_moe_write(const struct vq_decoder_config *d, json_t *decoder, struct vq_err *err)
{
	json_t *o = json_object(), *list = json_array();
	uint32_t i;
	int rc = vq_fields_write(own_fields, COUNT(own_fields), &d->moe, o, err);
	int bad = !o || !list;

	for (i = 0; !bad && i < d->n_layers; i++)
		bad = json_array_append_new(list, json_integer(d->moe.n_experts[i])) < 0;
	bad = bad || json_object_set(o, "n_experts", list) < 0 ||
	      json_object_set(decoder, "moe", o) < 0;
	json_decref(list);
	json_decref(o);
	if (rc == VQ_OK && bad)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot write 'moe'");
	return rc;
}

int vq_moe_parse(struct vq_decoder_config *d, const json_t *decoder, const char *label,
		 struct vq_err *err)
{
	const json_t *o = json_object_get(decoder, "moe"), *list = json_object_get(o, "n_experts");
	struct vq_moe_config *m = &d->moe;
	char where[256], want[96];
	uint32_t i, any = 0;
	int rc;

	memset(m, 0, sizeof(*m));
	if (!o)
		return VQ_OK;
	snprintf(where, sizeof(where), "%s: decoder: moe", label);
	if (!json_is_object(o))
		return vq_field_refuse(where, "moe", "an object", o, err);
	rc = vq_fields_read(own_fields, COUNT(own_fields), m, o, where, err);
	if (rc < 0)
		return rc;
	snprintf(want, sizeof(want), "%u numbers, each 0 or %u..%u and not all 0", d->n_layers,
		 m->top_k, VQ_LIMIT_EXPERTS);
	if (json_array_size(list) != d->n_layers)
		return vq_field_refuse(where, "n_experts", want, list, err);
	for (i = 0; i < d->n_layers; i++) {
		const json_t *v = json_array_get(list, i);
		json_int_t n = json_is_integer(v) ? json_integer_value(v) : -1;

		if (n < 0 || n > (json_int_t)VQ_LIMIT_EXPERTS ||
		    (n > 0 && n < (json_int_t)m->top_k))
			return vq_field_refuse(where, "n_experts", want, v, err);
		m->n_experts[i] = (uint8_t)n;
		any |= m->n_experts[i];
	}
	return any ? VQ_OK : vq_field_refuse(where, "n_experts", want, list, err);
}
