/* Tokenizers in GGUF files. */
#include "format/gguf_vocab.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "format/gguf_tok.h"
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

/* "llama": pieces with scores. */
static int put_scores(struct vq_gguf *g, const struct vq_tokenizer *t, uint32_t n,
		      struct vq_err *err)
{
	float *scores = vq_alloc_f32(n, err);

	if (!scores)
		return VQ_E_SYS;
	set_scores(t, scores, n);
	vq_gguf_f32s(g, "tokenizer.ggml.scores", scores, n);
	vq_free(scores);
	return VQ_OK;
}

static int by_rank(const void *a, const void *b)
{
	const struct vq_merge *const *x = a, *const *y = b;

	return ((*x)->rank > (*y)->rank) - ((*x)->rank < (*y)->rank);
}

/* "gpt2": the merges in order, each the two tokens with a space between. */
static int put_merges(struct vq_gguf *g, const struct vq_tokenizer *t, struct vq_err *err)
{
	const struct vq_merge **list = vq_alloc(t->n_merges, sizeof(const void *), err);
	struct vq_str text = {0};
	uint32_t i, n = 0;
	int rc = list ? VQ_OK : VQ_E_SYS;

	for (i = 0; list && i < t->n_merges; i++)
		if (t->merges[i].left >= 0)
			list[n++] = &t->merges[i];
	if (list) {
		qsort(list, n, sizeof(const void *), by_rank);
		vq_gguf_texts(g, "tokenizer.ggml.merges", n);
	}
	for (i = 0; rc == VQ_OK && i < n; i++) {
		text.n = 0;
		vq_str_printf(&text, "%s %s", t->pieces[list[i]->left].text,
			      t->pieces[list[i]->right].text);
		if (text.failed)
			rc = vq_fail(err, VQ_E_SYS, "memory: cannot write merges");
		else
			vq_gguf_texts_add(g, text.s, text.n);
	}
	vq_str_free(&text);
	vq_free(list);
	return rc;
}

/* Texts begin with a token: LLaMA's where the model has one, others where the tokenizer says so. */
static void put_ids(struct vq_gguf *g, const struct vq_tokenizer *t, int32_t bos, int32_t eos,
		    int32_t pad)
{
	int first = t->pretoken ? t->bos >= 0 : bos >= 0;

	put_id(g, "tokenizer.ggml.bos_token_id", t->pretoken && first ? t->bos : bos);
	put_id(g, "tokenizer.ggml.eos_token_id", eos);
	put_id(g, "tokenizer.ggml.unknown_token_id", t->unk);
	put_id(g, "tokenizer.ggml.padding_token_id", pad);
	vq_gguf_bool(g, "tokenizer.ggml.add_bos_token", first);
	vq_gguf_bool(g, "tokenizer.ggml.add_eos_token", 0);
	vq_gguf_bool(g, "tokenizer.ggml.add_space_prefix",
		     !t->pretoken && t->prefix != VQ_PREFIX_NEVER);
}

/* Tokens and their types; what no token is gets a name of its own, as names must differ. */
static int put_tokens(struct vq_gguf *g, const struct vq_tokenizer *t, uint32_t n,
		      struct vq_err *err)
{
	int32_t *types = vq_alloc(n, sizeof(*types), err);
	char hole[32];
	uint32_t i;

	if (!types)
		return VQ_E_SYS;
	vq_gguf_texts(g, "tokenizer.ggml.tokens", n);
	for (i = 0; i < n; i++) {
		types[i] = type_of(t, i);
		if (i < t->size && t->pieces[i].type != VQ_PIECE_NONE)
			vq_gguf_texts_add(g, t->pieces[i].text, t->pieces[i].n);
		else
			vq_gguf_texts_add(g, hole,
					  (size_t)snprintf(hole, sizeof(hole), "[PAD%u]", i));
	}
	vq_gguf_i32s(g, "tokenizer.ggml.token_type", types, n);
	vq_free(types);
	return VQ_OK;
}

int vq_gguf_vocab(struct vq_gguf *g, const struct vq_tokenizer *t, uint32_t n, int32_t bos,
		  int32_t eos, int32_t pad, const char *label, struct vq_err *err)
{
	const char *pre = "default";
	int rc = t->pretoken ? vq_gguf_pre_name(&pre, t, label, err) : VQ_OK;

	if (rc == VQ_OK && t->size > n)
		rc = vq_fail(err, VQ_E_DATA, "%s: the tokenizer has %u ids, the embedding %u rows",
			     label, t->size, n);
	if (rc < 0)
		return rc;
	vq_gguf_text(g, "tokenizer.ggml.model", t->pretoken ? "gpt2" : "llama");
	vq_gguf_text(g, "tokenizer.ggml.pre", pre);
	rc = put_tokens(g, t, n, err);
	if (rc == VQ_OK)
		rc = t->pretoken ? put_merges(g, t, err) : put_scores(g, t, n, err);
	if (rc == VQ_OK)
		put_ids(g, t, bos, eos, pad);
	return rc;
}
