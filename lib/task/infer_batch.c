/* A batch of questions through the model: pictures, prompts, then token by token. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/sampler.h"
#include "task/infer_parts.h"

#define MAX_ROWS    2048u             /* of a batch */
#define MAX_KV      ((size_t)1 << 30) /* bytes of its cache */
#define DATA_TOKENS 16u               /* of an answer to a question of a data set */
#define TALK_TOKENS 256u

/* Bytes of one token: a panel's share. */
static int kv_row(const struct vq_decoder_config *c, enum vq_kv_type type, size_t *bytes)
{
	int rc = vq_kv_bytes(c->n_layers, 1, VQ_KEY_PANEL, c->layer.n_kv_heads, c->layer.head_dim,
			     type, bytes);

	*bytes /= VQ_KEY_PANEL;
	return rc;
}

uint32_t vq_infer_max_tokens(const struct vq_infer *o)
{
	return o->max_tokens ? o->max_tokens : o->question ? TALK_TOKENS : DATA_TOKENS;
}

void vq_batcher_init(struct vq_batcher *b, const struct vq_infer *o, const struct vq_loaded *l)
{
	const struct vq_decoder_config *c = &l->model.cfg.decoder;
	size_t row;

	memset(b, 0, sizeof(*b));
	b->o = o;
	b->l = l;
	b->max_tokens = vq_infer_max_tokens(o);
	b->max_rows = MAX_ROWS;
	if (kv_row(c, o->kv, &row) >= 0 && MAX_KV / row < MAX_ROWS)
		b->max_rows = (uint32_t)(MAX_KV / row);
}

void vq_batcher_free(struct vq_batcher *b)
{
	vq_kv_free(&b->kv);
}

void vq_answering_free(struct vq_answering *a)
{
	vq_prompt_free(&a->prompt);
	vq_free(a->tokens);
	vq_free(a->logits);
	vq_str_free(&a->text);
	memset(a, 0, sizeof(*a));
}

/* --- prompts --- */

/* All pictures of the batch one after the other, so that the tower sees many rows at a time; given. */
static float *gather(const struct vq_config *c, const struct vq_answering *v, uint32_t n,
		     uint32_t pictures, struct vq_err *err)
{
	size_t each = (size_t)3 * c->vision.image_size * c->vision.image_size, at = 0;
	float *pixels = vq_alloc(pictures, each * sizeof(float), err);
	uint32_t i;

	for (i = 0; pixels && i < n; i++) {
		if (v[i].prompt.n_images)
			memcpy(pixels + at, v[i].prompt.pixels,
			       v[i].prompt.n_images * each * sizeof(float));
		at += v[i].prompt.n_images * each;
	}
	return pixels;
}

/* All pictures of the batch -> decoder rows [*n_rows, d]; NULL and *n_rows 0 when there are none. */
static int encode(struct vq_batcher *b, const struct vq_answering *v, uint32_t n, float **rows,
		  size_t *n_rows, struct vq_err *err)
{
	const struct vq_config *c = &b->l->model.cfg;
	size_t each = (size_t)c->n_image_tokens * c->projector.out;
	double t0 = vq_now();
	uint32_t i, pictures = 0;
	float *pixels;
	int rc = VQ_E_SYS;

	*rows = NULL;
	*n_rows = 0;
	for (i = 0; i < n; i++)
		pictures += v[i].prompt.n_images;
	if (pictures == 0)
		return VQ_OK;
	*rows = vq_alloc(pictures, each * sizeof(float), err);
	pixels = *rows ? gather(c, v, n, pictures, err) : NULL;
	if (pixels)
		rc = vq_vision_encode(&b->l->model, pixels, pictures, *rows, err);
	vq_free(pixels);
	*n_rows = (size_t)pictures * c->n_image_tokens;
	b->times.vision += vq_now() - t0;
	b->times.pictures += pictures;
	return rc;
}

/* The tokens of all prompts, one after the other. */
static int32_t *join(const struct vq_answering *v, uint32_t n, uint32_t *start, struct vq_err *err)
{
	int32_t *tokens;
	uint32_t i;

	for (i = 0, start[0] = 0; i < n; i++)
		start[i + 1] = start[i] + v[i].prompt.n_tokens;
	tokens = vq_alloc(start[n], sizeof(*tokens), err);
	for (i = 0; tokens && i < n; i++)
		memcpy(tokens + start[i], v[i].prompt.tokens,
		       v[i].prompt.n_tokens * sizeof(*tokens));
	return tokens;
}

/* Room for the longest prompt and its answer, in a cache that grows but is kept. */
static int prepare_cache(struct vq_batcher *b, const struct vq_answering *v, uint32_t n,
			 struct vq_err *err)
{
	const struct vq_decoder_config *c = &b->l->model.cfg.decoder;
	uint32_t more = b->o->score ? 0 : b->max_tokens, room = 0, i;

	for (i = 0; i < n; i++)
		if (v[i].prompt.n_tokens + more > room)
			room = v[i].prompt.n_tokens + more;
	if (c->max_position && room > c->max_position)
		room = c->max_position;
	if (n <= b->kv.n_seqs && room <= b->kv.room) {
		vq_kv_reset(&b->kv);
		return VQ_OK;
	}
	vq_kv_free(&b->kv);
	return vq_kv_new(&b->kv, c->n_layers, n, room, c->layer.n_kv_heads, c->layer.head_dim,
			 b->o->kv, err);
}

/* Prompts through the decoder: logits [n, V] that follow each. */
static int prefill(struct vq_batcher *b, struct vq_answering *v, uint32_t n, float *logits,
		   struct vq_err *err)
{
	const struct vq_model *m = &b->l->model;
	uint32_t *start = vq_alloc(2 * (size_t)n + 1, sizeof(*start), err), i;
	int32_t *tokens = start ? join(v, n, start, err) : NULL;
	float *image = NULL, *h = NULL;
	struct vq_batch batch = {n, start};
	size_t n_image = 0;
	double t0;
	int rc = VQ_E_SYS;

	if (!tokens)
		goto out;
	rc = encode(b, v, n, &image, &n_image, err);
	if (rc < 0)
		goto out;
	t0 = vq_now();
	h = vq_alloc(start[n], m->cfg.decoder.layer.hidden * sizeof(float), err);
	if (!h) {
		rc = VQ_E_SYS;
		goto out;
	}
	rc = vq_decoder_embed(m, tokens, start[n], image, n_image, h, err);
	if (rc >= 0)
		rc = vq_decoder_layers(m, h, &batch, &b->kv, err);
	for (i = 0; i < n; i++)
		start[n + 1 + i] = start[i + 1] - 1; /* the last row of each */
	if (rc >= 0)
		rc = vq_decoder_logits(m, h, start + n + 1, n, logits, err);
	b->times.prefill += vq_now() - t0;
	b->times.prompt_tokens += start[n];
out:
	vq_free(start);
	vq_free(tokens);
	vq_free(image);
	vq_free(h);
	return rc;
}

/* --- choices --- */

/* The token that a letter is when an answer starts with it. */
static int letter_token(const struct vq_tokenizer *t, char letter, int32_t *token,
			struct vq_err *err)
{
	int32_t *ids = NULL;
	size_t n = 0;
	int rc = vq_tokenizer_encode(t, &letter, 1, 0, &ids, &n, err);

	if (rc >= 0 && n != 1)
		rc = vq_fail(err, VQ_E_DATA, "--score: the tokenizer makes %zu tokens of '%c'", n,
			     letter);
	if (rc >= 0)
		*token = ids[0];
	vq_free(ids);
	return rc;
}

static int score(struct vq_batcher *b, struct vq_answering *a, const float *logits,
		 struct vq_err *err)
{
	int32_t token = 0;
	uint32_t i;
	int rc = VQ_OK;

	a->n_choices = vq_count_choices(a->ask->text);
	if (a->n_choices == 0)
		return vq_fail(err, VQ_E_DATA,
			       "question '%s': --score wants choices, lines 'A. ...', 'B. ...'",
			       a->ask->id);
	for (i = 0; rc >= 0 && i < a->n_choices; i++) {
		rc = letter_token(b->l->tok, (char)('A' + i), &token, err);
		if (rc >= 0)
			a->log_probs[i] = vq_log_prob(logits, b->l->vocab, token);
		if (rc >= 0 && a->log_probs[i] > a->log_probs[a->best])
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
static int step(struct vq_batcher *b, struct vq_answering *v, uint32_t n, uint32_t *start,
		int32_t *tokens, float *h, float *logits, struct vq_err *err)
{
	const struct vq_model *m = &b->l->model;
	struct vq_batch batch = {n, start};
	uint32_t i, active;
	int rc;

	for (i = 0, active = 0; i < n; i++) {
		start[i] = active;
		if (!v[i].finished)
			tokens[active++] = v[i].tokens[v[i].n_tokens - 1];
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

static uint32_t count_active(const struct vq_answering *v, uint32_t n)
{
	uint32_t active = 0, i;

	for (i = 0; i < n; i++)
		active += !v[i].finished;
	return active;
}

static int decode(struct vq_batcher *b, struct vq_answering *v, uint32_t n, float *logits,
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
			if (v[i].finished)
				continue;
			rc = check(b, &v[i], logits + active * vocab, err);
			if (rc >= 0)
				rc = extend(b, &v[i], logits + active * vocab, err);
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

int vq_batch_run(struct vq_batcher *b, struct vq_answering *v, uint32_t n, struct vq_err *err)
{
	size_t vocab = b->l->model.cfg.decoder.vocab;
	float *logits = vq_alloc(n, vocab * sizeof(float), err);
	uint32_t i;
	int rc = logits ? VQ_OK : VQ_E_SYS;

	for (i = 0; rc >= 0 && i < n; i++) {
		v[i].tokens = vq_alloc(b->max_tokens, sizeof(int32_t), err);
		if (!v[i].tokens)
			rc = VQ_E_SYS;
	}
	if (rc >= 0)
		rc = prepare_cache(b, v, n, err);
	if (rc >= 0)
		rc = prefill(b, v, n, logits, err);
	for (i = 0; rc >= 0 && i < n; i++)
		rc = first_token(b, &v[i], logits + i * vocab, err);
	if (rc >= 0)
		rc = decode(b, v, n, logits, err);
	vq_free(logits);
	return rc;
}
