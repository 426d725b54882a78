/* The records of an answer file: opening, answers, totals. */
#include <string.h>

#include "base/mem.h"
#include "kernel/blas.h"
#include "kernel/cpu.h"
#include "task/infer_parts.h"

/* "llava_test_CQM-A.json" -> "test": the first word of the file's name that is a split. */
static json_t *split_of(const char *path)
{
	static const char *const splits[] = {"train",     "val",     "test",    "trainval",
					     "minitrain", "minival", "minitest"};
	const char *slash = path ? strrchr(path, '/') : NULL, *s = slash ? slash + 1 : path;
	size_t n, i;

	while (s && *s) {
		n = strcspn(s, "_-.");
		for (i = 0; i < sizeof(splits) / sizeof(splits[0]); i++)
			if (strlen(splits[i]) == n && strncmp(s, splits[i], n) == 0)
				return json_string(splits[i]);
		s += n + (s[n] != '\0');
	}
	return json_null();
}

/* A field that cannot be stored is left out; NULL objects and values are fine. */
static void put(json_t *j, const char *key, json_t *v)
{
	(void)!json_object_set_new(j, key, v);
}

/* What a packed model keeps in 16 bits is little, and its answers are to be those of every kernel set. */
enum vq_gemm_way vq_infer_products(const struct vq_infer *o, const struct vq_loaded *l)
{
	return !o->float32 && l->ckpt && vq_gemm_has_bf16() ? VQ_GEMM_BF16 : VQ_GEMM_FLOAT32;
}

json_t *vq_infer_head(const char *what, const struct vq_infer *o, const struct vq_loaded *l,
		      const struct vq_asks *a, json_t *params)
{
	json_t *ids = json_array(), *j;
	uint32_t i;

	for (i = 0; i < a->n; i++)
		json_array_append_new(ids, json_string(a->v[i].id));
	put(params, "kv", json_integer(vq_kv_bits(o->kv)));
	put(params, "products", json_string(vq_gemm_way_name(vq_infer_products(o, l))));
	if (o->exact)
		put(params, "exact", json_true());
	j = json_pack("{s:s, s:s, s:O, s:o, s:o}", "vqlm", what, "producer",
		      "vqlm-infer " VQ_VERSION, "model", l->identity, "ids", ids, "params", params);
	if (a->data_sha256[0])
		put(j, "data", json_pack("{s:s}", "sha256", a->data_sha256));
	if (o->shard) {
		put(j, "shard", json_string(o->shard));
		put(j, "n_asked", json_integer(a->n_asked));
	}
	return j;
}

json_t *vq_infer_opening(const struct vq_infer *o, const struct vq_loaded *l,
			 const struct vq_asks *a, uint32_t max_tokens)
{
	json_t *j = vq_infer_head("answers", o, l, a,
				  json_pack("{s:b, s:i, s:f, s:I}", "score", o->score, "max_tokens",
					    (int)max_tokens, "temperature", o->temperature, "seed",
					    (json_int_t)o->seed));

	put(j, "split", split_of(o->data));
	put(j, "template", json_string(l->model.cfg.chat ? l->model.cfg.chat->name : ""));
	return j;
}

json_t *vq_infer_answer(const struct vq_answering *a)
{
	json_t *tokens = json_array(), *j, *scores;
	char letter[2] = "";
	uint32_t i;

	for (i = 0; i < a->n_tokens; i++)
		json_array_append_new(tokens, json_integer(a->tokens[i]));
	j = json_pack("{s:s, s:s, s:o, s:i, s:f}", "question_id", a->ask->id, "text",
		      a->text.s ? a->text.s : "", "tokens", tokens, "n_prompt",
		      (int)a->prompt.n_tokens, "ms", a->ms);
	if (!j || a->n_choices == 0)
		return j;
	scores = json_object();
	for (i = 0; i < a->n_choices; i++) {
		letter[0] = (char)('A' + i);
		json_object_set_new(scores, letter, json_real(a->log_probs[i]));
	}
	json_object_set_new(j, "scores", scores);
	return j;
}

static double per_second(uint64_t n, double seconds)
{
	return seconds > 0 ? (double)n / seconds : 0;
}

json_t *vq_infer_totals(const struct vq_loaded *l, const struct vq_asks *a,
			const struct vq_run_times *t, uint32_t workers, double load_seconds,
			double seconds)
{
	double vision = t->vision / workers, prefill = t->prefill / workers,
	       decode = t->decode / workers;
	json_t *j = json_object();

	put(j, "vqlm", json_string("totals"));
	put(j, "questions", json_integer(a->n));
	put(j, "seconds", json_real(seconds));
	put(j, "load_seconds", json_real(load_seconds));
	put(j, "pictures", json_integer((json_int_t)t->pictures));
	put(j, "vision_seconds", json_real(vision));
	put(j, "prompt_tokens", json_integer((json_int_t)t->prompt_tokens));
	put(j, "prefill_seconds", json_real(prefill));
	put(j, "prefill_tokens_per_second", json_real(per_second(t->prompt_tokens, prefill)));
	put(j, "decoded_tokens", json_integer((json_int_t)t->decoded_tokens));
	put(j, "decode_seconds", json_real(decode));
	put(j, "decode_tokens_per_second", json_real(per_second(t->decoded_tokens, decode)));
	put(j, "peak_bytes", json_integer((json_int_t)vq_peak_rss()));
	put(j, "peak_anon_bytes", json_integer((json_int_t)vq_peak_anon()));
	put(j, "weight_bytes", json_integer((json_int_t)l->weight_bytes));
	put(j, "kernels", json_string(vq_cpu_name()));
	put(j, "blas", json_string(vq_blas_core()));
	return j;
}
