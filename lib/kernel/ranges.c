/* Ranges of jobs (ranges.h). */
#include "kernel/ranges.h"

static uint32_t first_of(uint64_t left)
{
	return (uint32_t)left;
}

static uint32_t end_of(uint64_t left)
{
	return (uint32_t)(left >> 32);
}

static uint64_t range(uint32_t first, uint32_t end)
{
	return (uint64_t)end << 32 | first;
}

void vq_ranges_set(struct vq_ranges *r, uint32_t n_ranges, uint32_t n_jobs)
{
	uint32_t i;

	r->n = n_ranges;
	for (i = 0; i < n_ranges; i++)
		atomic_init(&r->of[i].left,
			    range((uint32_t)((uint64_t)n_jobs * i / n_ranges),
				  (uint32_t)((uint64_t)n_jobs * (i + 1) / n_ranges)));
}

/* The range with most jobs left; n when all are done. */
static uint32_t fullest(struct vq_ranges *r)
{
	uint32_t i, best = r->n, most = 0;

	for (i = 0; i < r->n; i++) {
		uint64_t v = atomic_load_explicit(&r->of[i].left, memory_order_relaxed);

		if (end_of(v) - first_of(v) > most) {
			most = end_of(v) - first_of(v);
			best = i;
		}
	}
	return best;
}

int vq_ranges_take(struct vq_ranges *r, uint32_t own, uint32_t *job)
{
	uint64_t v = atomic_load_explicit(&r->of[own].left, memory_order_relaxed);
	uint32_t from;

	while (first_of(v) < end_of(v))
		if (atomic_compare_exchange_weak(&r->of[own].left, &v,
						 range(first_of(v) + 1, end_of(v)))) {
			*job = first_of(v);
			return 1;
		}
	while ((from = fullest(r)) < r->n) {
		v = atomic_load_explicit(&r->of[from].left, memory_order_relaxed);
		if (first_of(v) < end_of(v) &&
		    atomic_compare_exchange_strong(&r->of[from].left, &v,
						   range(first_of(v), end_of(v) - 1))) {
			*job = end_of(v) - 1;
			return 1;
		}
	}
	return 0;
}
