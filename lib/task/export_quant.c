/* Exporting: what config.json says of the quantization. */
#include <stdio.h>
#include <string.h>

#include "task/export_parts.h"

/* --- what stays floating point --- */

/* Modules by the words that a format wants: PATTERN has one %s. */
struct names {
	const struct vq_export *x;
	const char *part, *module; /* printf patterns: for a word in the name, for one module */
	json_t *list;
};

static void add(struct names *n, const char *pattern, const char *word)
{
	char text[256];

	snprintf(text, sizeof(text), pattern, word);
	json_array_append_new(n->list, json_string(text));
}

/* A part of which no linear goes out as codes is named as a whole; returns 0 when some do. */
static int add_part(struct names *n, unsigned part, const char *word)
{
	const struct vq_export *x = n->x;
	size_t i;

	for (i = 0; i < x->n; i++)
		if (x->items[i].as == VQ_AS_CODES &&
		    vq_search_part_of(x->items[i].name->name) == part)
			return 0;
	add(n, n->part, word);
	return 1;
}

static void module_of(const struct vq_export *x, const struct vq_export_item *i, char *buf,
		      size_t room)
{
	vq_export_spell(x, i->name->name, buf, room);
	buf[strlen(buf) - strlen(".weight")] = '\0';
}

static json_t *left_out(const struct vq_export *x, const char *part, const char *module)
{
	struct names n = {x, part, module, json_array()};
	const int idefics3 = vq_export_is_idefics3(x);
	unsigned whole = 0;
	char name[192];
	size_t i;

	add(&n, part, "lm_head");
	if (x->config.has_vision &&
	    add_part(&n, VQ_PART_VISION, idefics3 ? "vision_model" : "vision_tower"))
		whole |= VQ_PART_VISION;
	if (x->config.has_vision &&
	    add_part(&n, VQ_PART_PROJECTOR, idefics3 ? "connector" : "multi_modal_projector"))
		whole |= VQ_PART_PROJECTOR;
	for (i = 0; i < x->n; i++) {
		const struct vq_export_item *it = &x->items[i];

		if (!it->name->linear || it->as == VQ_AS_CODES ||
		    vq_search_part_of(it->name->name) & whole)
			continue;
		module_of(x, it, name, sizeof(name));
		add(&n, module, name);
	}
	return n.list;
}

static const struct vq_export_item *first_coded(const struct vq_export *x)
{
	size_t i;

	for (i = 0; i < x->n; i++)
		if (x->items[i].as == VQ_AS_CODES)
			return &x->items[i];
	return NULL; /* the plan refuses that */
}

static json_t *awq(const struct vq_export *x)
{
	return json_pack("{s:s, s:b, s:i, s:i, s:s, s:o}", "quant_method", "awq", "zero_point", 1,
			 "group_size", (int)x->group, "bits", 4, "version", "gemm",
			 "modules_to_not_convert", left_out(x, "%s", "%s"));
}

/* GPTQModel's "dynamic": modules whose names match "-:regex" are left out. */
static json_t *gptq(const struct vq_export *x)
{
	json_t *list = left_out(x, "-:.*%s.*", "-:.*%s$"), *dynamic = json_object(), *v;
	int sym = 1;
	size_t i;

	json_array_foreach(list, i, v)
		json_object_set_new(dynamic, json_string_value(v), json_object());
	json_decref(list);
	for (i = 0; i < x->n; i++)
		sym &= x->items[i].as != VQ_AS_CODES || x->items[i].sym;
	return json_pack("{s:s, s:i, s:i, s:b, s:b, s:b, s:b, s:b, s:s, s:s, s:o, s:{s:[s]}}",
			 "quant_method", "gptq", "bits", (int)first_coded(x)->bits, "group_size",
			 x->group ? (int)x->group : -1, "desc_act", 0, "sym", sym, "static_groups",
			 0, "true_sequential", 1, "lm_head", 0, "checkpoint_format",
			 x->o->gptq_v2 ? "gptq_v2" : "gptq", "pack_dtype", "int32", "dynamic",
			 dynamic, "meta", "quantizer", "vqlm:" VQ_VERSION);
}

static json_t *bnb(const struct vq_export *x)
{
	return json_pack("{s:s, s:b, s:b, s:s, s:b, s:s, s:s, s:o}", "quant_method", "bitsandbytes",
			 "load_in_4bit", 1, "load_in_8bit", 0, "bnb_4bit_quant_type", "nf4",
			 "bnb_4bit_use_double_quant", 1, "bnb_4bit_compute_dtype", "float16",
			 "bnb_4bit_quant_storage", "uint8", "llm_int8_skip_modules",
			 left_out(x, "%s", "%s"));
}

/* --- compressed-tensors: a group for each scheme --- */

static int same_scheme(const struct vq_export *x, const struct vq_export_item *a,
		       const struct vq_export_item *b)
{
	return a->bits == b->bits && a->sym == b->sym &&
	       vq_export_acts_of(x, a) == vq_export_acts_of(x, b) &&
	       (vq_export_acts_of(x, a) != VQ_EXPORT_ACTS_STATIC || a->act.sym == b->act.sym);
}

static const char *ct_storage(const struct vq_export *x, const struct vq_export_item *i)
{
	return vq_export_acts_of(x, i) == VQ_EXPORT_ACTS_DROP ? "pack-quantized" : "int-quantized";
}

static json_t *ct_input(const struct vq_export *x, const struct vq_export_item *i)
{
	int fixed = vq_export_acts_of(x, i) == VQ_EXPORT_ACTS_STATIC;

	if (vq_export_acts_of(x, i) == VQ_EXPORT_ACTS_DROP)
		return json_null();
	return json_pack("{s:i, s:s, s:b, s:s, s:b, s:n, s:n, s:o}", "num_bits", 8, "type", "int",
			 "symmetric", fixed ? i->act.sym : 1, "strategy",
			 fixed ? "tensor" : "token", "dynamic", !fixed, "group_size", "actorder",
			 "observer", fixed ? json_string("minmax") : json_null());
}

/* mixed: groups differ in how weights are stored, so each says it. */
static json_t *ct_scheme(const struct vq_export *x, const struct vq_export_item *i, json_t *targets,
			 int mixed)
{
	json_t *weights = json_pack("{s:i, s:s, s:b, s:s, s:o, s:b, s:n, s:s}", "num_bits",
				    (int)i->bits, "type", "int", "symmetric", i->sym, "strategy",
				    x->group ? "group" : "channel", "group_size",
				    x->group ? json_integer((json_int_t)x->group) : json_null(),
				    "dynamic", 0, "actorder", "observer", "minmax");
	json_t *j = json_pack("{s:o, s:o, s:o, s:n}", "targets", targets, "weights", weights,
			      "input_activations", ct_input(x, i), "output_activations");

	if (mixed)
		json_object_set_new(j, "format", json_string(ct_storage(x, i)));
	return j;
}

/* The first of each scheme makes a group.  One scheme is all linears but those ignored; several name their modules. */
static json_t *ct_groups(const struct vq_export *x, int mixed)
{
	const struct vq_export_item *a, *b, *end = x->items + x->n;
	json_t *groups = json_object(), *targets;
	char name[192], key[32];
	int one = 1;

	for (a = x->items; a < end; a++)
		one &= a->as != VQ_AS_CODES || same_scheme(x, first_coded(x), a);
	for (a = x->items; a < end; a++) {
		for (b = x->items; b < a; b++)
			if (b->as == VQ_AS_CODES && same_scheme(x, a, b))
				break;
		if (a->as != VQ_AS_CODES || b < a)
			continue;
		targets = one ? json_pack("[s]", "Linear") : json_array();
		for (b = a; !one && b < end; b++) {
			if (b->as != VQ_AS_CODES || !same_scheme(x, a, b))
				continue;
			module_of(x, b, name, sizeof(name));
			json_array_append_new(targets, json_string(name));
		}
		snprintf(key, sizeof(key), "group_%zu", json_object_size(groups));
		json_object_set_new(groups, key, ct_scheme(x, a, targets, mixed));
	}
	return groups;
}

static json_t *compressed_tensors(const struct vq_export *x)
{
	const struct vq_export_item *first = first_coded(x), *i;
	int mixed = 0;

	for (i = x->items; i < x->items + x->n; i++)
		mixed |=
			i->as == VQ_AS_CODES && strcmp(ct_storage(x, i), ct_storage(x, first)) != 0;
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:n}", "quant_method", "compressed-tensors",
			 "format", mixed ? "mixed-precision" : ct_storage(x, first),
			 "quantization_status", "compressed", "config_groups", ct_groups(x, mixed),
			 "ignore", left_out(x, "re:.*%s.*", "%s"), "kv_cache_scheme");
}

json_t *vq_export_quant_config(const struct vq_export *x, struct vq_err *err)
{
	json_t *j;

	switch (x->o->to) {
	case VQ_EXPORT_AWQ: j = awq(x); break;
	case VQ_EXPORT_GPTQ: j = gptq(x); break;
	case VQ_EXPORT_CT: j = compressed_tensors(x); break;
	default: j = bnb(x); break;
	}
	if (!j)
		vq_fail(err, VQ_E_SYS, "memory: cannot describe the quantization");
	return j;
}
