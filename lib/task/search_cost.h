/* What a search needs, from shapes alone. */
#ifndef VQ_TASK_SEARCH_COST_H
#define VQ_TASK_SEARCH_COST_H

#include "model/names.h"
#include "task/plan.h"
#include "task/search.h"
#include "task/search_acts.h"

/* type: of the weights; plan and acts NULL for rtn; level: zstd level of the output. */
void vq_search_cost(struct vq_search_cost *c, const struct vq_search_opts *o,
		    const struct vq_config *cfg, const struct vq_name *names, size_t n_names,
		    enum vq_dtype type, const struct vq_plan *plan, const struct vq_acts *acts,
		    int level);

#endif
