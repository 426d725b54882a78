/* A real language model, stories260K of llama2.c (grouped-query attention, feed-forward width 172), through the real
 * tools.  It is calibrated and judged on stories that its float32 self tells.
 *
 *   stories stream DIR > X.vqs      the model stream; calibration inputs are stories of seed 1
 *   stories ppl DIR [M.vqm]         stories, tokens and perplexity on stories of seed 2, in float32 or by a packed
 *                                   model, tab-separated
 *   stories tell DIR                the story that float32 tells when it takes the likeliest token each time
 *
 * DIR is stories260k of the public data. */
#include <math.h>

#include "base/rng.h"
#include "base/sha256.h"
#include "kernel/blas.h"
#include "model/sampler.h"
#include "real.h"
#include "task/model_head.h"

#define BOS     1
#define CALIB   48u /* stories */
#define JUDGED  96u
#define CONTEXT 256u /* tokens a story, at most */

/* --- weights --- */

struct file {
	struct real r;
	struct vq_ckpt *ckpt;
};

static void file_open(struct file *f, const char *dir)
{
	char *path = got(vq_path_join(dir, "stories260K.bin", &err));
	struct vq_config c;
	size_t i, n;

	must(vq_ckpt_open(&f->ckpt, path, &err));
	must(vq_config_from_ckpt(&c, f->ckpt, NULL, &err));
	real_new(&f->r, &c);
	for (i = 0; i < f->r.n; i++) {
		float *to = real_at(&f->r, f->r.names[i].name, &n);
		struct vq_tensor t;

		must(vq_names_find(&c, f->ckpt, &f->r.names[i], &t, &err));
		must(vq_tensor_to_f32(&t, 0, n, to, &err));
	}
	vq_free(path);
}

static void file_close(struct file *f)
{
	real_free(&f->r);
	vq_ckpt_close(f->ckpt);
}

/* --- stories --- */

struct stories {
	uint32_t n, *length; /* [n] tokens, the first of which is BOS */
	int32_t *token;      /* [n, CONTEXT] */
	size_t n_tokens;
};

/* The next tokens of the stories that go on: each is drawn from the model's distribution, as it is at
 * temperature 1. */
static void tell(struct stories *s, const struct vq_model *m, struct vq_kv *kv, uint64_t seed,
		 double temperature, uint32_t *start, float *h, float *logits)
{
	struct vq_rng r = vq_rng_new(seed, "stories");
	uint32_t d = m->cfg.decoder.layer.hidden, vocab = m->cfg.decoder.vocab, at, i, k;
	struct vq_batch b = {s->n, start};

	for (at = 0; at + 1 < CONTEXT; at++) {
		for (i = 0, start[0] = 0; i < s->n; i++) {
			int on = s->length[i] == at + 1;

			if (on)
				must(vq_decoder_embed(m, &s->token[i * CONTEXT + at], 1, NULL, 0,
						      h + (size_t)start[i] * d, &err));
			start[i + 1] = start[i] + (on ? 1 : 0);
		}
		if (start[s->n] == 0)
			break;
		must(vq_decoder_layers(m, h, &b, kv, &err));
		for (i = 0; i < s->n; i++) {
			int32_t next;

			k = start[i];
			if (start[i + 1] == k)
				continue;
			must(vq_decoder_logits(m, h, &k, 1, logits, &err));
			next = vq_sample(logits, vocab, temperature,
					 vq_rng_uniform(r, (uint64_t)i * CONTEXT + at));
			if (next != BOS) /* which ends a story */
				s->token[i * CONTEXT + s->length[i]++] = next;
		}
	}
}

static void stories_new(struct stories *s, const struct file *f, uint32_t n, uint64_t seed,
			double temperature)
{
	const struct vq_config *c = &f->r.cfg;
	uint32_t i;
	struct runner x;
	struct vq_kv kv;
	uint32_t *start = got(vq_alloc(n + 1, sizeof(*start), &err));
	float *h = got(vq_alloc_f32((size_t)n * c->decoder.layer.hidden, &err));
	float *logits = got(vq_alloc_f32(c->decoder.vocab, &err));

	s->n = n;
	s->length = got(vq_alloc(n, sizeof(*s->length), &err));
	s->token = got(vq_alloc((size_t)n * CONTEXT, sizeof(*s->token), &err));
	for (i = 0; i < n; i++) {
		s->length[i] = 1;
		s->token[i * CONTEXT] = BOS;
	}
	runner_open(&x, &f->r, NULL);
	must(vq_kv_new(&kv, c->decoder.n_layers, n, CONTEXT, c->decoder.layer.n_kv_heads,
		       c->decoder.layer.head_dim, VQ_KV_F32, &err));
	tell(s, &x.m, &kv, seed, temperature, start, h, logits);
	for (i = 0, s->n_tokens = 0; i < n; i++)
		s->n_tokens += s->length[i];
	vq_kv_free(&kv);
	runner_close(&x);
	vq_free(start);
	vq_free(h);
	vq_free(logits);
}

static void stories_free(struct stories *s)
{
	vq_free(s->length);
	vq_free(s->token);
}

/* --- the two commands --- */

static void put_stream(const char *dir)
{
	struct file f;
	struct stories s;
	struct sha256_ctx sum;
	struct vq_writer *w;
	uint32_t i;

	file_open(&f, dir);
	stories_new(&s, &f, CALIB, 1, 1);
	w = stream_open("stories", "stories260K", vq_ckpt_path(f.ckpt));
	sha256_init(&sum);
	for (i = 0; i < s.n; i++)
		sha256_update(&sum, s.length[i] * sizeof(int32_t),
			      (const uint8_t *)(s.token + (size_t)i * CONTEXT));
	stream_meta(w, &f.r.cfg, s.n, s.n_tokens, &sum);
	for (i = 0; i < s.n; i++) {
		struct vq_tensor t = {VQ_I32, 1, {s.length[i]}, s.token + (size_t)i * CONTEXT};

		stream_input(w, i, "tokens", &t);
	}
	stream_close(w, &f.r);
	stories_free(&s);
	file_close(&f);
}

/* Minus the sum of log p of the tokens 1.. of a story. */
static double surprise(const struct vq_model *m, const int32_t *token, uint32_t n)
{
	uint32_t start[2] = {0, n}, rows[CONTEXT], i;
	struct vq_batch b = {1, start};
	float *h = got(vq_alloc_f32((size_t)n * m->cfg.decoder.layer.hidden, &err));
	float *logits = got(vq_alloc_f32((size_t)n * m->cfg.decoder.vocab, &err));
	double sum = 0;

	for (i = 0; i < n; i++)
		rows[i] = i;
	must(vq_decoder_embed(m, token, n, NULL, 0, h, &err));
	must(vq_decoder_layers(m, h, &b, NULL, &err));
	must(vq_decoder_logits(m, h, rows, n, logits, &err));
	for (i = 0; i + 1 < n; i++)
		sum -= vq_log_prob(logits + (size_t)i * m->cfg.decoder.vocab, m->cfg.decoder.vocab,
				   token[i + 1]);
	vq_free(h);
	vq_free(logits);
	return sum;
}

static void put_ppl(const char *dir, const char *vqm)
{
	struct file f;
	struct stories s;
	struct runner x;
	double sum = 0;
	uint32_t i;

	file_open(&f, dir);
	stories_new(&s, &f, JUDGED, 2, 1);
	runner_open(&x, &f.r, vqm);
	for (i = 0; i < s.n; i++)
		sum += surprise(&x.m, s.token + (size_t)i * CONTEXT, s.length[i]);
	printf("%u\t%zu\t%.4f\n", s.n, s.n_tokens, exp(sum / (double)(s.n_tokens - s.n)));
	runner_close(&x);
	stories_free(&s);
	file_close(&f);
}

static void put_story(const char *dir)
{
	const double greedy = 1e-6; /* a temperature at which no other token is ever drawn */
	struct file f;
	struct stories s;
	struct vq_tokenizer *tok = NULL;
	char *text;

	file_open(&f, dir);
	stories_new(&s, &f, 1, 0, greedy);
	must(vq_model_tokenizer(&tok, &f.r.cfg, f.ckpt, &err));
	text = got(vq_tokenizer_decode(tok, s.token + 1, s.length[0] - 1, &err));
	puts(text);
	vq_free(text);
	vq_tokenizer_free(tok);
	stories_free(&s);
	file_close(&f);
}

int main(int argc, char **argv)
{
	vq_log_setup("stories", 1);
	vq_threads_setup(1); /* the products are too small for more */
	if (argc == 3 && strcmp(argv[1], "stream") == 0)
		put_stream(argv[2]);
	else if (argc == 3 && strcmp(argv[1], "tell") == 0)
		put_story(argv[2]);
	else if ((argc == 3 || argc == 4) && strcmp(argv[1], "ppl") == 0)
		put_ppl(argv[2], argv[3]);
	else {
		fputs("usage: stories stream DIR | ppl DIR [M.vqm] | tell DIR\n", stderr);
		return 2;
	}
	return 0;
}
