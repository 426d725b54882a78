/* The table of criteria, and scores as text. */
#include "task/prune_score.h"

#include <string.h>

const struct vq_criterion vq_criteria[] = {
	{"magnitude", vq_score_magnitude},
};
const size_t vq_n_criteria = sizeof(vq_criteria) / sizeof(vq_criteria[0]);

const struct vq_criterion *vq_criterion_by_name(const char *name)
{
	size_t i;

	for (i = 0; i < vq_n_criteria; i++)
		if (strcmp(vq_criteria[i].name, name) == 0)
			return &vq_criteria[i];
	return NULL;
}

int vq_prune_table(const struct vq_prune_job *j, const struct vq_blocks *alive, const double *score,
		   struct vq_str *out, struct vq_err *err)
{
	uint32_t i;

	(void)j;
	vq_str_puts(out, "block_name,block_score\n");
	for (i = 0; i < alive->n; i++)
		vq_str_printf(out, "model.layers.%u,%.17g\n", alive->v[i], score[i]);
	return out->failed ? vq_fail(err, VQ_E_SYS, "memory: cannot have the table") : VQ_OK;
}
