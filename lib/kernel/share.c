/* Jobs shared out (share.h). */
#include "kernel/share.h"

#include <omp.h>

#include "kernel/ranges.h"

/* Pieces of a thread's range: others take those that it has not begun when something else runs on its core. */
#define PIECES 16u

int vq_alone(int little)
{
	return little || omp_in_parallel() || omp_get_max_threads() == 1;
}

void vq_share(size_t n, int little, vq_share_fn *f, void *ctx)
{
	struct vq_ranges left;
	size_t n_pieces;
	int n_threads;

	if (vq_alone(little)) {
		f(ctx, 0, n);
		return;
	}
	n_threads = omp_get_max_threads();
	n_threads = n_threads < (int)VQ_MOST_RANGES ? n_threads : (int)VQ_MOST_RANGES;
	n_pieces = (size_t)n_threads * PIECES < n ? (size_t)n_threads * PIECES : n;
	vq_ranges_set(&left, (uint32_t)n_threads, (uint32_t)n_pieces);
#pragma omp parallel num_threads(n_threads)
	{
		uint32_t i;

		while (vq_ranges_take(&left, (uint32_t)omp_get_thread_num(), &i))
			f(ctx, n * i / n_pieces, n * (i + 1) / n_pieces);
	}
}
