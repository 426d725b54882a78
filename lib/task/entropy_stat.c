/* From STAT records to numbers a unit. */
#include "task/entropy_stat.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "quant/dependency.h"

static const char *const space_names[] = {"raw", "hadamard"};

static void joint_name(const struct vq_entropy_opts *o, char *buf, size_t room)
{
	snprintf(buf, room, "stat/joint/%s/%u", space_names[o->space], o->bits);
}

static void error_name(const struct vq_entropy_opts *o, char *buf, size_t room)
{
	snprintf(buf, room, "stat/error/%u", o->bits);
}

int vq_entropy_stat_wants(const struct vq_entropy_opts *o, const struct vq_record *rec)
{
	char joint[64], error[64];

	joint_name(o, joint, sizeof(joint));
	error_name(o, error, sizeof(error));
	if (rec->kind == VQ_KIND_META)
		return strcmp(rec->name, "config") == 0 || strcmp(rec->name, "calib") == 0;
	return rec->kind == VQ_KIND_STAT &&
	       (strcmp(rec->name, joint) == 0 || strcmp(rec->name, error) == 0 ||
		strcmp(rec->name, "stat/influence") == 0);
}

void vq_entropy_stat_config(struct vq_entropy_stat *s, const struct vq_config *c)
{
	s->cfg = *c;
	s->have_config = 1;
	s->n_units = vq_config_n_units(c);
	s->n_pairs = c->decoder.n_layers - 1;
	if (c->has_vision)
		s->n_pairs += c->vision.n_layers - 1;
}

static int take_meta(struct vq_entropy_stat *s, const struct vq_record *rec, const void *data,
		     const char *label, struct vq_err *err)
{
	int is_config = strcmp(rec->name, "config") == 0, rc;
	json_t *j = vq_json_parse(data, (size_t)rec->raw_bytes, label, err);

	if (!j)
		return vq_err_prefix(err, "record '%s'", rec->name);
	if (is_config) {
		struct vq_config c;

		rc = vq_config_parse(&c, j, label, err);
		if (rc >= 0)
			vq_entropy_stat_config(s, &c);
	} else {
		vq_calib_meta_free(&s->meta);
		rc = vq_calib_meta_parse(&s->meta, j, label, err);
		s->have_meta = rc >= 0;
	}
	json_decref(j);
	return rc;
}

/* Unit of the first layer of pair i: vision pairs come before decoder pairs. */
static uint32_t pair_unit(const struct vq_config *c, uint32_t i)
{
	uint32_t vision = c->has_vision ? c->vision.n_layers - 1 : 0;

	return i < vision ? i : vq_config_decoder_unit(c) + i - vision;
}

static int want_shape(const struct vq_record *rec, uint32_t n_dims, const uint64_t *dims,
		      const char *label, struct vq_err *err)
{
	char a[128], b[128];

	if (rec->dtype == VQ_F32 && rec->n_dims == n_dims &&
	    memcmp(rec->dims, dims, n_dims * sizeof(*dims)) == 0)
		return VQ_OK;
	return vq_fail(err, VQ_E_DATA, "%s: record '%s': want f32 %s, got %s %s", label, rec->name,
		       vq_shape_text(n_dims, dims, a, sizeof(a)), vq_dtype_name(rec->dtype),
		       vq_shape_text(rec->n_dims, rec->dims, b, sizeof(b)));
}

/* One pair's matrix: 1, 0 when it is empty, or an error for what no calibration can have measured. */
static int read_joint(const float *m, size_t n, double *p, const struct vq_record *rec,
		      const char *label, struct vq_err *err)
{
	double sum = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		if (!(m[i] >= 0) || !isfinite(m[i]))
			return vq_fail(err, VQ_E_DATA,
				       "%s: record '%s': want probabilities, got %g", label,
				       rec->name, (double)m[i]);
		p[i] = m[i];
		sum += p[i];
	}
	return sum > 0; /* zeros: there was no picture */
}

static int take_joint(struct vq_entropy_stat *s, const struct vq_entropy_opts *o,
		      const struct vq_record *rec, const float *data, const char *label,
		      struct vq_err *err)
{
	uint32_t levels = 1u << o->bits, i;
	size_t n = (size_t)levels * levels;
	const uint64_t dims[3] = {s->n_pairs, levels, levels};
	double *p = NULL, *side = NULL;
	int rc = want_shape(rec, 3, dims, label, err);

	if (rc < 0 || s->d)
		return rc;
	p = vq_alloc(n + levels, sizeof(*p), err);
	s->d = vq_alloc(s->n_units, sizeof(*s->d), err);
	s->h = vq_alloc(s->n_units, sizeof(*s->h), err);
	if (!p || !s->d || !s->h) {
		rc = VQ_E_SYS;
		goto out;
	}
	side = p + n;
	for (i = 0; i < s->n_units; i++)
		s->d[i] = s->h[i] = -1;
	for (i = 0; i < s->n_pairs && rc >= 0; i++) {
		uint32_t u = pair_unit(&s->cfg, i);

		rc = read_joint(data + i * n, n, p, rec, label, err);
		if (rc <= 0)
			continue;
		s->d[u] = vq_joint_dependency(p, levels);
		vq_joint_marginal(p, levels, 0, side);
		s->h[u] = vq_hist_entropy(side, levels);
		vq_joint_marginal(p, levels, 1, side);
		s->h[u + 1] = vq_hist_entropy(side, levels);
	}
out:
	vq_free(p);
	return rc;
}

static int take_vector(double **out, const struct vq_entropy_stat *s, const struct vq_record *rec,
		       const float *data, const char *label, struct vq_err *err)
{
	const uint64_t dims[1] = {s->n_units};
	uint32_t i;
	int rc = want_shape(rec, 1, dims, label, err);

	if (rc < 0 || *out)
		return rc;
	*out = vq_alloc(s->n_units, sizeof(double), err);
	if (!*out)
		return VQ_E_SYS;
	for (i = 0; i < s->n_units; i++) {
		if (!(data[i] >= 0) || !isfinite(data[i]))
			return vq_fail(err, VQ_E_DATA, "%s: record '%s'[%u]: want >= 0, got %g",
				       label, rec->name, i, (double)data[i]);
		(*out)[i] = data[i];
	}
	return VQ_OK;
}

int vq_entropy_stat_take(struct vq_entropy_stat *s, const struct vq_entropy_opts *o,
			 const struct vq_record *rec, const void *data, const char *label,
			 struct vq_err *err)
{
	if (rec->kind == VQ_KIND_META)
		return take_meta(s, rec, data, label, err);
	if (!s->have_config)
		return vq_fail(err, VQ_E_DATA, "%s: record '%s' comes before META 'config'", label,
			       rec->name);
	if (strncmp(rec->name, "stat/joint/", 11) == 0)
		return take_joint(s, o, rec, data, label, err);
	if (strncmp(rec->name, "stat/error/", 11) == 0)
		return take_vector(&s->error, s, rec, data, label, err);
	return take_vector(&s->influence, s, rec, data, label, err);
}

int vq_entropy_stat_proxy(const struct vq_entropy_stat *s, const struct vq_entropy_opts *o,
			  const char *label, double **out, struct vq_err *err)
{
	int is_error = o->proxy == VQ_PROXY_ERROR;
	const double *from = is_error ? s->error : s->d;
	double *d;
	char name[64];
	uint32_t i;

	*out = NULL;
	if (!from && (s->meta.n == 0 || o->partition != VQ_PART_ENTROPY))
		return VQ_OK;
	if (!from) {
		if (is_error)
			error_name(o, name, sizeof(name));
		else
			joint_name(o, name, sizeof(name));
		return vq_fail(err, VQ_E_DATA, "%s: no record '%s': run vqlm-calib %s", label, name,
			       is_error ? "--error-stats with these --bits" : "with these --bits");
	}
	d = vq_alloc(s->n_units, sizeof(*d), err);
	if (!d)
		return VQ_E_SYS;
	for (i = 0; i < s->n_units; i++)
		d[i] = -1;
	for (i = 0; i < s->n_pairs; i++) {
		uint32_t u = pair_unit(&s->cfg, i);

		d[u] = is_error ? (from[u] + from[u + 1]) / 2 : from[u];
	}
	*out = d;
	return VQ_OK;
}

void vq_entropy_stat_free(struct vq_entropy_stat *s)
{
	vq_calib_meta_free(&s->meta);
	vq_free(s->d);
	vq_free(s->h);
	vq_free(s->error);
	vq_free(s->influence);
	memset(s, 0, sizeof(*s));
}
