/* Exporting: tokenizer, what the format cannot say, and the card. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "quant/agrid.h"
#include "task/export_effect.h"
#include "task/pack_card.h"

/* --- files of the folder --- */

int vq_export_put(struct vq_export *x, const char *name, const void *data, size_t n,
		  struct vq_err *err)
{
	char *path = vq_folder_file(&x->folder, name, err);
	struct vq_output o;
	int rc = path ? vq_output_open(&o, path, err) : VQ_E_SYS;

	vq_free(path);
	if (rc < 0)
		return rc;
	rc = vq_write_full(o.fd, data, n, o.label, err);
	if (rc == VQ_OK)
		rc = vq_output_commit(&o, err);
	else
		vq_output_abort(&o, 0);
	return rc;
}

int vq_export_put_json(struct vq_export *x, const char *name, const json_t *j, struct vq_err *err)
{
	char *text = j ? json_dumps(j, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
	int rc = text ? vq_export_put(x, name, text, strlen(text), err)
		      : vq_fail(err, VQ_E_SYS, "memory: cannot write %s", name);

	free(text);
	return rc;
}

void vq_export_say(const struct vq_export *x, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(x->out, fmt, ap);
	va_end(ap);
}

static int put_tokenizer(struct vq_export *x, struct vq_err *err)
{
	static const char *const names[] = {"tokenizer.json", "tokenizer.model",
					    "added_tokens.json"};
	size_t i;
	int rc = VQ_OK;

	for (i = 0; rc == VQ_OK && i < sizeof(names) / sizeof(names[0]); i++) {
		const struct vq_vqm_member *m = vq_vqm_find(x->v, names[i]);

		if (m)
			rc = vq_export_put(x, names[i], m->data, m->n, err);
	}
	return rc < 0 ? rc : vq_export_tokenizer_config(x, err);
}

/* --- vqlm.json --- */

static json_t *floats(const float *v, uint32_t n)
{
	json_t *a = json_array();
	uint32_t i;

	for (i = 0; i < n; i++)
		json_array_append_new(a, json_real((double)v[i]));
	return a;
}

/* {"as", and of what search found: "grid", "act", "clip", "error", "folded": its transform, "range": [lows, highs]} */
static int describe(struct vq_export *x, const struct vq_export_item *i, json_t *tensors,
		    struct vq_err *err)
{
	static const char *const as[] = {"float", "float16", "codes"};
	static const char *const keys[] = {"grid", "act", "clip", "error"};
	struct vq_export_tensor t;
	const char *type = x->o->to == VQ_EXPORT_GGUF && i->as == VQ_AS_CODES
				   ? vq_ggml_name(i->block)
				   : as[i->as];
	json_t *o = json_pack("{s:s}", "as", type), *attrs;
	size_t k;
	int rc = vq_export_open(&t, x->v, i->name, err);

	if (rc < 0)
		goto out;
	attrs = json_object_get(t.e.j, "attrs");
	for (k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
		if (json_object_get(attrs, keys[k]))
			json_object_set(o, keys[k], json_object_get(attrs, keys[k]));
	if (t.transform) /* in the norm before it */
		json_object_set(o, "folded", json_object_get(attrs, "transform"));
	if (t.act.bits != VQ_ACT_FLOAT && t.act.range != VQ_RANGE_TOKEN) {
		rc = vq_export_ranges(&t, err);
		if (rc == VQ_OK)
			json_object_set_new(o, "range",
					    json_pack("[o, o]", floats(t.act.lo, t.act.n_ranges),
						      floats(t.act.hi, t.act.n_ranges)));
	}
	if (rc == VQ_OK && json_object_set(tensors, i->name->name, o) < 0)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot describe '%s'", i->name->name);
	vq_export_close(&t);
out:
	json_decref(o);
	return rc;
}

static int put_unsaid(struct vq_export *x, struct vq_err *err)
{
	static const char *const acts[] = {"float", "drop", "dynamic-int8", "static-int8"};
	static const char *const keys[] = {"model",    "calib",   "plan",  "search",
					   "producer", "history", "config"};
	json_t *tensors = json_object();
	json_t *j = json_pack("{s:s, s:s, s:s, s:O?, s:O?, s:O?}", "exporter",
			      "vqlm-export " VQ_VERSION, "format", vq_export_name(x->o->to),
			      "acts_as", acts[x->o->acts], "model_sha256",
			      json_object_get(x->v->manifest, "sha256"), "blocks",
			      json_object_get(x->v->manifest, "search"), "effect", x->effect);
	size_t i;
	int rc =
		j && tensors ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot write the side file");

	for (i = 0; rc == VQ_OK && i < sizeof(keys) / sizeof(keys[0]); i++)
		if (json_object_get(x->model, keys[i]))
			json_object_set(j, keys[i], json_object_get(x->model, keys[i]));
	for (i = 0; rc == VQ_OK && i < x->n; i++)
		if (x->items[i].bits || x->items[i].act.bits != VQ_ACT_FLOAT)
			rc = describe(x, &x->items[i], tensors, err);
	if (rc == VQ_OK)
		json_object_set(j, "tensors", tensors);
	if (rc == VQ_OK)
		rc = vq_export_put_json(x, VQ_EXPORT_SIDE, j, err);
	json_decref(tensors);
	json_decref(j);
	return rc;
}

/* --- README.md --- */

/* KEY: "value" of the front matter of the packed model's card; given, NULL when it is not there. */
static json_t *front(const struct vq_export *x, const char *key)
{
	const struct vq_vqm_member *m = vq_vqm_find(x->v, "card.md");
	const char *text = m ? (const char *)m->data : NULL, *end = text ? text + m->n : NULL;
	size_t n = strlen(key);

	while (text && text < end) {
		const char *line = memchr(text, '\n', (size_t)(end - text));

		line = line ? line : end;
		if ((size_t)(line - text) > n + 2 && strncmp(text, key, n) == 0 &&
		    strncmp(text + n, ": ", 2) == 0)
			return json_loadb(text + n + 2, (size_t)(line - text) - n - 2,
					  JSON_DECODE_ANY, NULL);
		text = line + 1;
	}
	return NULL;
}

static void put_use(struct vq_str *b, const struct vq_export *x)
{
	const char *model;

	if (x->o->to == VQ_EXPORT_GGUF) {
		vq_str_puts(b, x->config.has_vision
				       ? "    llama-mtmd-cli -m model.gguf --mmproj mmproj.gguf "
					 "--image PICTURE.png -p \"What is this?\"\n"
				       : "    llama-cli -m model.gguf -p \"What is this?\"\n");
		return;
	}
	model = !x->config.has_vision      ? "AutoModelForCausalLM"
		: vq_export_is_idefics3(x) ? "Idefics3ForConditionalGeneration"
					   : "LlavaForConditionalGeneration";
	vq_str_printf(b,
		      "    from transformers import %s%s\n"
		      "    model = %s.from_pretrained(\".\")\n",
		      x->config.has_vision ? "AutoProcessor, " : "", model, model);
}

static void put_what(struct vq_str *b, const struct vq_export *x)
{
	uint32_t n[3] = {0, 0, 0};
	size_t i;

	for (i = 0; i < x->n; i++)
		if (x->items[i].bits)
			n[x->items[i].as]++;
	vq_str_printf(
		b,
		"\n## Format\n\n%s, by vqlm-export %s.  %u matrices have the integers that the "
		"packed model has;\n%u that it has quantized are dequantized to float16 here.  "
		"What the format cannot say of\nthe model, among it the grids of activations, "
		"is in `%s`.\n\n",
		vq_export_name(x->o->to), VQ_VERSION, n[VQ_AS_CODES], n[VQ_AS_HALF],
		VQ_EXPORT_SIDE);
}

static int put_card(struct vq_export *x, struct vq_err *err)
{
	json_t *base = front(x, "base_model"), *license = front(x, "license");
	const json_t *plan = json_object_get(x->model, "plan");
	struct vq_str b = {0};
	int rc;

	vq_card_front(&b, x->model, json_is_string(base) ? json_string_value(base) : "unknown",
		      json_is_string(license) ? json_string_value(license) : "unknown",
		      x->o->to == VQ_EXPORT_GGUF ? "gguf" : "transformers", x->config.has_vision);
	vq_card_recipe(&b, x->model, json_is_null(plan) ? NULL : plan);
	vq_card_calib(&b, json_object_get(x->model, "calib"));
	put_what(&b, x);
	vq_export_effect_card(&b, x);
	put_use(&b, x);
	rc = b.failed ? vq_fail(err, VQ_E_SYS, "memory: cannot write the card")
		      : vq_export_put(x, "README.md", b.s, b.n, err);
	vq_str_free(&b);
	json_decref(base);
	json_decref(license);
	return rc;
}

int vq_export_side(struct vq_export *x, struct vq_err *err)
{
	int rc = x->o->to == VQ_EXPORT_GGUF ? VQ_OK : put_tokenizer(x, err);

	if (rc == VQ_OK)
		rc = put_unsaid(x, err);
	return rc < 0 ? rc : put_card(x, err);
}
