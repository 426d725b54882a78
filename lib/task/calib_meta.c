/* META `calib`: which samples, which seed, which checkpoints. */
#include <string.h>

#include "base/mem.h"
#include "task/plan.h"

void vq_calib_meta_free(struct vq_calib_meta *m)
{
	uint32_t i;

	for (i = 0; m->ids && i < m->n; i++)
		vq_free(m->ids[i]);
	vq_free(m->ids);
	vq_free(m->checkpoints);
	memset(m, 0, sizeof(*m));
}

static int parse_ids(struct vq_calib_meta *m, const json_t *j, const char *label,
		     struct vq_err *err)
{
	uint32_t i;

	if (json_array_size(j) != m->n)
		return vq_fail(err, VQ_E_DATA, "%s: calib: want %u ids, got %zu", label, m->n,
			       json_array_size(j));
	m->ids = vq_calloc(m->n, sizeof(*m->ids), err);
	if (!m->ids)
		return VQ_E_SYS;
	for (i = 0; i < m->n; i++) {
		const char *id = json_string_value(json_array_get(j, i));

		if (!id)
			return vq_fail(err, VQ_E_DATA, "%s: calib: ids[%u]: want a string", label,
				       i);
		m->ids[i] = vq_strdup(id, err);
		if (!m->ids[i])
			return VQ_E_SYS;
	}
	return VQ_OK;
}

static int parse_checkpoints(struct vq_calib_meta *m, const json_t *j, const char *label,
			     struct vq_err *err)
{
	size_t n = json_array_size(j), i;

	if (n > VQ_PLAN_MAX_UNITS)
		return vq_fail(err, VQ_E_DATA, "%s: calib: want at most %u checkpoints, got %zu",
			       label, VQ_PLAN_MAX_UNITS, n);
	m->checkpoints = vq_alloc(n, sizeof(uint32_t), err);
	if (!m->checkpoints)
		return VQ_E_SYS;
	for (i = 0; i < n; i++) {
		const json_t *v = json_array_get(j, i);
		json_int_t u = json_integer_value(v), prev = i ? m->checkpoints[i - 1] : 0;

		if (!json_is_integer(v) || u <= prev || u >= VQ_PLAN_MAX_UNITS)
			return vq_fail(err, VQ_E_DATA,
				       "%s: calib: checkpoints[%zu]: want ascending units above 0",
				       label, i);
		m->checkpoints[i] = (uint32_t)u;
	}
	m->n_checkpoints = (uint32_t)n;
	return VQ_OK;
}

int vq_calib_meta_parse(struct vq_calib_meta *m, const json_t *j, const char *label,
			struct vq_err *err)
{
	const char *sha = "";
	int rc;

	memset(m, 0, sizeof(*m));
	if (!json_is_object(j))
		return vq_fail(err, VQ_E_DATA, "%s: calib: want a JSON object", label);
	rc = vq_json_u32(j, "n", 0, &m->n, label, err);
	if (rc >= 0 && m->n > 1u << 24)
		rc = vq_fail(err, VQ_E_DATA, "%s: calib: n = %u is beyond %u", label, m->n,
			     1u << 24);
	if (rc < 0) {
		m->n = 0;
		return rc;
	}
	rc = vq_json_str(j, "data_sha256", "", &sha, label, err);
	if (rc >= 0 && strlen(sha) >= sizeof(m->data_sha256))
		rc = vq_fail(err, VQ_E_DATA, "%s: calib: data_sha256: want 64 digits", label);
	if (rc >= 0) {
		memcpy(m->data_sha256, sha, strlen(sha) + 1);
		m->seed = (uint64_t)json_integer_value(json_object_get(j, "seed"));
		m->n_tokens = (uint64_t)json_integer_value(json_object_get(j, "n_tokens"));
		rc = parse_ids(m, json_object_get(j, "ids"), label, err);
	}
	if (rc >= 0)
		rc = parse_checkpoints(m, json_object_get(j, "checkpoints"), label, err);
	if (rc < 0)
		vq_calib_meta_free(m);
	return rc;
}

json_t *vq_calib_meta_json(const struct vq_calib_meta *m, struct vq_err *err)
{
	json_t *ids = json_array(), *cps = json_array(), *j;
	uint32_t i;
	int bad = !ids || !cps;

	for (i = 0; i < m->n; i++)
		bad |= json_array_append_new(ids, json_string(m->ids[i])) < 0;
	for (i = 0; i < m->n_checkpoints; i++)
		bad |= json_array_append_new(cps, json_integer(m->checkpoints[i])) < 0;
	j = json_pack("{s:I, s:o, s:I, s:s, s:I, s:o}", "n", (json_int_t)m->n, "ids", ids, "seed",
		      (json_int_t)m->seed, "data_sha256", m->data_sha256, "n_tokens",
		      (json_int_t)m->n_tokens, "checkpoints", cps);
	if (!j || bad) {
		json_decref(j);
		vq_fail(err, VQ_E_SYS, "memory: cannot have the JSON of calib");
		return NULL;
	}
	return j;
}
