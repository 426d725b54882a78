/* A model's tensors and their places: the one table from canonical names to fields. */
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/names.h"

/* A block, mostly a float32 copy, and the unit it goes with. */
struct owned {
	void *data;
	uint32_t unit;
};

struct vq_model_priv {
	struct owned *owned;
	size_t n, room;
};

/* Where a tensor goes: exactly one of copy, lin, embed is set. */
struct place {
	uint32_t unit;
	const float **copy; /* a float32 field; for a bias, that of its linear */
	struct vq_linear *lin;
	int embed;
	uint64_t rows, cols; /* what the configuration asks for; cols 0: a vector of rows */
};

static struct place vector(uint32_t unit, const float **field, uint64_t n)
{
	return (struct place){.unit = unit, .copy = field, .rows = n};
}

/* "q_proj.weight" and the like below a linear. */
static int linear_field(struct place *p, struct vq_linear *l, uint32_t unit, const char *rest)
{
	if (l->n_out == 0)
		return 0;
	if (strcmp(rest, "bias") == 0) {
		*p = vector(unit, &l->bias, l->n_out);
		return 1;
	}
	if (strcmp(rest, "weight") != 0)
		return 0;
	*p = (struct place){.unit = unit, .lin = l, .rows = l->n_out, .cols = l->n_in};
	return 1;
}

/* "N.rest" after a prefix: the number, and *rest; -1 when it is not below n. */
static long index_of(const char *s, uint32_t n, const char **rest)
{
	char *end;
	unsigned long i;

	if (s[0] < '0' || s[0] > '9')
		return -1;
	i = strtoul(s, &end, 10);
	if (*end != '.' || i >= n)
		return -1;
	*rest = end + 1;
	return (long)i;
}

static int layer_field(struct place *p, struct vq_layer *l, uint32_t unit, const char *rest)
{
	const struct {
		const char *name;
		const float **field;
	} norms[] = {{"norm1.weight", &l->norm1_w},
		     {"norm1.bias", &l->norm1_b},
		     {"norm2.weight", &l->norm2_w},
		     {"norm2.bias", &l->norm2_b}};
	size_t i;
	long e = -1;

	for (i = 0; i < 4; i++)
		if (strcmp(rest, norms[i].name) == 0) {
			*p = vector(unit, norms[i].field, l->cfg->hidden);
			return (l->cfg->norm == VQ_NORM_LAYER || i % 2 == 0) &&
			       (!l->cfg->parallel || i < 2);
		}
	if (l->n_experts && strcmp(rest, "router.weight") == 0) {
		*p = (struct place){.unit = unit,
				    .copy = &l->router,
				    .rows = l->n_experts,
				    .cols = l->cfg->hidden};
		return 1;
	}
	if (strncmp(rest, "experts.", 8) == 0) {
		e = index_of(rest + 8, l->n_experts, &rest);
		if (e < 0)
			return 0;
	}
	for (i = e < 0 ? 0 : VQ_LIN_UP; i < VQ_N_LINEARS; i++) {
		size_t n = strlen(vq_lin_name((enum vq_lin)i));
		struct vq_linear *m =
			e < 0 ? &l->lin[i] : vq_layer_linear(l, (enum vq_lin)i, (uint32_t)e);

		if (strncmp(rest, vq_lin_name((enum vq_lin)i), n) == 0 && rest[n] == '.')
			return linear_field(p, m, unit, rest + n + 1);
	}
	return 0;
}

static int vision_field(struct place *p, struct vq_model *m, const char *name)
{
	const struct vq_vision_config *c = &m->cfg.vision;
	uint32_t hidden = c->layer.hidden;
	struct vq_vision *v = &m->vision;
	const char *rest = NULL;
	long i;

	if (strncmp(name, "layers.", 7) == 0) {
		i = index_of(name + 7, c->n_layers, &rest);
		return i >= 0 && layer_field(p, &v->layers[i], (uint32_t)i, rest);
	}
	if (strcmp(name, "class_embed") == 0 && c->has_class)
		*p = vector(0, &v->class_embed, hidden);
	else if (strcmp(name, "patch_embed.weight") == 0)
		*p = vector(0, &v->patch_w, 3ull * hidden * c->patch_size * c->patch_size);
	else if (strcmp(name, "patch_embed.bias") == 0 && c->patch_bias)
		*p = vector(0, &v->patch_b, hidden);
	else if (strcmp(name, "position_embed") == 0)
		*p = vector(0, &v->position, (uint64_t)vq_vision_positions(&m->cfg) * hidden);
	else if (strcmp(name, "pre_norm.weight") == 0 && c->pre_norm)
		*p = vector(0, &v->pre_w, hidden);
	else if (strcmp(name, "pre_norm.bias") == 0 && c->pre_norm)
		*p = vector(0, &v->pre_b, hidden);
	else if (strcmp(name, "post_norm.weight") == 0 && c->post_norm)
		*p = vector(c->n_layers - 1, &v->post_w, hidden);
	else if (strcmp(name, "post_norm.bias") == 0 && c->post_norm)
		*p = vector(c->n_layers - 1, &v->post_b, hidden);
	else
		return 0;
	return 1;
}

static int decoder_field(struct place *p, struct vq_model *m, const char *name)
{
	const struct vq_decoder_config *c = &m->cfg.decoder;
	uint32_t first = vq_config_decoder_unit(&m->cfg), last = first + c->n_layers - 1;
	const char *rest = NULL;
	long i;

	if (strncmp(name, "layers.", 7) == 0) {
		i = index_of(name + 7, c->n_layers, &rest);
		return i >= 0 && layer_field(p, &m->decoder.layers[i], first + (uint32_t)i, rest);
	}
	if (strcmp(name, "norm.weight") == 0) {
		*p = vector(last, &m->decoder.norm, c->layer.hidden);
		return 1;
	}
	if (strcmp(name, "norm.bias") == 0 && c->layer.norm == VQ_NORM_LAYER) {
		*p = vector(last, &m->decoder.norm_b, c->layer.hidden);
		return 1;
	}
	if (strcmp(name, "head.bias") == 0 && !c->head_bias)
		return 0;
	if (strcmp(name, "embed.weight") == 0) {
		*p = (struct place){
			.unit = first, .embed = 1, .rows = c->vocab, .cols = c->layer.hidden};
		return 1;
	}
	return strncmp(name, "head.", 5) == 0 && linear_field(p, &m->decoder.head, last, name + 5);
}

/* The whole mapping: 1 and *p, or 0 for a name that this model does not have. */
static int find_place(struct place *p, struct vq_model *m, const char *name)
{
	const char *rest = NULL;
	long i;

	if (m->cfg.has_vision && strncmp(name, "vision.", 7) == 0)
		return vision_field(p, m, name + 7);
	if (strncmp(name, "decoder.", 8) == 0)
		return decoder_field(p, m, name + 8);
	if (!m->cfg.has_vision || strncmp(name, "projector.", 10) != 0)
		return 0;
	i = index_of(name + 10, m->cfg.projector.n_linears, &rest);
	return i >= 0 &&
	       linear_field(p, &m->projector.fc[i], vq_config_projector_unit(&m->cfg), rest);
}

static void init_decoder_layer(struct vq_model *m, uint32_t i, struct vq_linear *experts)
{
	const struct vq_decoder_config *c = &m->cfg.decoder;

	if (c->moe.n_experts[i])
		vq_layer_init_sparse(&m->decoder.layers[i], &c->layer, experts, c->moe.n_experts[i],
				     i, &m->decoder.gating);
	else
		vq_layer_init(&m->decoder.layers[i], &c->layer);
}

static void init_units(struct vq_model *m)
{
	const struct vq_config *c = &m->cfg;
	struct vq_linear *experts = m->decoder.experts;
	uint32_t i;

	for (i = 0; c->has_vision && i < c->vision.n_layers; i++)
		vq_layer_init(&m->vision.layers[i], &c->vision.layer);
	for (i = 0; c->has_vision && i < c->projector.n_linears; i++)
		m->projector.fc[i] =
			(struct vq_linear){.n_out = c->projector.out,
					   .n_in = i == 0 ? c->projector.in : c->projector.out,
					   .act.bits = 16};
	m->decoder.gating = (struct vq_gating){.top_k = c->decoder.moe.top_k,
					       .capacity_factor = c->decoder.moe.capacity_factor,
					       .min_capacity = c->decoder.moe.min_capacity};
	for (i = 0; i < c->decoder.n_layers; i++) {
		init_decoder_layer(m, i, experts);
		experts += (size_t)c->decoder.moe.n_experts[i] * VQ_EXPERT_LINEARS;
	}
	m->decoder.head = (struct vq_linear){
		.n_out = c->decoder.vocab, .n_in = c->decoder.layer.hidden, .act.bits = 16};
}

int vq_model_new(struct vq_model *m, const struct vq_config *c, struct vq_err *err)
{
	size_t n_experts = 0;
	uint32_t i;

	memset(m, 0, sizeof(*m));
	m->cfg = *c;
	for (i = 0; i < c->decoder.n_layers; i++)
		n_experts += c->decoder.moe.n_experts[i];
	m->priv = vq_calloc(1, sizeof(*m->priv), err);
	m->decoder.experts =
		vq_calloc(n_experts * VQ_EXPERT_LINEARS, sizeof(struct vq_linear), err);
	m->decoder.layers = vq_calloc(c->decoder.n_layers, sizeof(struct vq_layer), err);
	if (c->has_vision)
		m->vision.layers = vq_calloc(c->vision.n_layers, sizeof(struct vq_layer), err);
	if (!m->priv || !m->decoder.experts || !m->decoder.layers ||
	    (c->has_vision && !m->vision.layers)) {
		vq_model_free(m);
		return VQ_E_SYS;
	}
	init_units(m);
	return VQ_OK;
}

void vq_model_free(struct vq_model *m)
{
	size_t i;

	for (i = 0; m->priv && i < m->priv->n; i++)
		vq_free(m->priv->owned[i].data);
	if (m->priv)
		vq_free(m->priv->owned);
	vq_free(m->priv);
	vq_free(m->vision.layers);
	vq_free(m->decoder.layers);
	vq_free(m->decoder.experts);
	memset(m, 0, sizeof(*m));
}

static int check_shape(const struct place *p, const char *name, const struct vq_tensor *t,
		       struct vq_err *err)
{
	uint64_t want[2] = {p->rows, p->cols};
	char a[64], b[128];
	size_t n;

	if (t->dtype != VQ_F32 && t->dtype != VQ_F16 && t->dtype != VQ_BF16)
		return vq_fail(err, VQ_E_DATA, "tensor '%s': want f32, f16 or bf16, got %s", name,
			       vq_dtype_name(t->dtype));
	if (vq_tensor_count(t, &n) == VQ_OK && n == p->rows * (p->cols ? p->cols : 1) &&
	    (!p->cols || (t->n_dims == 2 && t->dims[0] == p->rows)))
		return VQ_OK;
	return vq_fail(err, VQ_E_DATA, "tensor '%s': want shape %s, got %s", name,
		       vq_shape_text(p->cols ? 2 : 1, want, a, sizeof(a)),
		       vq_shape_text(t->n_dims, t->dims, b, sizeof(b)));
}

int vq_model_keep(struct vq_model *m, uint32_t unit, void *block, struct vq_err *err)
{
	struct vq_model_priv *p = m->priv;

	if (p->n == p->room) {
		int rc = vq_grow((void **)&p->owned, p->n, 2 * p->n + 64, sizeof(*p->owned), err);

		if (rc < 0) {
			vq_free(block);
			return rc;
		}
		p->room = 2 * p->n + 64;
	}
	p->owned[p->n++] = (struct owned){block, unit};
	return VQ_OK;
}

/* A float32 copy that goes with the unit. */
static int own(struct vq_model *m, uint32_t unit, const struct vq_tensor *t, const char *name,
	       float **out, struct vq_err *err)
{
	size_t n, i;
	float *data;
	int rc = vq_tensor_count(t, &n);

	if (rc < 0)
		return vq_fail(err, rc, "tensor '%s' is too large", name);
	data = vq_alloc_f32(n, err);
	if (!data)
		return VQ_E_SYS;
	rc = vq_tensor_to_f32(t, 0, n, data, err);
	for (i = 0; rc >= 0 && i < n; i++)
		if (!isfinite(data[i]))
			rc = vq_fail(err, VQ_E_DATA, "tensor '%s': element %zu is %f", name, i,
				     (double)data[i]);
	if (rc < 0) {
		vq_free(data);
		return rc;
	}
	*out = data;
	return vq_model_keep(m, unit, data, err);
}

int vq_model_bind(struct vq_model *m, const char *name, const struct vq_tensor *t,
		  struct vq_err *err)
{
	struct place p = {0};
	const void *data = t->data;
	enum vq_dtype type = t->dtype;
	float *copy = NULL;
	int rc;

	if (!find_place(&p, m, name))
		return vq_fail(err, VQ_E_DATA, "tensor '%s': this model has none of that name",
			       name);
	rc = check_shape(&p, name, t, err);
	if (rc < 0)
		return rc;
	if (p.copy) {
		rc = own(m, p.unit, t, name, &copy, err);
		if (rc < 0)
			return rc;
		*p.copy = copy;
	}
	if (p.lin) {
		p.lin->w = data;
		p.lin->dtype = type;
		p.lin->packed = NULL;
	}
	if (p.embed) {
		m->decoder.embed = data;
		m->decoder.embed_packed = NULL;
		m->decoder.embed_type = type;
		if (m->cfg.decoder.tied && !m->decoder.head.w && !m->decoder.head.packed) {
			m->decoder.head.w = data;
			m->decoder.head.dtype = type;
		}
	}
	return VQ_OK;
}

struct vq_linear *vq_model_linear(struct vq_model *m, const char *name)
{
	struct place p = {0};
	size_t n = strlen(name);
	char weight[80];

	if (n > 5 && strcmp(name + n - 5, ".bias") == 0 && n + 3 < sizeof(weight)) {
		snprintf(weight, sizeof(weight), "%.*s.weight", (int)(n - 5), name);
		name = weight;
	}
	return find_place(&p, m, name) ? p.lin : NULL;
}

struct vq_layer *vq_model_layer(struct vq_model *m, uint32_t unit)
{
	uint32_t first = vq_config_decoder_unit(&m->cfg);

	if (m->cfg.has_vision && unit < m->cfg.vision.n_layers)
		return &m->vision.layers[unit];
	if (unit >= first && unit - first < m->cfg.decoder.n_layers)
		return &m->decoder.layers[unit - first];
	return NULL;
}

static int bound(struct vq_model *m, const char *name)
{
	struct place p = {0};

	if (!find_place(&p, m, name))
		return 0;
	if (p.copy)
		return *p.copy != NULL;
	return p.embed ? m->decoder.embed || m->decoder.embed_packed : p.lin->w || p.lin->packed;
}

int vq_model_check(const struct vq_model *m, uint32_t unit, struct vq_err *err)
{
	struct vq_name *names = NULL;
	size_t n = 0, i;
	int rc = vq_names_list(&m->cfg, &names, &n, err);

	for (i = 0; rc >= 0 && i < n; i++)
		/* the cast: looking up changes nothing, but the places it gives are writable */
		if (names[i].unit == unit && !bound((struct vq_model *)m, names[i].name))
			rc = vq_fail(err, VQ_E_DATA, "tensor '%s' of unit %u is missing",
				     names[i].name, unit);
	vq_free(names);
	return rc;
}

void vq_model_unbind(struct vq_model *m, uint32_t unit)
{
	const struct vq_config *c = &m->cfg;
	uint32_t first = vq_config_decoder_unit(c);
	struct vq_layer *l = vq_model_layer(m, unit);
	size_t i, kept = 0;

	if (l && l->n_experts)
		init_decoder_layer(m, l->index, l->experts);
	else if (l)
		vq_layer_init(l, l->cfg);
	if (c->has_vision && unit == 0) {
		m->vision.class_embed = m->vision.patch_w = m->vision.position = NULL;
		m->vision.pre_w = m->vision.pre_b = m->vision.patch_b = NULL;
	}
	if (c->has_vision && unit + 1 == c->vision.n_layers)
		m->vision.post_w = m->vision.post_b = NULL;
	for (i = 0; c->has_vision && unit == vq_config_projector_unit(c) && i < 2; i++) {
		m->projector.fc[i].w = m->projector.fc[i].bias = NULL;
		m->projector.fc[i].packed = NULL;
		m->projector.fc[i].transform = NULL;
		m->projector.fc[i].act.bits = 16;
	}
	if (unit == first) {
		m->decoder.embed = NULL;
		m->decoder.embed_packed = NULL;
	}
	if (unit == first + c->decoder.n_layers - 1) {
		m->decoder.norm = m->decoder.norm_b = NULL;
		m->decoder.head.w = m->decoder.head.bias = NULL;
		m->decoder.head.packed = NULL;
	}
	for (i = 0; i < m->priv->n; i++)
		if (m->priv->owned[i].unit == unit)
			vq_free(m->priv->owned[i].data);
		else
			m->priv->owned[kept++] = m->priv->owned[i];
	m->priv->n = kept;
}

int vq_model_from_ckpt(struct vq_model *m, const struct vq_config *c, const struct vq_ckpt *k,
		       struct vq_err *err)
{
	struct vq_name *names = NULL;
	size_t n = 0, i;
	int rc = vq_model_new(m, c, err);

	if (rc < 0)
		return rc;
	rc = vq_names_list(c, &names, &n, err);
	for (i = 0; rc >= 0 && i < n; i++) {
		struct vq_tensor t;

		rc = vq_names_find(c, k, &names[i], &t, err);
		if (rc >= 0)
			rc = vq_model_bind(m, names[i].name, &t, err);
		if (rc < 0)
			vq_err_prefix(err, "%s", vq_ckpt_path(k));
	}
	vq_free(names);
	if (rc < 0)
		vq_model_free(m);
	return rc;
}
