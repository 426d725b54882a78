/* Tokenizers in GGUF files. */
#include "format/gguf_vocab.h"

#include <stdio.h>

#include "base/mem.h"
#include "format/token_vocab.h"

/* scores [n]: those of the pieces, or by merges, and below all of those what no merge makes. */
static void set_scores(const struct vq_tokenizer *t, float *scores, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; i++)
		scores[i] = i < t->size ? t->pieces[i].score : 0;
	if (!t->merges)
		return;
	for (i = 0; i < t->size; i++)
		if (t->pieces[i].type == VQ_PIECE_NORMAL)
			scores[i] = -(float)t->n_merges;
	for (i = 0; i < t->n_merges; i++) {
		const struct vq_merge *m = &t->merges[i];

		if (m->left >= 0 && -(float)m->rank > scores[m->id])
			scores[m->id] = -(float)m->rank;
	}
}

static int32_t type_of(const struct vq_tokenizer *t, uint32_t id)
{
	const struct vq_piece *p = &t->pieces[id];

	if (id >= t->size || p->type == VQ_PIECE_NONE)
		return VQ_PIECE_UNUSED;
	if ((int32_t)id == t->unk)
		return VQ_PIECE_UNKNOWN;
	return p->type;
}

static void put_id(struct vq_gguf *g, const char *key, int32_t id)
{
	if (id >= 0)
		vq_gguf_u32(g, key, (uint32_t)id);
}

int vq_gguf_vocab(struct vq_gguf *g, const struct vq_tokenizer *t, uint32_t n, int32_t bos,
		  int32_t eos, int32_t pad, const char *label, struct vq_err *err)
{
	float *scores = vq_alloc_f32(n, err);
	int32_t *types = scores ? vq_alloc(n, sizeof(*types), err) : NULL;
	int rc = types ? VQ_OK : VQ_E_SYS;
	char hole[32];
	uint32_t i;

	if (rc == VQ_OK && t->pretoken)
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: GGUF files of models with byte-level BPE are not written; export "
			     "to another format",
			     label);
	if (rc == VQ_OK && t->size > n)
		rc = vq_fail(err, VQ_E_DATA, "%s: the tokenizer has %u ids, the embedding %u rows",
			     label, t->size, n);
	if (rc < 0)
		goto out;
	vq_gguf_text(g, "tokenizer.ggml.model", "llama");
	vq_gguf_text(g, "tokenizer.ggml.pre", "default");
	vq_gguf_texts(g, "tokenizer.ggml.tokens", n);
	for (i = 0; i < n; i++) {
		types[i] = type_of(t, i);
		if (i < t->size && t->pieces[i].type != VQ_PIECE_NONE)
			vq_gguf_texts_add(g, t->pieces[i].text, t->pieces[i].n);
		else
			vq_gguf_texts_add(g, hole,
					  (size_t)snprintf(hole, sizeof(hole), "[PAD%u]", i));
	}
	set_scores(t, scores, n);
	vq_gguf_f32s(g, "tokenizer.ggml.scores", scores, n);
	vq_gguf_i32s(g, "tokenizer.ggml.token_type", types, n);
	put_id(g, "tokenizer.ggml.bos_token_id", bos);
	put_id(g, "tokenizer.ggml.eos_token_id", eos);
	put_id(g, "tokenizer.ggml.unknown_token_id", t->unk);
	put_id(g, "tokenizer.ggml.padding_token_id", pad);
	vq_gguf_bool(g, "tokenizer.ggml.add_bos_token", bos >= 0);
	vq_gguf_bool(g, "tokenizer.ggml.add_eos_token", 0);
	vq_gguf_bool(g, "tokenizer.ggml.add_space_prefix", t->prefix != VQ_PREFIX_NEVER);
out:
	vq_free(types);
	vq_free(scores);
	return rc;
}
