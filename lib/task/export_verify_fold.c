/* Exporting: norms read back, beside what the packed model's linears say of their inputs.  Which norm a linear reads, and
 * where its scales are, is found here anew from the model's members: nothing of what export_fold.c decided is used. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "task/export_parts.h"

/* The scales that the input of the linear NAME.weight goes through, f32 [n]: 1 and them (borrowed from the file), 0 when
 * there are none. */
static int scales_of(const struct vq_vqm *v, const char *name, uint32_t n, const float **s,
		     struct vq_err *err)
{
	char member[2 * VQ_NAME_MAX];
	const struct vq_vqm_member *m;
	json_t *j;
	const char *from;

	snprintf(member, sizeof(member), "%.*s.json", VQ_NAME_MAX, name);
	m = vq_vqm_find(v, member);
	j = m ? vq_json_parse((const char *)m->data, m->n, member, err) : NULL;
	if (!j)
		return m ? VQ_E_DATA : 0;
	from = json_string_value(
		json_object_get(json_object_get(json_object_get(j, "attrs"), "transform"), "from"));
	snprintf(member, sizeof(member), "%.*s.transform_scale", VQ_NAME_MAX, from ? from : "");
	m = from ? vq_vqm_find(v, member) : NULL;
	json_decref(j);
	if (from && (!m || m->n != n * sizeof(float)))
		return vq_fail(err, VQ_E_NO, "verify: '%s': want the %u scales of '%s'", member, n,
			       name);
	*s = m ? (const float *)(const void *)m->data : NULL;
	return m != NULL;
}

int vq_export_verify_norm(const struct vq_export *x, const struct vq_export_item *norm,
			  const float *plain, const double *got, struct vq_err *err)
{
	/* What reads each norm of a layer, in names of the packed model. */
	static const char *const readers[] = {"q_proj",    "k_proj",  "v_proj",
					      "gate_proj", "up_proj", "router"};
	const char *name = norm->name->name, *at = strstr(name, ".norm");
	char linear[VQ_NAME_MAX + 32];
	uint32_t i, k, n = norm->n_out, first = at && at[5] == '2' ? 3 : 0, end = first + 3;
	int rc = VQ_OK, any = 0;

	if (strncmp(name, "decoder.", 8) == 0 && x->config.decoder.layer.parallel)
		end = 6; /* one norm for both halves */
	for (i = first; at && rc == VQ_OK && i < end; i++) {
		const float *s = NULL;

		snprintf(linear, sizeof(linear), "%.*s.%s.weight", (int)(at - name), name,
			 readers[i]);
		rc = scales_of(x->v, linear, n, &s, err);
		if (rc < 0)
			return rc;
		any |= rc;
		rc = VQ_OK;
		/* The product of two float32, rounded once. */
		for (k = 0; s && rc == VQ_OK && k < n; k++)
			if (!(fabs(got[k] - (double)plain[k] * (double)s[k]) <=
			      fabs(got[k]) * 0x1p-24))
				rc = vq_fail(
					err, VQ_E_NO,
					"%s: '%s': what was written is %g at %u, but '%s' wants %g "
					"times %g there",
					x->v->label, name, got[k], k, linear, (double)plain[k],
					(double)s[k]);
	}
	return rc < 0 ? rc : any;
}
