/* A checkpoint of llama2.c (github.com/karpathy/llama2.c), version 0 of its export, in the words of a Hugging Face folder.
 *
 *   int32 dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab, seq_len      vocab < 0: the head is not the embedding
 *   float32 embedding [vocab, dim], attention norms [n_layers, dim], wq, wk, wv, wo [n_layers, out, in],
 *           feed-forward norms [n_layers, dim], w1 (gate), w2 (down), w3 (up) [n_layers, out, in], norm [dim],
 *           cos and sin of the rotary embedding [seq_len, head_dim / 2] each, head [vocab, dim] if it is not the embedding
 *
 * llama2.c rotates neighbours, we rotate halves: row 2 i + j of a head of wq and wk becomes row j head_dim / 2 + i, in a
 * spool.  The tokenizer lies beside the file (format/ckpt_llama2c_tok.c). */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/spool.h"
#include "format/checkpoint_back.h"
#include "format/ckpt_llama2c.h"

#define HEADER_BYTES (7 * sizeof(int32_t))

/* Bounds of what the first bytes of a file may say; other formats begin otherwise. */
#define MAX_DIM    (1 << 16)
#define MAX_LAYERS 1024
#define MAX_VOCAB  (1 << 24)

struct shape {
	uint32_t dim, hidden, n_layers, n_heads, n_kv, vocab, seq_len;
	int tied;
};

struct entry {
	char name[64];
	struct vq_tensor t;
	size_t at; /* of its data, in the file or in the spool */
	int spooled;
};

struct llama2c {
	struct shape s;
	struct vq_map map;
	struct vq_spool spool;
	struct entry *entries;
	size_t n, at; /* at: bytes of the file that are accounted for */
};

static int between(int32_t v, int32_t max)
{
	return v >= 1 && v <= max;
}

/* 1 when the header is one that llama2.c may have written. */
static int parse_shape(const struct vq_ckpt *c, struct shape *s)
{
	int32_t h[7], vocab;

	if (c->n_head < sizeof(h))
		return 0;
	memcpy(h, c->head, sizeof(h));
	if (h[5] == INT32_MIN)
		return 0;
	vocab = h[5] < 0 ? -h[5] : h[5];
	if (!between(h[0], MAX_DIM) || !between(h[1], 8 * MAX_DIM) || !between(h[2], MAX_LAYERS) ||
	    !between(h[3], h[0]) || !between(h[4], h[3]) || !between(vocab, MAX_VOCAB) ||
	    !between(h[6], MAX_VOCAB) || h[0] % h[3] || h[3] % h[4] || h[0] / h[3] % 2)
		return 0;
	*s = (struct shape){(uint32_t)h[0], (uint32_t)h[1],  (uint32_t)h[2], (uint32_t)h[3],
			    (uint32_t)h[4], (uint32_t)vocab, (uint32_t)h[6], h[5] > 0};
	return 1;
}

static int takes(const struct vq_ckpt *c)
{
	struct shape s;
	struct stat st;

	return c->fd >= 0 && fstat(c->fd, &st) == 0 && S_ISREG(st.st_mode) && parse_shape(c, &s);
}

/* --- the tensors --- */

/* The next tensor of the file. */
static void add(struct llama2c *l, const char *name, uint64_t rows, uint64_t columns)
{
	struct entry *e = &l->entries[l->n++];

	snprintf(e->name, sizeof(e->name), "%s", name);
	e->t = (struct vq_tensor){
		.dtype = VQ_F32, .n_dims = columns ? 2 : 1, .dims = {rows, columns}};
	e->at = l->at;
	l->at += rows * (columns ? columns : 1) * sizeof(float);
}

/* One of every layer, which the file has one after the other. */
static void add_layers(struct llama2c *l, const char *name, uint64_t rows, uint64_t columns)
{
	char full[64];
	uint32_t i;

	for (i = 0; i < l->s.n_layers; i++) {
		snprintf(full, sizeof(full), "model.layers.%u.%s.weight", i, name);
		add(l, full, rows, columns);
	}
}

static int list_tensors(struct llama2c *l, struct vq_err *err)
{
	const struct shape *s = &l->s;
	uint64_t head_dim = s->dim / s->n_heads, kv = s->n_kv * head_dim;

	l->entries = vq_calloc(9 * (size_t)s->n_layers + 3, sizeof(*l->entries), err);
	if (!l->entries)
		return VQ_E_SYS;
	l->at = HEADER_BYTES;
	add(l, "model.embed_tokens.weight", s->vocab, s->dim);
	add_layers(l, "input_layernorm", s->dim, 0);
	add_layers(l, "self_attn.q_proj", s->dim, s->dim);
	add_layers(l, "self_attn.k_proj", kv, s->dim);
	add_layers(l, "self_attn.v_proj", kv, s->dim);
	add_layers(l, "self_attn.o_proj", s->dim, s->dim);
	add_layers(l, "post_attention_layernorm", s->dim, 0);
	add_layers(l, "mlp.gate_proj", s->hidden, s->dim);
	add_layers(l, "mlp.down_proj", s->dim, s->hidden);
	add_layers(l, "mlp.up_proj", s->hidden, s->dim);
	add(l, "model.norm.weight", s->dim, 0);
	l->at += 2 * s->seq_len * (head_dim / 2) * sizeof(float);
	if (!s->tied)
		add(l, "lm_head.weight", s->vocab, s->dim);
	return VQ_OK;
}

/* Rows of halves instead of rows of neighbours, from the map into the spool. */
static int split_pairs(struct llama2c *l, struct entry *e, struct vq_err *err)
{
	size_t head_dim = l->s.dim / l->s.n_heads, half = head_dim / 2;
	size_t row, bytes = e->t.dims[1] * sizeof(float);
	const uint8_t *from = l->map.data + e->at;
	void *to;
	int rc = vq_spool_room(&l->spool, e->t.dims[0] * bytes, &to, &e->at, err);

	if (rc < 0)
		return rc;
	e->spooled = 1;
	for (row = 0; row < e->t.dims[0]; row++) {
		size_t in = row % head_dim, head = row - in;

		memcpy((uint8_t *)to + (head + in % 2 * half + in / 2) * bytes, from + row * bytes,
		       bytes);
	}
	return VQ_OK;
}

static int split_all(struct llama2c *l, struct vq_err *err)
{
	size_t i;
	int rc = vq_spool_open(&l->spool, err);

	for (i = 0; rc == VQ_OK && i < l->n; i++)
		if (strstr(l->entries[i].name, "q_proj") || strstr(l->entries[i].name, "k_proj"))
			rc = split_pairs(l, &l->entries[i], err);
	return rc < 0 ? rc : vq_spool_map(&l->spool, 0, err);
}

static void place(struct llama2c *l)
{
	size_t i;

	for (i = 0; i < l->n; i++) {
		struct entry *e = &l->entries[i];

		e->t.data = (e->spooled ? l->spool.map.data : l->map.data) + e->at;
	}
}

/* --- the back-end --- */

static int make_config(struct vq_ckpt *c, struct vq_err *err)
{
	const struct shape *s = &((const struct llama2c *)c->priv)->s;
	char *text;

	c->config = json_pack(
		"{s:s, s:[s], s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:b, s:i, s:i}",
		"model_type", "llama", "architectures", "LlamaForCausalLM", "hidden_size",
		(json_int_t)s->dim, "intermediate_size", (json_int_t)s->hidden, "num_hidden_layers",
		(json_int_t)s->n_layers, "num_attention_heads", (json_int_t)s->n_heads,
		"num_key_value_heads", (json_int_t)s->n_kv, "vocab_size", (json_int_t)s->vocab,
		"max_position_embeddings", (json_int_t)s->seq_len, "rms_norm_eps", 1e-5,
		"rope_theta", 10000.0, "tie_word_embeddings", s->tied, "bos_token_id",
		VQ_LLAMA2C_BOS, "eos_token_id", VQ_LLAMA2C_EOS);
	text = c->config ? vq_json_text(c->config, err) : NULL;
	if (!text)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have a configuration");
	vq_sha256_of(text, strlen(text), c->config_sha);
	vq_free(text);
	return VQ_OK;
}

static int check_size(const struct vq_ckpt *c, const struct llama2c *l, struct vq_err *err)
{
	struct stat st;

	if (fstat(c->fd, &st) < 0)
		return vq_fail_errno(err, VQ_E_SYS, "%s: cannot read", c->path);
	if ((uint64_t)st.st_size == l->at)
		return VQ_OK;
	return vq_fail(err, VQ_E_DATA,
		       "%s: as a checkpoint of llama2.c (version 0) its header wants %zu bytes, "
		       "got %lld",
		       c->path, l->at, (long long)st.st_size);
}

static int open_llama2c(struct vq_ckpt *c, struct vq_err *err)
{
	struct llama2c *l = vq_calloc(1, sizeof(*l), err);
	size_t i;
	int rc;

	if (!l)
		return VQ_E_SYS;
	l->spool.fd = -1;
	c->priv = l;
	(void)!parse_shape(c, &l->s); /* takes said that it is one */
	rc = list_tensors(l, err);
	if (rc == VQ_OK)
		rc = check_size(c, l, err);
	if (rc == VQ_OK)
		rc = vq_map_fd(&l->map, c->fd, l->at, 0, c->path, err);
	if (rc == VQ_OK)
		rc = split_all(l, err);
	if (rc == VQ_OK)
		rc = make_config(c, err);
	if (rc == VQ_OK)
		c->slots = vq_calloc(l->n, sizeof(*c->slots), err);
	if (rc < 0 || !c->slots)
		return rc < 0 ? rc : VQ_E_SYS;
	place(l);
	for (c->n = 0; c->n < l->n; c->n++) {
		i = c->n;
		c->slots[i] = (struct vq_ckpt_slot){
			.name = l->entries[i].name, .t = &l->entries[i].t, .where = c->path};
	}
	return VQ_OK;
}

static int give_file(const struct vq_ckpt *c, const char *name, char **data, size_t *n,
		     struct vq_err *err)
{
	const struct llama2c *l = c->priv;

	return vq_llama2c_file(c->path, l->s.vocab, name, data, n, err);
}

static int load_llama2c(struct vq_ckpt *c, struct vq_err *err)
{
	struct llama2c *l = c->priv;
	struct vq_map loaded;
	int rc = vq_map_fd(&loaded, c->fd, l->at, 1, c->path, err);

	if (rc < 0)
		return rc;
	vq_map_close(&l->map);
	l->map = loaded;
	rc = vq_spool_map(&l->spool, 1, err);
	if (rc == VQ_OK)
		place(l);
	return rc;
}

static int lock_llama2c(const struct vq_ckpt *c, struct vq_err *err)
{
	const struct llama2c *l = c->priv;
	int rc = vq_pages_lock(l->map.data, l->map.n, err);

	return rc < 0 ? rc : vq_pages_lock(l->spool.map.data, l->spool.map.n, err);
}

static void close_llama2c(struct vq_ckpt *c)
{
	struct llama2c *l = c->priv;

	if (!l)
		return;
	vq_spool_close(&l->spool);
	vq_map_close(&l->map);
	vq_free(l->entries);
	vq_free(l);
}

const struct vq_ckpt_back vq_ckpt_llama2c = {.what = "a checkpoint of llama2.c",
					     .takes = takes,
					     .open = open_llama2c,
					     .file = give_file,
					     .load = load_llama2c,
					     .lock = lock_llama2c,
					     .close = close_llama2c};
