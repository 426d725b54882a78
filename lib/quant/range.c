/* Stored ranges, measured. */
#include "quant/range.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* The n smallest of the values that came, times sign. */
struct vq_range_tail {
	float *v;          /* [2 n] */
	size_t n, m;       /* wanted, held */
	float sign, limit; /* no value above it is wanted any more */
};

static int ascending(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static void sort(struct vq_range_tail *t)
{
	qsort(t->v, t->m, sizeof(*t->v), ascending);
	if (t->n && t->m >= t->n) { /* without rows there is none */
		t->m = t->n;
		t->limit = t->v[t->n - 1];
	}
}

static inline void push(struct vq_range_tail *t, float x)
{
	x *= t->sign;
	if (!(x < t->limit))
		return;
	t->v[t->m++] = x;
	if (t->m == 2 * t->n)
		sort(t);
}

/* Where the values of range j stand in rows that begin with a sequence. */
struct span {
	size_t row, step; /* the first row, and how many to the next */
	uint32_t at, n;   /* inputs */
};

static struct span span_of(const struct vq_range_meter *m, uint32_t j)
{
	uint32_t group = m->grid.group ? m->grid.group : m->n_in;

	if (m->grid.range == VQ_RANGE_POSITION)
		return (struct span){j, m->grid.n_ranges, 0, m->n_in};
	return (struct span){0, 1, j * group,
			     m->n_in - j * group < group ? m->n_in - j * group : group};
}

static size_t n_values(const struct vq_range_meter *m, uint32_t j)
{
	struct span s = span_of(m, j);

	return m->n_rows / s.step * s.n;
}

/* How many of the lowest and of the highest are looked at. */
static void n_tails(size_t n, size_t tails[2])
{
	size_t lo, hi;

	vq_clip_ranks(n, vq_clip_percentiles[VQ_N_PERCENTILES - 1], &lo, &hi);
	tails[0] = n ? lo + 1 : 0;
	tails[1] = n ? n - hi : 0;
}

int vq_range_begin(struct vq_range_meter *m, const struct vq_agrid *g, size_t n_rows, uint32_t n_in,
		   uint32_t n_positions, struct vq_err *err)
{
	size_t total = 0, n[2];
	uint32_t j, k;
	float *at;

	memset(m, 0, sizeof(*m));
	m->grid = *g;
	m->grid.n_ranges = vq_agrid_n_ranges(g, n_in, n_positions);
	m->n_in = n_in;
	m->n_rows = n_rows;
	for (j = 0; j < m->grid.n_ranges; j++) {
		n_tails(n_values(m, j), n);
		total += 2 * (n[0] + n[1]);
	}
	m->tail = vq_alloc(2 * (size_t)m->grid.n_ranges, sizeof(*m->tail), err);
	m->kept = vq_alloc_f32(total, err);
	m->loss = vq_calloc((size_t)m->grid.n_ranges * VQ_N_PERCENTILES, sizeof(*m->loss), err);
	if (!m->tail || !m->kept || !m->loss) {
		vq_range_end(m);
		return VQ_E_SYS;
	}
	for (j = 0, at = m->kept; j < m->grid.n_ranges; j++) {
		n_tails(n_values(m, j), n);
		for (k = 0; k < 2; k++) {
			m->tail[2 * j + k] = (struct vq_range_tail){
				.v = at, .n = n[k], .sign = k ? -1.0f : 1.0f, .limit = INFINITY};
			at += 2 * n[k];
		}
	}
	return VQ_OK;
}

void vq_range_end(struct vq_range_meter *m)
{
	vq_free(m->tail);
	vq_free(m->kept);
	vq_free(m->loss);
	memset(m, 0, sizeof(*m));
}

void vq_range_add(struct vq_range_meter *m, const float *x, size_t n_rows)
{
	long long j;

#pragma omp parallel for schedule(static)
	for (j = 0; j < (long long)m->grid.n_ranges; j++) {
		struct span s = span_of(m, (uint32_t)j);
		struct vq_range_tail *t = m->tail + 2 * j;
		size_t r;
		uint32_t i;

		for (r = s.row; r < n_rows; r += s.step)
			for (i = 0; i < s.n; i++) {
				float v = x[r * m->n_in + s.at + i];

				push(&t[0], v);
				push(&t[1], v);
			}
	}
}

void vq_range_bounds(struct vq_range_meter *m, float *ranges)
{
	size_t n = m->grid.n_ranges, j, v;

	for (j = 0; j < n; j++) {
		struct vq_range_tail *t = m->tail + 2 * j;
		size_t count = n_values(m, (uint32_t)j), a, b;

		sort(&t[0]);
		sort(&t[1]);
		for (v = 0; v < VQ_N_PERCENTILES; v++) {
			float *lo = ranges + 2 * v * n + j, *hi = lo + n;

			*lo = *hi = 0;
			if (!count)
				continue;
			vq_clip_ranks(count, vq_clip_percentiles[v], &a, &b);
			*lo = t[0].v[a] < 0 ? t[0].v[a] : 0;
			b = count - 1 - b; /* from the top */
			*hi = t[1].v[b] < 0 ? -t[1].v[b] : 0;
		}
	}
}

static double distance(float d, double power)
{
	return power == 2 ? (double)d * (double)d : pow(fabs((double)d), power);
}

void vq_range_try(struct vq_range_meter *m, const float *ranges, double power, const float *x,
		  size_t n_rows, float *buf)
{
	size_t n = m->grid.n_ranges, v;
	long long j;

	for (v = 0; v < VQ_N_PERCENTILES; v++) {
		struct vq_agrid g = m->grid;

		g.lo = ranges + 2 * v * n;
		g.hi = g.lo + n;
		vq_act_fake(&g, x, n_rows, m->n_in, buf);
#pragma omp parallel for schedule(static)
		for (j = 0; j < (long long)n; j++) {
			struct span s = span_of(m, (uint32_t)j);
			double sum = 0;
			size_t r, i;

			for (r = s.row; r < n_rows; r += s.step)
				for (i = r * m->n_in + s.at; i < r * m->n_in + s.at + s.n; i++)
					sum += distance(buf[i] - x[i], power);
			m->loss[v * n + (size_t)j] += sum;
		}
	}
}

void vq_range_pick(const struct vq_range_meter *m, float *ranges)
{
	size_t n = m->grid.n_ranges, j, v, best;

	for (j = 0; j < n; j++) {
		for (v = 1, best = 0; v < VQ_N_PERCENTILES; v++)
			if (m->loss[v * n + j] < m->loss[best * n + j])
				best = v;
		ranges[j] = ranges[2 * best * n + j];
		ranges[n + j] = ranges[(2 * best + 1) * n + j];
	}
}
