/* Exporting: a token for pictures where the vocabulary has none.  The LLaVA authors put pictures between stretches of
 * text that are encoded one by one; readers of llava-hf look "<image>" up in the tokenizer, and its id in the embedding,
 * before they put the picture's features there.  So it needs an id and a row: a spare row behind the tokenizer's last token
 * where there is one, else one more, as transformers' convert_llava_weights_to_hf.py has it.  Nothing is made of that row of
 * the embedding; in the head it is the first row again, which ties with the first token and so never changes what is
 * likeliest. */
#include <stdio.h>
#include <string.h>

#include "task/export_parts.h"

static const char marker[] = "<image>";

int vq_export_image(struct vq_export *x, struct vq_err *err)
{
	const int32_t vocab = (int32_t)x->config.decoder.vocab;
	struct vq_tokenizer *t = NULL;
	int32_t id;
	size_t i;
	int rc;

	x->image_token = x->config.image_token;
	if (!x->config.has_vision || x->o->to == VQ_EXPORT_GGUF || x->image_token < vocab)
		return VQ_OK;
	rc = vq_vqm_tokenizer(&t, x->v, err);
	if (rc < 0)
		return rc;
	id = vq_tokenizer_id(t, marker);
	x->new_token = id < 0;
	x->image_token = id < 0 ? (int32_t)vq_tokenizer_size(t) : id;
	vq_tokenizer_free(t);
	for (i = 0; x->image_token >= vocab && i < x->n; i++)
		if (strcmp(x->items[i].name->name, "decoder.embed.weight") == 0 ||
		    strncmp(x->items[i].name->name, "decoder.head.", 13) == 0)
			x->items[i].n_more = (uint32_t)(x->image_token + 1 - vocab);
	return VQ_OK;
}

/* What LLaMA's tokenizer wants to know beside tokenizer.model, where the model says nothing; others' is in tokenizer.json. */
static json_t *plain(const struct vq_export *x)
{
	if (x->config.family != VQ_FAMILY_LLAMA)
		return json_pack("{s:s}", "tokenizer_class", "PreTrainedTokenizerFast");
	return json_pack("{s:s, s:b, s:b, s:s, s:s, s:s, s:b}", "tokenizer_class", "LlamaTokenizer",
			 "add_bos_token", 1, "add_eos_token", 0, "bos_token", "<s>", "eos_token",
			 "</s>", "unk_token", "<unk>", "legacy", 1);
}

static void add_marker(const struct vq_export *x, json_t *j)
{
	json_t *added = json_object_get(j, "added_tokens_decoder");
	char key[16];

	snprintf(key, sizeof(key), "%d", x->image_token);
	if (!json_is_object(added)) {
		added = json_object();
		json_object_set_new(j, "added_tokens_decoder", added);
	}
	json_object_set_new(added, key,
			    json_pack("{s:s, s:b, s:b, s:b, s:b, s:b}", "content", marker, "lstrip",
				      0, "normalized", 0, "rstrip", 0, "single_word", 0, "special",
				      1));
}

int vq_export_tokenizer_config(struct vq_export *x, struct vq_err *err)
{
	static const char file[] = "tokenizer_config.json";
	const struct vq_vqm_member *m = vq_vqm_find(x->v, file);
	json_t *j = m ? vq_json_parse((const char *)m->data, m->n, file, err) : plain(x);
	int own, rc;

	if (!j)
		return m ? VQ_E_DATA : vq_fail(err, VQ_E_SYS, "memory: cannot write %s", file);
	own = json_object_del(j, "auto_map") == 0;
	if (own)
		json_object_set_new(j, "tokenizer_class", json_string("PreTrainedTokenizerFast"));
	if (x->new_token)
		add_marker(x, j);
	rc = own || x->new_token ? vq_export_put_json(x, file, j, err)
	     : m                 ? vq_export_put(x, file, m->data, m->n, err)
				 : VQ_OK;
	json_decref(j);
	return rc;
}
