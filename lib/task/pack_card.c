/* The card of a packed model. */
#include "task/pack_card.h"

#include <stdlib.h>
#include <string.h>

#include "stream/history.h"

enum vq_pack_part vq_pack_part_of(const char *tensor)
{
	if (strncmp(tensor, "vision.", 7) == 0)
		return VQ_PACK_VISION;
	if (strncmp(tensor, "projector.", 10) == 0)
		return VQ_PACK_PROJECTOR;
	if (strncmp(tensor, "decoder.embed.", 14) == 0)
		return VQ_PACK_EMBED;
	return strncmp(tensor, "decoder.head.", 13) == 0 ? VQ_PACK_HEAD : VQ_PACK_DECODER;
}

const char *vq_pack_part_name(enum vq_pack_part p)
{
	static const char *const names[] = {"vision encoder", "projector", "decoder layers",
					    "token embedding", "output head"};

	return names[p];
}

double vq_pack_bits(const struct vq_pack_size *s)
{
	return s->elements ? 8.0 * (double)s->after / (double)s->elements : 0;
}

struct vq_pack_size vq_pack_total(const struct vq_pack_size *sizes)
{
	struct vq_pack_size t = {0};
	int i;

	for (i = 0; i < VQ_PACK_N_PARTS; i++) {
		t.elements += sizes[i].elements;
		t.before += sizes[i].before;
		t.after += sizes[i].after;
		t.q_elements += sizes[i].q_elements;
		t.q_after += sizes[i].q_after;
		t.n_quantized += sizes[i].n_quantized;
	}
	return t;
}

/* A JSON string is a YAML string too, whatever is in it. */
static void put_json(struct vq_str *b, const json_t *j)
{
	char *text = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY |
					   JSON_REAL_PRECISION(9));

	if (text)
		vq_str_puts(b, text);
	else
		b->failed = 1;
	free(text);
}

static void put_quoted(struct vq_str *b, const char *s)
{
	json_t *j = json_string(s);

	put_json(b, j);
	json_decref(j);
}

void vq_card_front(struct vq_str *b, const json_t *header, const char *base_model,
		   const char *license, const char *library, int has_vision)
{
	vq_str_puts(b, "---\nbase_model: ");
	put_quoted(b, base_model);
	vq_str_printf(b, "\nbase_model_relation: quantized\nlibrary_name: %s\nlicense: ", library);
	put_quoted(b, license);
	vq_str_printf(b, "\npipeline_tag: %s\ntags:\n- vqlm\n- quantized\n",
		      has_vision ? "image-text-to-text" : "text-generation");
	if (has_vision)
		vq_str_puts(b, "- vision-language\n");
	if (vq_history_last(header, "vqlm-prune"))
		vq_str_puts(b, "- pruned\n");
	vq_str_puts(b, "---\n\n# ");
	vq_str_puts(b, base_model);
	vq_str_puts(b, ", quantized by V-QLM\n\n");
}

/* "0-3, 14, 17" of ascending numbers. */
static void put_runs(struct vq_str *b, const json_t *list)
{
	size_t n = json_array_size(list), i, k;

	for (i = 0; i < n; i = k) {
		json_int_t first = json_integer_value(json_array_get(list, i));

		for (k = i + 1; k < n; k++)
			if (json_integer_value(json_array_get(list, k)) !=
			    first + (json_int_t)(k - i))
				break;
		vq_str_printf(b, "%s%lld", i ? ", " : "", (long long)first);
		if (k > i + 1)
			vq_str_printf(b, "-%lld", (long long)first + (long long)(k - i) - 1);
	}
}

/* What vqlm-prune left of the decoder. */
static void put_depth(struct vq_str *b, const json_t *header)
{
	const json_t *p = vq_history_last(header, "vqlm-prune"), *kept = json_object_get(p, "kept");

	if (!p)
		return;
	vq_str_printf(
		b, "\n## Depth\n\nThe decoder has %zu of its %lld blocks: ", json_array_size(kept),
		(long long)json_integer_value(json_object_get(p, "n_blocks")));
	put_runs(b, kept);
	vq_str_printf(b, ".\nThe model has %lld weights.\n",
		      (long long)json_integer_value(json_object_get(p, "params")));
}

void vq_card_recipe(struct vq_str *b, const json_t *header, const json_t *plan)
{
	const json_t *history = json_object_get(header, "history");
	const char *producer = json_string_value(json_object_get(header, "producer"));
	size_t i, n = json_array_size(history);

	vq_str_puts(b, "## Recipe\n\n");
	vq_str_printf(b, "Begun by %s, then:\n\n", producer ? producer : "an unknown program");
	for (i = 0; i < n; i++) {
		const json_t *line = json_array_get(history, i);
		const json_t *params = json_object_get(line, "params");

		vq_str_puts(b, "- ");
		vq_str_puts(b, json_is_string(json_object_get(line, "tool"))
				       ? json_string_value(json_object_get(line, "tool"))
				       : "?");
		if (json_is_string(json_object_get(line, "version")))
			vq_str_printf(b, " %s",
				      json_string_value(json_object_get(line, "version")));
		if (params && !json_is_null(params)) {
			vq_str_puts(b, " `");
			put_json(b, params);
			vq_str_puts(b, "`");
		}
		vq_str_puts(b, "\n");
	}
	if (plan)
		vq_str_printf(b, "\nSearched in %zu blocks of layers.\n",
			      json_array_size(json_object_get(plan, "blocks")));
	put_depth(b, header);
}

void vq_card_calib(struct vq_str *b, const json_t *c)
{
	const char *sha = json_string_value(json_object_get(c, "data_sha256"));

	vq_str_puts(b, "\n## Calibration\n\n");
	if (json_integer_value(json_object_get(c, "n")) <= 0) {
		vq_str_puts(b, "None: no samples were used.\n");
		return;
	}
	vq_str_printf(b, "%lld samples, %lld tokens, seed %lld; SHA-256 of the data file:\n`%s`.\n",
		      (long long)json_integer_value(json_object_get(c, "n")),
		      (long long)json_integer_value(json_object_get(c, "n_tokens")),
		      (long long)json_integer_value(json_object_get(c, "seed")),
		      sha ? sha : "unknown");
}

static void put_row(struct vq_str *b, const char *name, const struct vq_pack_size *s)
{
	vq_str_printf(b, "| %s | %llu | %llu | %llu | %.2f |\n", name,
		      (unsigned long long)s->elements, (unsigned long long)s->before,
		      (unsigned long long)s->after, vq_pack_bits(s));
}

static void put_sizes(struct vq_str *b, const struct vq_pack_facts *f)
{
	struct vq_pack_size t = vq_pack_total(f->sizes), q = {0};
	int i;

	vq_str_puts(b,
		    "\n## Size\n\n| part | weights | bytes before | bytes packed | bits a weight "
		    "|\n|---|---:|---:|---:|---:|\n");
	for (i = 0; i < VQ_PACK_N_PARTS; i++)
		if (f->sizes[i].elements)
			put_row(b, vq_pack_part_name((enum vq_pack_part)i), &f->sizes[i]);
	put_row(b, "all", &t);
	q.elements = t.q_elements;
	q.before = 2 * t.q_elements;
	q.after = t.q_after;
	if (t.n_quantized)
		put_row(b, "quantized linears alone", &q);
	vq_str_printf(
		b,
		"\n%u linear layers are quantized; scales and zero points are counted.  Bytes "
		"before are those of\nthe type that came in, 2 a weight for quantized ones.\n",
		t.n_quantized);
}

static void put_transforms(struct vq_str *b, const struct vq_pack_facts *f)
{
	static const char *const what[] = {"a scale alone", "a scale and Hadamard blocks",
					   "a scale and a matrix for each block"};
	int i;

	for (i = 0; i < VQ_TRANSFORM_N_KINDS; i++)
		if (f->n_transformed[i])
			vq_str_printf(
				b,
				"\nThe inputs of %u of them go through %s first; the numbers are "
				"counted.\n",
				f->n_transformed[i], what[i]);
}

void vq_pack_card(struct vq_str *b, const struct vq_pack_facts *f)
{
	vq_card_front(b, f->header, f->base_model, f->license, "vqlm", f->config->has_vision);
	vq_card_recipe(b, f->header, f->plan);
	vq_card_calib(b, f->calib);
	put_sizes(b, f);
	put_transforms(b, f);
	vq_str_puts(b, "\n## Use\n\n");
	vq_str_puts(b, f->config->has_vision
			       ? "    vqlm-infer -m MODEL.vqm -i PICTURE.png \"What is this?\"\n"
			       : "    vqlm-infer -m MODEL.vqm \"What is this?\"\n");
	vq_str_puts(b,
		    "    vqlm-infer -m MODEL.vqm -d questions.json | vqlm-eval -r problems.json\n"
		    "    vqlm-ls --check MODEL.vqm\n");
}
