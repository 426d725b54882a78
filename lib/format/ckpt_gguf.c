/* A GGUF file, or the shards of one, in the words of a Hugging Face folder.
 *
 * What is float already is mapped where it lies.  Blocks of a few bits are made float16, a tensor at a time, in a spool: a
 * block's scale is float16 itself and its codes have 2 to 8 bits, so the half step of float16, 2^-12 of a weight, is far
 * below the step of the codes, 2^-7 of the largest at best; float32 would be exact, and double the disk and the time of
 * every pass over the weights.  Rows of queries and keys, which LLaMA's converters put in pairs, go back to halves through
 * the spool too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format/checkpoint_back.h"
#include "format/ckpt_gguf.h"
#include "format/ggml_block.h"
#include "format/ggml_read.h"

static const struct vq_gguf_arch *const archs[] = {&vq_gguf_llama, &vq_gguf_clip};

#define N_ARCHS (sizeof(archs) / sizeof(archs[0]))

struct gguf {
	struct vq_gguf_model m; /* first: what the architectures get */
	const struct vq_gguf_arch *arch;
};

static int takes(const struct vq_ckpt *c)
{
	return c->fd >= 0 && vq_gguf_is(c->head, c->n_head);
}

/* --- what the architectures share --- */

static int missing(const struct vq_gguf_file *g, const char *name, int rc, struct vq_err *err)
{
	if (rc == 0)
		return vq_fail(err, VQ_E_DATA, "%s: key '%s' is missing", g->path, name);
	return rc < 0 ? rc : VQ_OK;
}

int vq_gguf_need_u32(const struct vq_gguf_file *g, const char *name, uint32_t lo, uint32_t hi,
		     uint32_t *out, struct vq_err *err)
{
	return missing(g, name, vq_gguf_get_u32(g, name, lo, hi, out, err), err);
}

int vq_gguf_need_f64(const struct vq_gguf_file *g, const char *name, double *out,
		     struct vq_err *err)
{
	return missing(g, name, vq_gguf_get_f64(g, name, out, err), err);
}

const char *vq_gguf_layer(const char *name, const char *prefix, uint32_t *layer)
{
	size_t n = strlen(prefix), digits;

	if (strncmp(name, prefix, n) != 0)
		return NULL;
	digits = strspn(name + n, "0123456789");
	if (digits < 1 || digits > 6 || name[n + digits] != '.' || (digits > 1 && name[n] == '0'))
		return NULL;
	*layer = (uint32_t)strtoul(name + n, NULL, 10);
	return name + n + digits + 1;
}

int vq_gguf_translate(const struct vq_gguf_pair *table, const char *name, char *buf, size_t room)
{
	const char *dot = strrchr(name, '.');
	size_t stem = dot ? (size_t)(dot - name) : strlen(name);

	if (!dot || (strcmp(dot, ".weight") != 0 && strcmp(dot, ".bias") != 0)) {
		stem = strlen(name);
		dot = "";
	}
	for (; table->theirs; table++)
		if (strlen(table->theirs) == stem && strncmp(table->theirs, name, stem) == 0) {
			snprintf(buf, room, "%s%s", table->ours, dot);
			return 1;
		}
	return 0;
}

int vq_gguf_refuse_tensor(const struct vq_gguf_entry *e, const char *why, struct vq_err *err)
{
	return vq_fail(err, VQ_E_DATA, "%s: tensor '%s': %s", e->shard->path, e->from->name, why);
}

int vq_gguf_give(struct vq_str *s, char **data, size_t *n, struct vq_err *err)
{
	int rc = s->failed ? vq_fail(err, VQ_E_SYS, "memory: cannot have a tokenizer") : VQ_OK;

	*data = rc == VQ_OK ? vq_alloc(s->n + 1, 1, err) : NULL;
	if (*data) {
		if (s->n)
			memcpy(*data, s->s, s->n);
		(*data)[s->n] = '\0';
		*n = s->n;
	}
	vq_str_free(s);
	return *data ? 1 : VQ_E_SYS;
}

/* --- the architecture --- */

static int choose_arch(struct gguf *g, struct vq_err *err)
{
	const struct vq_gguf_file *f = &g->m.shards[0].file;
	static const char key[] = "general.architecture";
	char *name = NULL, shown[64];
	struct vq_str known = {0};
	size_t i;
	int rc = missing(f, key, vq_gguf_get_text(f, key, &name, err), err);

	for (i = 0; rc == VQ_OK && i < N_ARCHS; i++) {
		vq_str_printf(&known, "%s%s", i ? " or " : "", archs[i]->what);
		if (strcmp(archs[i]->what, name) == 0)
			g->arch = archs[i];
	}
	if (rc == VQ_OK && !g->arch) {
		snprintf(shown, sizeof(shown), "%s", name);
		rc = vq_fail(err, VQ_E_DATA, "%s: key '%s': want %s, got '%s'", f->path, key,
			     known.s ? known.s : "another", shown);
	}
	vq_str_free(&known);
	vq_free(name);
	return rc;
}

/* --- tensors --- */

static enum vq_dtype float_type(uint32_t type)
{
	return type == VQ_GGML_F32    ? VQ_F32
	       : type == VQ_GGML_F16  ? VQ_F16
	       : type == VQ_GGML_BF16 ? VQ_BF16
				      : VQ_BYTES;
}

static int describe(struct vq_gguf_entry *e, struct vq_err *err)
{
	const struct vq_gguf_tensor_info *i = e->from;
	enum vq_dtype type = float_type(i->type);
	char why[160];

	if (type == VQ_BYTES && !vq_ggml_has_values(i->type)) {
		snprintf(why, sizeof(why),
			 "type %s is not supported; want a model in F32, F16, BF16, Q4_0 to Q8_0 "
			 "or Q2_K "
			 "to Q6_K",
			 vq_ggml_layout(i->type)->name);
		return vq_gguf_refuse_tensor(e, why, err);
	}
	e->t.dtype = type == VQ_BYTES ? VQ_F16 : type;
	e->t.n_dims = i->n_dims;
	memcpy(e->t.dims, i->dims, i->n_dims * sizeof(i->dims[0]));
	e->at = (size_t)(i->data - e->shard->map.data);
	e->spooled = type == VQ_BYTES || e->heads != 0;
	if (e->heads && (i->dims[0] % e->heads || i->dims[0] / e->heads % 2))
		return vq_fail(err, VQ_E_DATA, "%s: tensor '%s': want rows of %u heads, got %llu",
			       e->shard->path, i->name, e->heads, (unsigned long long)i->dims[0]);
	return VQ_OK;
}

static int list_tensors(struct gguf *g, struct vq_err *err)
{
	struct vq_gguf_model *m = &g->m;
	size_t i, total = 0;
	uint32_t s;
	int rc = VQ_OK;

	for (s = 0; s < m->n_shards; s++)
		total += m->shards[s].file.n_tensors;
	m->entries = vq_calloc(total, sizeof(*m->entries), err);
	if (!m->entries)
		return VQ_E_SYS;
	for (s = 0; s < m->n_shards; s++)
		for (i = 0; rc >= 0 && i < m->shards[s].file.n_tensors; i++) {
			struct vq_gguf_entry *e = &m->entries[m->n];

			*e = (struct vq_gguf_entry){.from = &m->shards[s].file.tensors[i],
						    .shard = &m->shards[s]};
			rc = g->arch->name(e, m, err);
			if (rc > 0) {
				rc = describe(e, err);
				m->n++;
			}
		}
	return rc < 0 ? rc : VQ_OK;
}

/* The row of the model that row o of the file is: 2 i + j of a head is j head_dim / 2 + i. */
static size_t row_of(const struct vq_gguf_entry *e, size_t o)
{
	size_t dh = e->heads ? e->t.dims[0] / e->heads : 0, in = dh ? o % dh : 0;

	return dh ? o - in + in % 2 * (dh / 2) + in / 2 : o;
}

static int spool_tensor(struct gguf *g, struct vq_gguf_entry *e, struct vq_err *err)
{
	const struct vq_ggml_layout *l = vq_ggml_layout(e->from->type);
	size_t rows = e->t.n_dims > 1 || e->heads ? e->t.dims[0] : 1, from, to, blocks;
	int coded = vq_ggml_has_values(e->from->type), fine = 1, rc;
	void *out;
	size_t r;

	from = e->from->bytes / rows;
	blocks = from / l->bytes;
	to = blocks * l->n * vq_dtype_size(e->t.dtype);
	rc = vq_spool_room(&g->m.spool, rows * to, &out, &e->at, err);
	if (rc < 0)
		return rc;
#pragma omp parallel for schedule(static) reduction(& : fine)
	for (r = 0; r < rows; r++) {
		const uint8_t *p = e->from->data + r * from;
		uint8_t *q = (uint8_t *)out + row_of(e, r) * to;

		if (coded)
			fine &= vq_ggml_halves(e->from->type, p, blocks, (uint16_t *)(void *)q);
		else
			memcpy(q, p, to);
	}
	return fine ? VQ_OK
		    : vq_gguf_refuse_tensor(e, "a weight is beyond float16 (65504), or no number",
					    err);
}

static int spool_all(struct gguf *g, struct vq_err *err)
{
	size_t i;
	int rc = vq_spool_open(&g->m.spool, err);

	for (i = 0; rc == VQ_OK && i < g->m.n; i++)
		if (g->m.entries[i].spooled)
			rc = spool_tensor(g, &g->m.entries[i], err);
	return rc < 0 ? rc : vq_spool_map(&g->m.spool, 0, err);
}

/* Where the data are now: of a tensor that is still to be spooled, nowhere. */
static void place(struct gguf *g)
{
	const uint8_t *base;
	size_t i;

	for (i = 0; i < g->m.n; i++) {
		struct vq_gguf_entry *e = &g->m.entries[i];

		base = e->spooled            ? g->m.spool.map.data
		       : e->shard->copy.data ? e->shard->copy.data
					     : e->shard->map.data;
		e->t.data = base ? base + e->at : NULL;
	}
}

/* --- the back-end --- */

static int hash_config(struct vq_ckpt *c, struct vq_err *err)
{
	char *text = vq_json_text(c->config, err);

	if (!text)
		return VQ_E_SYS;
	vq_sha256_of(text, strlen(text), c->config_sha);
	vq_free(text);
	return VQ_OK;
}

static int make_config(struct vq_ckpt *c, const struct gguf *g, struct vq_err *err)
{
	int rc = g->arch->config(&c->config, &g->m, err);

	return rc == VQ_OK ? hash_config(c, err) : rc;
}

static int open_gguf(struct vq_ckpt *c, struct vq_err *err)
{
	struct gguf *g = vq_calloc(1, sizeof(*g), err);
	int rc;

	if (!g)
		return VQ_E_SYS;
	g->m.spool.fd = -1;
	c->priv = g;
	rc = vq_gguf_open_shards(&g->m, c->path, c->fd, err);
	if (rc >= 0)
		rc = choose_arch(g, err);
	if (rc == VQ_OK)
		rc = make_config(c, g, err);
	if (rc == VQ_OK)
		rc = list_tensors(g, err);
	if (rc == VQ_OK)
		c->slots = vq_calloc(g->m.n ? g->m.n : 1, sizeof(*c->slots), err);
	if (rc < 0 || !c->slots)
		return rc < 0 ? rc : VQ_E_SYS;
	place(g);
	for (; c->n < g->m.n; c->n++)
		c->slots[c->n] = (struct vq_ckpt_slot){.name = g->m.entries[c->n].name,
						       .t = &g->m.entries[c->n].t,
						       .where = g->m.entries[c->n].shard->path};
	return VQ_OK;
}

static int make_ready(struct vq_ckpt *c, struct vq_err *err)
{
	struct gguf *g = c->priv;
	int rc = g->m.spool.fd < 0 ? spool_all(g, err) : VQ_OK;

	if (rc == VQ_OK)
		place(g);
	return rc;
}

static int give_file(const struct vq_ckpt *c, const char *name, char **data, size_t *n,
		     struct vq_err *err)
{
	const struct gguf *g = c->priv;

	return g->arch->file(&g->m, name, data, n, err);
}

/* 1 when a tensor is used where it lies. */
static int in_place(const struct gguf *g, const struct vq_gguf_shard *s)
{
	size_t i;

	for (i = 0; i < g->m.n; i++)
		if (g->m.entries[i].shard == s && !g->m.entries[i].spooled)
			return 1;
	return 0;
}

static int load_gguf(struct vq_ckpt *c, struct vq_err *err)
{
	struct gguf *g = c->priv;
	uint32_t s;
	int rc = VQ_OK;

	for (s = 0; rc == VQ_OK && s < g->m.n_shards; s++) {
		struct vq_gguf_shard *sh = &g->m.shards[s];

		if (!in_place(g, sh))
			continue;
		rc = s ? vq_map_load(&sh->copy, sh->path, VQ_E_DATA, err)
		       : vq_map_fd(&sh->copy, c->fd, sh->map.n, 1, sh->path, err);
		if (rc == VQ_OK && sh->copy.n != sh->map.n)
			rc = vq_fail(err, VQ_E_DATA, "%s: changed while it was read", sh->path);
	}
	if (rc == VQ_OK)
		rc = vq_spool_map(&g->m.spool, 1, err);
	if (rc == VQ_OK)
		place(g);
	return rc;
}

static int lock_gguf(const struct vq_ckpt *c, struct vq_err *err)
{
	const struct gguf *g = c->priv;
	uint32_t s;
	int rc = VQ_OK;

	for (s = 0; rc >= 0 && s < g->m.n_shards; s++) {
		const struct vq_gguf_shard *sh = &g->m.shards[s];
		const struct vq_map *held = sh->copy.data ? &sh->copy : &sh->map;

		if (in_place(g, sh))
			rc = vq_pages_lock(held->data, held->n, err);
	}
	return rc < 0 ? rc : vq_pages_lock(g->m.spool.map.data, g->m.spool.map.n, err);
}

static void close_gguf(struct vq_ckpt *c)
{
	struct gguf *g = c->priv;

	if (!g)
		return;
	vq_gguf_close_shards(&g->m);
	if (g->m.spool.fd >= 0)
		vq_spool_close(&g->m.spool);
	vq_free(g->m.entries);
	vq_free(g);
}

/* --- a vision tower --- */

static int find_tower(const struct vq_ckpt *c, char **path, struct vq_err *err)
{
	const struct gguf *g = c->priv;
	int rc;

	if (g->arch == &vq_gguf_clip)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: a vision tower (mmproj); want the language model with -m, and this "
			"with --vision or beside it",
			c->path);
	rc = path ? vq_gguf_beside(c->path, path, err) : 0;
	return rc < 0 ? rc : 1;
}

/* The projector's width tells whose it is. */
static int check_width(const struct vq_ckpt *c, struct vq_err *err)
{
	static const char *const last[] = {"model.mm_projector.2.weight",
					   "model.mm_projector.weight"};
	const struct vq_tensor *t = vq_ckpt_find(c->part, last[0], NULL);
	json_int_t want = json_integer_value(json_object_get(c->config, "hidden_size"));

	if (!t)
		t = vq_ckpt_find(c->part, last[1], NULL);
	if (!t)
		return vq_fail(err, VQ_E_DATA, "%s: tensor 'mm.0.weight' is missing",
			       c->part->path);
	if (t->dims[0] == (uint64_t)want)
		return VQ_OK;
	return vq_fail(
		err, VQ_E_DATA,
		"%s: want a projector to %lld, the width of %s, got one to %llu; the two are not "
		"of one model (--vision FILE names another, --vision none leaves it out)",
		c->part->path, (long long)want, c->path, (unsigned long long)t->dims[0]);
}

static int join_tower(struct vq_ckpt *c, struct vq_err *err)
{
	const struct gguf *g = c->part->back == &vq_ckpt_gguf ? c->part->priv : NULL;
	int rc;

	if (!g || g->arch != &vq_gguf_clip)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: want a GGUF file with the vision tower and the projector of %s (its "
			"mmproj), got something else",
			c->part->path, c->path);
	rc = check_width(c, err);
	if (rc < 0)
		return rc;
	if (json_object_update(c->config, json_object_get(c->part->config, "llava")) < 0)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have a configuration");
	return hash_config(c, err);
}

const struct vq_ckpt_back vq_ckpt_gguf = {.what = "a GGUF file",
					  .takes = takes,
					  .open = open_gguf,
					  .file = give_file,
					  .load = load_gguf,
					  .lock = lock_gguf,
					  .close = close_gguf,
					  .ready = make_ready,
					  .tower = find_tower,
					  .join = join_tower};
