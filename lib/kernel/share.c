/* Jobs shared out (share.h). */
#include "kernel/share.h"

#include <omp.h>

int vq_alone(int little)
{
	return little || omp_in_parallel() || omp_get_max_threads() == 1;
}

void vq_share(size_t n, int little, vq_share_fn *f, void *ctx)
{
	if (vq_alone(little)) {
		f(ctx, 0, n);
		return;
	}
#pragma omp parallel
	{
		size_t i = (size_t)omp_get_thread_num(), threads = (size_t)omp_get_num_threads();

		f(ctx, n * i / threads, n * (i + 1) / threads);
	}
}
