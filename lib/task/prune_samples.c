/* Samples of a data set or of a text. */
#include "task/prune_samples.h"

#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/rng.h"
#include "task/calib_samples.h"
#include "task/model_head.h"

#define TEXT_LIMIT ((size_t)1 << 30) /* bytes of a text */

int vq_prune_target(const struct vq_prune_samples *s, const struct vq_config *c, uint32_t i,
		    uint32_t t)
{
	const struct vq_prompt *p = &s->prompts[i];

	return t >= s->target[i] && t < p->n_tokens &&
	       !(c->has_vision && p->tokens[t] == c->image_token);
}

uint32_t vq_prune_targets(const struct vq_prune_samples *s, const struct vq_config *c, uint32_t i,
			  int32_t *targets)
{
	const struct vq_prompt *p = &s->prompts[i];
	uint32_t t, asked = 0;

	for (t = 1; t <= p->n_tokens; t++) {
		int wanted = t < p->n_tokens && vq_prune_target(s, c, i, t);

		targets[t - 1] = wanted ? p->tokens[t] : VQ_NO_TARGET;
		asked += (uint32_t)wanted;
	}
	return asked;
}

/* --- a data set, as calibration takes it --- */

/* The answer as the model was taught it: a word of its own after the prompt, and the end token. */
static int add_answer(struct vq_prompt *p, const struct vq_calib *calib, const char *answer,
		      struct vq_err *err)
{
	const struct vq_config *c = &calib->cfg;
	int32_t *ids = NULL;
	size_t n, room;
	int rc = vq_tokenizer_encode(calib->tok, answer, strlen(answer), 0, &ids, &n, err);

	room = p->n_tokens + n + 1;
	if (rc == VQ_OK && room > c->decoder.max_position)
		rc = vq_fail(err, VQ_E_DATA,
			     "with the answer it has %zu tokens, the model reads at "
			     "most %u",
			     room, c->decoder.max_position);
	if (rc == VQ_OK)
		rc = vq_grow((void **)&p->tokens, p->n_tokens, room, sizeof(*p->tokens), err);
	if (rc == VQ_OK) {
		memcpy(p->tokens + p->n_tokens, ids, n * sizeof(*ids));
		p->n_tokens += (uint32_t)n;
		if (c->eos >= 0)
			p->tokens[p->n_tokens++] = c->eos;
	}
	vq_free(ids);
	return rc;
}

static int add_answers(struct vq_prune_samples *s, const struct vq_prune_opts *o,
		       const struct vq_calib *calib, struct vq_err *err)
{
	uint32_t i;
	int rc = VQ_OK;

	s->target = vq_alloc(s->n, sizeof(*s->target), err);
	if (!s->target)
		return VQ_E_SYS;
	for (i = 0; rc == VQ_OK && i < s->n; i++) {
		const struct vq_item *it = &calib->data.items[calib->picks[i]];
		struct vq_err sub = {0};

		s->target[i] = o->answers ? s->prompts[i].n_tokens : 1;
		if (it->label)
			rc = add_answer(&s->prompts[i], calib, it->label, &sub);
		if (rc < 0)
			rc = vq_fail(err, rc, "%s: sample '%s': %s", o->data, it->id, sub.text);
	}
	return rc;
}

static int from_data(struct vq_prune_samples *s, const struct vq_prune_opts *o,
		     const struct vq_ckpt *k, const struct vq_config *c, struct vq_err *err)
{
	struct vq_calib_opts co = {
		.data = o->data, .images = o->images, .n = o->samples, .seed = o->seed};
	struct vq_calib calib = {.o = &co, .ckpt = (struct vq_ckpt *)(uintptr_t)k, .cfg = *c};
	int rc = vq_calib_samples(&calib, err);

	if (rc == VQ_OK) {
		s->prompts = calib.run.prompts;
		s->n = calib.run.n;
		memcpy(s->sha256, calib.data.sha256, sizeof(s->sha256));
		calib.run.prompts = NULL;
		rc = add_answers(s, o, &calib, err);
	}
	vq_calib_samples_free(&calib);
	vq_calib_meta_free(&calib.meta);
	return rc;
}

/* --- a text --- */

struct text {
	char *data;
	size_t n;
	const char **line; /* [n_lines + 1]: where each begins; the last is the end */
	uint32_t n_lines;
	struct vq_tokenizer *tok;
};

static int cut_lines(struct text *t, const char *path, struct vq_err *err)
{
	const char *p = t->data, *end = t->data + t->n;
	size_t lines = 0;

	for (; p < end; p++)
		lines += *p == '\n';
	if (lines > UINT32_MAX - 2)
		return vq_fail(err, VQ_E_DATA, "%s: too many lines", path);
	t->line = vq_alloc(lines + 2, sizeof(*t->line), err);
	if (!t->line)
		return VQ_E_SYS;
	t->line[0] = t->data;
	for (p = t->data; p < end; p++)
		if (*p == '\n')
			t->line[++t->n_lines] = p + 1;
	if (t->line[t->n_lines] < end)
		t->line[++t->n_lines] = end;
	return VQ_OK;
}

/* Tokens of line i without its end. */
static int encode_line(const struct text *t, uint32_t i, int32_t **ids, size_t *n,
		       struct vq_err *err)
{
	const char *from = t->line[i], *to = t->line[i + 1];

	while (to > from && (to[-1] == '\n' || to[-1] == '\r'))
		to--;
	return vq_tokenizer_encode(t->tok, from, (size_t)(to - from), 1, ids, n, err);
}

/* Fisher and Yates: all lines in an order that the seed alone decides. */
static void shuffle(uint32_t *order, uint32_t n, struct vq_rng r)
{
	uint32_t i, k, swap;

	for (i = 0; i < n; i++)
		order[i] = i;
	for (i = n; i > 1; i--) {
		k = (uint32_t)(vq_rng_uniform(r, i) * i);
		swap = order[k];
		order[k] = order[i - 1];
		order[i - 1] = swap;
	}
}

static int take_crop(struct vq_prune_samples *s, const struct vq_prune_opts *o, const int32_t *ids,
		     size_t n, struct vq_err *err)
{
	struct vq_prompt *p = &s->prompts[s->n];
	size_t room = n - o->tokens + 1;
	size_t from = (size_t)(vq_rng_uniform(vq_rng_new(o->seed, "crop"), s->n) * (double)room);

	p->tokens = vq_alloc(o->tokens, sizeof(*p->tokens), err);
	if (!p->tokens)
		return VQ_E_SYS;
	memcpy(p->tokens, ids + from, o->tokens * sizeof(*ids));
	p->n_tokens = o->tokens;
	s->target[s->n++] = 1;
	return VQ_OK;
}

static int take_lines(struct vq_prune_samples *s, const struct vq_prune_opts *o,
		      const struct text *t, struct vq_err *err)
{
	uint32_t *order = vq_alloc((size_t)t->n_lines + 1, sizeof(*order), err), i;
	int rc = order ? VQ_OK : VQ_E_SYS;

	if (order)
		shuffle(order, t->n_lines, vq_rng_new(o->seed, "lines"));
	for (i = 0; rc == VQ_OK && i < t->n_lines && s->n < o->samples; i++) {
		int32_t *ids = NULL;
		size_t n;

		/* A token is a byte at least: most lines are too short without being encoded. */
		if ((size_t)(t->line[order[i] + 1] - t->line[order[i]]) + 2 < o->tokens)
			continue;
		rc = encode_line(t, order[i], &ids, &n, err);
		if (rc == VQ_OK && n >= o->tokens)
			rc = take_crop(s, o, ids, n, err);
		vq_free(ids);
	}
	vq_free(order);
	if (rc == VQ_OK && s->n < o->samples)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want %u lines of at least %u tokens (--samples, --tokens), got "
			       "%u",
			       o->text, o->samples, o->tokens, s->n);
	return rc;
}

static int from_text(struct vq_prune_samples *s, const struct vq_prune_opts *o,
		     const struct vq_ckpt *k, const struct vq_config *c, struct vq_err *err)
{
	struct text t = {0};
	int rc;

	if (o->tokens > c->decoder.max_position)
		return vq_fail(err, VQ_E_USAGE, "--tokens: the model reads at most %u, got %u",
			       c->decoder.max_position, o->tokens);
	rc = vq_file_read(o->text, TEXT_LIMIT, VQ_E_SYS, &t.data, &t.n, err);
	if (rc == VQ_OK)
		vq_sha256_of(t.data, t.n, s->sha256);
	if (rc == VQ_OK)
		rc = cut_lines(&t, o->text, err);
	if (rc == VQ_OK)
		rc = vq_model_tokenizer(&t.tok, c, k, err);
	if (rc == VQ_OK) {
		s->prompts = vq_calloc(o->samples, sizeof(*s->prompts), err);
		s->target = vq_alloc(o->samples, sizeof(*s->target), err);
		rc = s->prompts && s->target ? take_lines(s, o, &t, err) : VQ_E_SYS;
	}
	vq_tokenizer_free(t.tok);
	vq_free(t.line);
	vq_free(t.data);
	return rc;
}

/* --- both --- */

/* Where each begins; there must be something to be asked for. */
static int lay_out(struct vq_prune_samples *s, const struct vq_prune_opts *o,
		   const struct vq_config *c, struct vq_err *err)
{
	uint64_t rows = 0, targets = 0;
	uint32_t i, k;

	s->start = vq_alloc((size_t)s->n + 1, sizeof(*s->start), err);
	if (!s->start)
		return VQ_E_SYS;
	for (i = 0; i < s->n; i++) {
		s->start[i] = (uint32_t)rows;
		rows += s->prompts[i].n_tokens;
		for (k = 0; k < s->prompts[i].n_tokens; k++)
			targets += (uint64_t)vq_prune_target(s, c, i, k);
	}
	if (rows > UINT32_MAX)
		return vq_fail(err, VQ_E_DATA, "the samples have more than %u tokens", UINT32_MAX);
	if (targets == 0)
		return vq_fail(err, VQ_E_DATA, "%s: the samples have no %s",
			       o->data ? o->data : o->text,
			       o->answers ? "answers" : "token after a first one");
	s->start[s->n] = (uint32_t)rows;
	return VQ_OK;
}

int vq_prune_samples_open(struct vq_prune_samples *s, const struct vq_prune_opts *o,
			  const struct vq_ckpt *k, const struct vq_config *c, struct vq_err *err)
{
	int rc;

	memset(s, 0, sizeof(*s));
	rc = o->data ? from_data(s, o, k, c, err) : from_text(s, o, k, c, err);
	return rc < 0 ? rc : lay_out(s, o, c, err);
}

void vq_prune_samples_close(struct vq_prune_samples *s)
{
	uint32_t i;

	for (i = 0; s->prompts && i < s->n; i++)
		vq_prompt_free(&s->prompts[i]);
	vq_free(s->prompts);
	vq_free(s->start);
	vq_free(s->target);
	memset(s, 0, sizeof(*s));
}
