/* The decoder outside its layers: embedding, final norm, head. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model/model.h"

/* One row of a packed embedding.  The scales of a mapped file have not been looked at before. */
static int packed_row(const struct vq_packed *e, uint32_t row, float *out, struct vq_err *err)
{
	uint32_t n;

	vq_packed_row(e, row, out);
	for (n = 0; n < e->n_in; n++)
		if (!isfinite(out[n]))
			return vq_fail(err, VQ_E_DATA,
				       "the embedding of token %u has a scale that is no number",
				       row);
	return VQ_OK;
}

int vq_decoder_embed(const struct vq_model *m, const int32_t *tokens, size_t n, const float *image,
		     size_t n_image_rows, float *h, struct vq_err *err)
{
	uint32_t d = m->cfg.decoder.layer.hidden, vocab = m->cfg.decoder.vocab;
	struct vq_tensor e = {m->decoder.embed_type, 2, {vocab, d}, m->decoder.embed};
	const struct vq_packed *packed = m->decoder.embed_packed;
	size_t i, used = 0;
	int rc = VQ_OK;

	if (!m->decoder.embed && !packed)
		return vq_fail(err, VQ_E_DATA, "the decoder's embedding is missing");
	for (i = 0; rc >= 0 && i < n; i++) {
		if (tokens[i] == m->cfg.image_token && m->cfg.has_vision) {
			if (used < n_image_rows)
				memcpy(h + i * d, image + used * d, d * sizeof(float));
			used++;
		} else if (tokens[i] < 0 || (uint32_t)tokens[i] >= vocab) {
			rc = vq_fail(err, VQ_E_DATA, "token %d at %zu: want 0..%u", tokens[i], i,
				     vocab - 1);
		} else if (packed) {
			rc = packed_row(packed, (uint32_t)tokens[i], h + i * d, err);
		} else {
			rc = vq_tensor_to_f32(&e, (size_t)tokens[i] * d, d, h + i * d, err);
		}
	}
	if (rc >= 0 && used != n_image_rows)
		rc = vq_fail(err, VQ_E_DATA,
			     "%zu image tokens in the prompt, %zu rows from its pictures", used,
			     n_image_rows);
	return rc;
}

/* A cache of one layer serves all of them in turn: each fills it for itself alone. */
static struct vq_kv_layer *cache_of(const struct vq_model *m, struct vq_kv *kv, uint32_t layer)
{
	if (!kv)
		return NULL;
	return &kv->layers[kv->n_layers < m->cfg.decoder.n_layers ? 0 : layer];
}

/* What the cache holds now; nothing where it kept one layer of all. */
static void advance(const struct vq_model *m, const struct vq_batch *b, struct vq_kv *kv)
{
	uint32_t i, s;

	for (i = 0; kv && i < b->n_seqs; i++) {
		s = kv->first + i;
		if (kv->n_layers == m->cfg.decoder.n_layers)
			kv->n[s] += kv->shared[s] + b->start[i + 1] - b->start[i];
		kv->shared[s] = 0;
	}
}

static int all_layers(const struct vq_model *m, float *h, const struct vq_batch *b,
		      struct vq_kv *kv, struct vq_err *err)
{
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0; rc >= 0 && i < m->cfg.decoder.n_layers; i++)
		rc = vq_layer_forward(&m->decoder.layers[i], h, b, cache_of(m, kv, i), err);
	if (rc >= 0)
		advance(m, b, kv);
	return rc;
}

/* Whether rows depend on others of their sequence through the capacity of experts. */
static int drops(const struct vq_model *m)
{
	return m->cfg.decoder.moe.top_k && m->decoder.gating.drop;
}

/* A long prompt that is alone goes through all layers in parts, since what a layer makes of 2,048 rows at a time would
 * be a sixteenth of a packed 7B model.  *h and *b become its last part; no row depends on the cuts. */
#define PART 512u /* rows */

struct part {
	uint32_t start[2];
	struct vq_batch b;
};

static int first_parts(const struct vq_model *m, float **h, const struct vq_batch **b,
		       struct part *p, struct vq_kv *kv, struct vq_err *err)
{
	uint32_t rows = (*b)->n_seqs == 1 ? (*b)->start[1] : 0;
	int rc = VQ_OK;

	if (drops(m) || rows <= PART || !kv || kv->n_layers < m->cfg.decoder.n_layers ||
	    kv->shared[kv->first])
		return VQ_OK;
	*p = (struct part){.b = {1, p->start}};
	for (; rc >= 0 && rows > PART; rows -= PART) {
		p->start[1] = PART;
		rc = all_layers(m, *h, &p->b, kv, err);
		*h += (size_t)PART * m->cfg.decoder.layer.hidden;
	}
	p->start[1] = rows;
	*b = &p->b;
	return rc;
}

int vq_decoder_layers(const struct vq_model *m, float *h, const struct vq_batch *b,
		      struct vq_kv *kv, struct vq_err *err)
{
	struct part p;
	int rc = first_parts(m, &h, &b, &p, kv, err);

	return rc < 0 ? rc : all_layers(m, h, b, kv, err);
}

static int last_of_all(const struct vq_model *m, float *h, const struct vq_batch *b,
		       struct vq_kv *kv, float *last, struct vq_err *err)
{
	uint32_t d = m->cfg.decoder.layer.hidden, s;
	int rc = all_layers(m, h, b, kv, err);

	for (s = 0; rc >= 0 && s < b->n_seqs; s++) {
		if (b->start[s + 1] == b->start[s])
			return vq_fail(err, VQ_E_DATA, "sequence %u has no last row", s);
		memcpy(last + (size_t)s * d, h + (size_t)(b->start[s + 1] - 1) * d,
		       d * sizeof(float));
	}
	return rc;
}

int vq_decoder_last(const struct vq_model *m, float *h, const struct vq_batch *b, struct vq_kv *kv,
		    float *last, struct vq_err *err)
{
	uint32_t i, end = m->cfg.decoder.n_layers - 1;
	struct part p;
	int rc = first_parts(m, &h, &b, &p, kv, err);

	if (drops(m))
		return rc < 0 ? rc : last_of_all(m, h, b, kv, last, err);

	for (i = 0; rc >= 0 && i < end; i++)
		rc = vq_layer_forward(&m->decoder.layers[i], h, b, cache_of(m, kv, i), err);
	if (rc >= 0)
		rc = vq_layer_last(&m->decoder.layers[end], h, b, cache_of(m, kv, end), last, err);
	if (rc >= 0)
		advance(m, b, kv);
	return rc;
}

int vq_decoder_logits(const struct vq_model *m, const float *h, const uint32_t *rows,
		      uint32_t n_rows, float *logits, struct vq_err *err)
{
	const struct vq_layer_config *c = &m->cfg.decoder.layer;
	uint32_t d = c->hidden, i;
	float *x = vq_alloc((size_t)n_rows * d, sizeof(float), err);
	int rc;

	if (!x)
		return VQ_E_SYS;
	if (!m->decoder.norm || (c->norm == VQ_NORM_LAYER && !m->decoder.norm_b)) {
		vq_free(x);
		return vq_fail(err, VQ_E_DATA, "the decoder's final norm is missing");
	}
	for (i = 0; i < n_rows; i++)
		vq_layer_norm(c, h + (size_t)rows[i] * d, 1, m->decoder.norm, m->decoder.norm_b,
			      x + (size_t)i * d);
	rc = vq_linear_one(&m->decoder.head, x, n_rows, logits, err);
	vq_free(x);
	return rc;
}
