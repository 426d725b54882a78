/* A batch of questions through the model: pictures, prompts, then token by token. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/sampler.h"
#include "task/infer_parts.h"

#define MAX_KV      ((size_t)1 << 30) /* bytes of a batch's cache */
#define SMALL_ROWS  1024u             /* of a small model's batch */
#define SMALL_PART  256u /* of them at a time: what a layer makes of them stays in near caches */
#define MAX_PROMPTS 64u
#define DATA_TOKENS 16u /* of an answer to a question of a data set */
#define TALK_TOKENS 256u

uint32_t vq_infer_max_tokens(const struct vq_infer *o)
{
	return o->max_tokens ? o->max_tokens : o->question ? TALK_TOKENS : DATA_TOKENS;
}

void vq_batcher_init(struct vq_batcher *b, const struct vq_infer *o, const struct vq_loaded *l,
		     int small)
{
	memset(b, 0, sizeof(*b));
	b->o = o;
	b->l = l;
	b->max_tokens = vq_infer_max_tokens(o);
	b->small = small;
	/* Integer sums do not depend on how rows are cut, and their weights are cheap to read again. */
	if (small && vq_linear_is_integer(&l->model.decoder.layers[0].lin[VQ_LIN_Q]))
		b->part = SMALL_PART;
}

/* A score needs no cache but one layer's, for what prompts share that go through the layers together. */
static uint32_t cached_layers(const struct vq_batcher *b)
{
	return b->o->score && !b->part ? 1 : b->l->model.cfg.decoder.n_layers;
}

static uint32_t answer_room(const struct vq_batcher *b)
{
	return b->o->score ? 0 : b->max_tokens;
}

struct vq_group_limits vq_batch_limits(const struct vq_model *m, uint32_t cached_layers,
				       uint32_t answer, int small)
{
	const struct vq_layer_config *layer = &m->cfg.decoder.layer;
	size_t token =
		(size_t)cached_layers * layer->n_kv_heads * layer->head_dim * 2 * sizeof(float);

	return (struct vq_group_limits){
		.image_token = m->cfg.image_token,
		/* What an expert drops depends on all rows of a sequence. */
		.whole = m->decoder.gating.drop,
		.prompts = MAX_PROMPTS,
		.rows = small ? SMALL_ROWS : VQ_MAX_ROWS,
		.answer = answer,
		.cells = MAX_KV / token,
		.taper = small};
}

struct vq_group_limits vq_batcher_limits(const struct vq_batcher *b)
{
	return vq_batch_limits(&b->l->model, cached_layers(b), answer_room(b), b->small);
}

void vq_batcher_free(struct vq_batcher *b)
{
	vq_kv_free(&b->kv);
}

void vq_answering_free(struct vq_answering *a)
{
	vq_prompt_free(&a->prompt);
	vq_picture_file_free(&a->file);
	vq_free(a->tokens);
	vq_free(a->logits);
	vq_str_free(&a->text);
	memset(a, 0, sizeof(*a));
}

/* --- prompts --- */

/* Room for the longest prompt and its answer, in a cache that grows but is kept. */
static int prepare_cache(struct vq_batcher *b, struct vq_answering *const *v, uint32_t n,
			 struct vq_err *err)
{
	const struct vq_decoder_config *c = &b->l->model.cfg.decoder;
	uint32_t room = 0, i;

	for (i = 0; i < n; i++)
		if (v[i]->prompt.n_tokens + answer_room(b) > room)
			room = v[i]->prompt.n_tokens + answer_room(b);
	if (c->max_position && room > c->max_position)
		room = c->max_position;
	if (n <= b->kv.n_seqs && room <= b->kv.room) {
		vq_kv_reset(&b->kv);
	} else {
		int rc;

		vq_kv_free(&b->kv);
		rc = vq_kv_new(&b->kv, cached_layers(b), n, room, c->layer.n_kv_heads,
			       c->layer.head_dim, b->o->kv, err);
		if (rc < 0)
			return rc;
	}
	for (i = 1; i < n; i++)
		vq_kv_share(&b->kv, i, v[i]->shared);
	return VQ_OK;
}

/* The tokens of a prompt that are its own, from its text and its picture's rows, to h. */
static int embed_own(const struct vq_batcher *b, const struct vq_answering *a, float *h,
		     struct vq_err *err)
{
	const struct vq_config *c = &b->l->model.cfg;
	const int32_t *tokens = a->prompt.tokens;
	const float *image = a->picture ? a->picture->rows : NULL;
	size_t before = 0, own = 0;
	uint32_t i;

	for (i = 0; image && i < a->prompt.n_tokens; i++)
		if (tokens[i] == c->image_token)
			*(i < a->shared ? &before : &own) += 1;
	return vq_decoder_embed(&b->l->model, tokens + a->shared, a->prompt.n_tokens - a->shared,
				image ? image + before * c->projector.out : NULL, own, h, err);
}

/* The rows that go through the decoder: first row of each prompt, and the hidden states before the first layer. */
static int embed(const struct vq_batcher *b, struct vq_answering *const *v, uint32_t n,
		 uint32_t *start, float **h, struct vq_err *err)
{
	size_t d = b->l->model.cfg.decoder.layer.hidden;
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0, start[0] = 0; i < n; i++)
		start[i + 1] = start[i] + v[i]->prompt.n_tokens - v[i]->shared;
	*h = vq_alloc(start[n], d * sizeof(float), err);
	if (!*h)
		return VQ_E_SYS;
	for (i = 0; rc >= 0 && i < n; i++)
		rc = embed_own(b, v[i], *h + start[i] * d, err);
	return rc;
}

/* Prompts from s0 on that go through the layers together; rows: [their number + 1] the first of each. */
static uint32_t part_of(const struct vq_batcher *b, const uint32_t *start, uint32_t n, uint32_t s0,
			uint32_t *rows)
{
	uint32_t i;

	for (i = 0; s0 + i < n; i++) {
		rows[i] = start[s0 + i] - start[s0];
		if (i && b->part && start[s0 + i + 1] - start[s0] > b->part)
			break;
	}
	rows[i] = start[s0 + i] - start[s0];
	return i;
}

/* Rows of prompts, start[n] of them, through the layers; last [n, d] for the last row of each. */
static int through_layers(struct vq_batcher *b, const uint32_t *start, uint32_t n, float *h,
			  float *last, struct vq_err *err)
{
	const struct vq_model *m = &b->l->model;
	size_t d = m->cfg.decoder.layer.hidden;
	uint32_t *rows = vq_alloc((size_t)n + 1, sizeof(*rows), err), s, n_seqs;
	int rc = rows ? VQ_OK : VQ_E_SYS;

	for (s = 0; rc >= 0 && s < n; s += n_seqs) {
		n_seqs = part_of(b, start, n, s, rows);
		vq_kv_begin_at(&b->kv, s);
		rc = vq_decoder_last(m, h + start[s] * d, &(struct vq_batch){n_seqs, rows}, &b->kv,
				     last + s * d, err);
	}
	vq_kv_begin_at(&b->kv, 0);
	vq_free(rows);
	return rc;
}

/* Prompts through the decoder: logits [n, V] that follow each. */
static int prefill(struct vq_batcher *b, struct vq_answering *const *v, uint32_t n, float *logits,
		   struct vq_err *err)
{
	const struct vq_model *m = &b->l->model;
	uint32_t *start = vq_alloc((size_t)n + 1, sizeof(*start), err), i;
	float *last = vq_alloc(n, m->cfg.decoder.layer.hidden * sizeof(float), err), *h = NULL;
	double t0 = vq_now();
	int rc = start && last ? prepare_cache(b, v, n, err) : VQ_E_SYS;

	if (rc >= 0)
		rc = embed(b, v, n, start, &h, err);
	if (rc >= 0)
		rc = through_layers(b, start, n, h, last, err);
	for (i = 0; rc >= 0 && i < n; i++) {
		b->times.prompt_tokens += v[i]->prompt.n_tokens;
		start[i] = i;
	}
	if (rc >= 0)
		rc = vq_decoder_logits(m, last, start, n, logits, err);
	b->times.prefill += vq_now() - t0;
	vq_free(start);
	vq_free(last);
	vq_free(h);
	return rc;
}

/* --- choices --- */

/* The tokens that the first n letters are when an answer starts with one: with a space in front, or as they are.  1, or 0
 * when one of them is more than a token, *bad. */
static int letter_tokens(const struct vq_tokenizer *t, int spaced, uint32_t n, int32_t *tokens,
			 char *bad, struct vq_err *err)
{
	int rc = VQ_OK, all = 1;
	size_t n_ids = 0;
	uint32_t i;

	for (i = 0; rc >= 0 && all && i < n; i++) {
		const char text[2] = {' ', (char)('A' + i)};
		int32_t *ids = NULL;

		rc = vq_tokenizer_encode(t, text + !spaced, 1 + (size_t)spaced, 0, &ids, &n_ids,
					 err);
		all = rc >= 0 && n_ids == 1;
		if (all)
			tokens[i] = ids[0];
		*bad = text[1];
		vq_free(ids);
	}
	return rc < 0 ? rc : all;
}

/* An answer begins with a space, which most tokenizers of bytes do not put themselves, unless the prompt ends in white
 * space.  In a vocabulary too small for that the letters stand alone. */
static int choice_tokens(const struct vq_tokenizer *t, const struct vq_chat *chat, uint32_t n,
			 int32_t *tokens, struct vq_err *err)
{
	size_t end = chat ? strlen(chat->suffix) : 0;
	int found = 0;
	char bad = 'A';

	if (!vq_tokenizer_prefixes(t) && end && !strchr(" \n", chat->suffix[end - 1]))
		found = letter_tokens(t, 1, n, tokens, &bad, err);
	if (found == 0)
		found = letter_tokens(t, 0, n, tokens, &bad, err);
	if (found == 0)
		return vq_fail(err, VQ_E_DATA,
			       "--score: the tokenizer makes several tokens of '%c'", bad);
	return found < 0 ? found : VQ_OK;
}

static int score(struct vq_batcher *b, struct vq_answering *a, const float *logits,
		 struct vq_err *err)
{
	int32_t tokens[VQ_MAX_CHOICES];
	uint32_t i;
	int rc;

	a->n_choices = vq_count_choices(a->ask->text);
	if (a->n_choices == 0)
		return vq_fail(err, VQ_E_DATA,
			       "question '%s': --score wants choices, lines 'A. ...', 'B. ...'",
			       a->ask->id);
	rc = choice_tokens(b->l->tok, b->l->model.cfg.chat, a->n_choices, tokens, err);
	for (i = 0; rc >= 0 && i < a->n_choices; i++) {
		a->log_probs[i] = vq_log_prob(logits, b->l->vocab, tokens[i]);
		if (a->log_probs[i] > a->log_probs[a->best])
			a->best = i;
	}
	vq_str_printf(&a->text, "%c", 'A' + (int)a->best);
	a->finished = 1;
	return rc;
}

/* --- generating --- */

static int32_t choose(const struct vq_batcher *b, const struct vq_answering *a, const float *logits)
{
	char purpose[320];
	struct vq_rng r;

	if (b->o->temperature <= 0)
		return vq_sample_greedy(logits, b->l->vocab);
	/* The draw depends on the question, not on what ran before it. */
	snprintf(purpose, sizeof(purpose), "answer/%.300s", a->ask->id);
	r = vq_rng_new(b->o->seed, purpose);
	return vq_sample(logits, b->l->vocab, b->o->temperature, vq_rng_uniform(r, a->n_tokens));
}

/* Cuts the text at the template's stop word, when it has come. */
static void look_for_stop(const struct vq_config *c, struct vq_answering *a)
{
	char *at = c->chat && c->chat->stop && a->text.s ? strstr(a->text.s, c->chat->stop) : NULL;

	if (at) {
		*at = '\0';
		a->text.n = (size_t)(at - a->text.s);
		a->finished = 1;
	}
}

/* One more token of an answer, from its logits. */
static int extend(struct vq_batcher *b, struct vq_answering *a, const float *logits,
		  struct vq_err *err)
{
	const struct vq_config *c = &b->l->model.cfg;
	uint32_t held = a->prompt.n_tokens + a->n_tokens;
	int32_t token = choose(b, a, logits);

	if (token == c->eos || token == vq_tokenizer_eos(b->l->tok)) {
		a->finished = 1;
	} else {
		a->tokens[a->n_tokens++] = token;
		vq_token_stream_push(&a->stream, b->l->tok, token, &a->text);
		look_for_stop(c, a);
	}
	if (a->n_tokens == b->max_tokens ||
	    (c->decoder.max_position && held + 1 >= c->decoder.max_position))
		a->finished = 1;
	if (a->finished)
		vq_token_stream_end(&a->stream, &a->text);
	if (a->text.failed)
		return vq_fail(err, VQ_E_SYS, "memory: cannot keep an answer");
	return b->on_text ? b->on_text(b->ctx, a, err) : VQ_OK;
}

/* Logits that are no numbers: the weight behind them is named where it can be found. */
static int check(const struct vq_batcher *b, const struct vq_answering *a, const float *logits,
		 struct vq_err *err)
{
	struct vq_err bad = {0};
	int rc = vq_logits_check(logits, b->l->vocab, &bad);

	if (rc >= 0)
		return rc;
	rc = vq_loaded_check(b->l, err);
	return rc < 0 ? rc : vq_fail(err, VQ_E_DATA, "question '%s': %.300s", a->ask->id, bad.text);
}

/* The newest token of every unfinished answer through the decoder: logits [active, V] in their order. */
static int step(struct vq_batcher *b, struct vq_answering *const *v, uint32_t n, uint32_t *start,
		int32_t *tokens, float *h, float *logits, struct vq_err *err)
{
	const struct vq_model *m = &b->l->model;
	struct vq_batch batch = {n, start};
	uint32_t i, active;
	int rc;

	for (i = 0, active = 0; i < n; i++) {
		start[i] = active;
		if (!v[i]->finished)
			tokens[active++] = v[i]->tokens[v[i]->n_tokens - 1];
	}
	start[n] = active;
	rc = vq_decoder_embed(m, tokens, active, NULL, 0, h, err);
	if (rc >= 0)
		rc = vq_decoder_layers(m, h, &batch, &b->kv, err);
	for (i = 0; i < active; i++)
		start[n + 1 + i] = i;
	if (rc >= 0)
		rc = vq_decoder_logits(m, h, start + n + 1, active, logits, err);
	b->times.decoded_tokens += active;
	return rc;
}

static uint32_t count_active(struct vq_answering *const *v, uint32_t n)
{
	uint32_t active = 0, i;

	for (i = 0; i < n; i++)
		active += !v[i]->finished;
	return active;
}

static int decode(struct vq_batcher *b, struct vq_answering *const *v, uint32_t n, float *logits,
		  struct vq_err *err)
{
	size_t vocab = b->l->model.cfg.decoder.vocab;
	uint32_t *start = vq_alloc(2 * (size_t)n + 1, sizeof(*start), err), i, active;
	int32_t *tokens = vq_alloc(n, sizeof(*tokens), err);
	float *h = vq_alloc(n, b->l->model.cfg.decoder.layer.hidden * sizeof(float), err);
	double t0 = vq_now();
	int rc = start && tokens && h ? VQ_OK : VQ_E_SYS;

	while (rc >= 0 && count_active(v, n)) {
		rc = step(b, v, n, start, tokens, h, logits, err);
		for (i = 0, active = 0; rc >= 0 && i < n; i++) {
			if (v[i]->finished)
				continue;
			rc = check(b, v[i], logits + active * vocab, err);
			if (rc >= 0)
				rc = extend(b, v[i], logits + active * vocab, err);
			active++;
		}
	}
	b->times.decode += vq_now() - t0;
	vq_free(start);
	vq_free(tokens);
	vq_free(h);
	return rc;
}

static int first_token(struct vq_batcher *b, struct vq_answering *a, const float *logits,
		       struct vq_err *err)
{
	int rc = check(b, a, logits, err);

	if (rc < 0)
		return rc;
	if (b->o->logits) {
		a->logits = vq_alloc_f32(b->l->vocab, err);
		if (!a->logits)
			return VQ_E_SYS;
		memcpy(a->logits, logits, b->l->vocab * sizeof(float));
	}
	return b->o->score ? score(b, a, logits, err) : extend(b, a, logits, err);
}

int vq_batch_run(struct vq_batcher *b, struct vq_answering *const *v, uint32_t n,
		 struct vq_err *err)
{
	size_t vocab = b->l->model.cfg.decoder.vocab;
	float *logits = vq_alloc(n, vocab * sizeof(float), err);
	uint32_t i;
	int rc = logits ? VQ_OK : VQ_E_SYS;

	for (i = 0; rc >= 0 && i < n; i++) {
		v[i]->tokens = vq_alloc(b->max_tokens, sizeof(int32_t), err);
		if (!v[i]->tokens)
			rc = VQ_E_SYS;
	}
	if (rc >= 0)
		rc = prefill(b, v, n, logits, err);
	for (i = 0; rc >= 0 && i < n; i++)
		rc = first_token(b, v[i], logits + i * vocab, err);
	if (rc >= 0)
		rc = decode(b, v, n, logits, err);
	vq_free(logits);
	return rc;
}
