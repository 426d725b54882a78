/* The table of criteria, and scores as text. */
#include "task/prune_score.h"

#include <ctype.h>
#include <string.h>

#include "base/mem.h"

const struct vq_criterion vq_criteria[] = {
	{"ppl", 1, 0, 1, vq_score_ppl},
	{"taylor", 1, 1, 0, vq_score_taylor},
	{"magnitude", 0, 0, 0, vq_score_magnitude},
	{"cosine", 1, 0, 0, vq_score_cosine},
	{"angular", 1, 0, 0, vq_score_angular},
};
const size_t vq_n_criteria = sizeof(vq_criteria) / sizeof(vq_criteria[0]);

const struct vq_criterion *vq_prune_criterion(const struct vq_prune_opts *o)
{
	const char *name = o->criterion ? o->criterion : o->data || o->text ? "ppl" : "magnitude";
	size_t i;

	for (i = 0; i < vq_n_criteria; i++)
		if (strcmp(vq_criteria[i].name, name) == 0)
			return &vq_criteria[i];
	return NULL;
}

/* The name of a file up to its first dot, in letters, digits and _. */
static void put_stem(struct vq_str *out, const char *path)
{
	const char *slash = strrchr(path, '/'), *p = slash ? slash + 1 : path;

	for (; *p && *p != '.'; p++)
		vq_str_printf(out, "%c", isalnum((unsigned char)*p) ? *p : '_');
}

static int removal_table(const struct vq_prune_job *j, const struct vq_blocks *alive,
			 const double *score, struct vq_str *out, struct vq_err *err)
{
	uint32_t i, *left = vq_alloc(alive->n, sizeof(*left), err);
	uint64_t params;
	int rc = left ? VQ_OK : VQ_E_SYS;

	vq_str_puts(out, "removed_block,ppl_");
	put_stem(out, j->o->data ? j->o->data : j->o->text);
	vq_str_puts(out, ",num_calib_data,params\n");
	for (i = 0; rc == VQ_OK && i < alive->n; i++) {
		memcpy(left, alive->v, i * sizeof(*left));
		memcpy(left + i, alive->v + i + 1, (alive->n - i - 1) * sizeof(*left));
		rc = vq_prune_params(j->cfg, left, alive->n - 1, &params, err);
		if (rc == VQ_OK)
			vq_str_printf(out, "%u,%.17g,%u,%llu\n", alive->v[i], score[i],
				      j->o->samples, (unsigned long long)params);
	}
	vq_free(left);
	return rc;
}

static void tensor_table(const struct vq_prune_job *j, const struct vq_blocks *alive,
			 struct vq_str *out)
{
	uint32_t i, k;

	vq_str_puts(out, "block_name,all_weight_scores\n");
	for (i = 0; i < alive->n; i++) {
		vq_str_printf(out, "model.layers.%u", alive->v[i]);
		for (k = 0; k < VQ_PRUNE_TENSORS; k++)
			vq_str_printf(out, ",%.17g", j->detail[(size_t)i * VQ_PRUNE_TENSORS + k]);
		vq_str_puts(out, "\n");
	}
}

int vq_prune_table(const struct vq_prune_job *j, const struct vq_criterion *c,
		   const struct vq_blocks *alive, const double *score, struct vq_str *out,
		   struct vq_err *err)
{
	uint32_t i;
	int rc = VQ_OK;

	if (c && c->is_removal) {
		rc = removal_table(j, alive, score, out, err);
	} else if (c && c->of_tensors) {
		tensor_table(j, alive, out);
	} else {
		vq_str_puts(out, "block_name,block_score\n");
		for (i = 0; i < alive->n; i++)
			vq_str_printf(out, "model.layers.%u,%.17g\n", alive->v[i], score[i]);
	}
	if (rc == VQ_OK && out->failed)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot have the table");
	return rc;
}
