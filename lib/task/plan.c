/* The partition of units into blocks, and its JSON. */
#include "task/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

static const char *const partition_names[] = {"entropy", "fixed", "random", "none"};
static const char *const proxy_names[] = {"entropy", "error"};
static const char *const space_names[] = {"raw", "hadamard"};

struct vq_plan_bounds vq_plan_bounds_of(const struct vq_config *c, const struct vq_calib_meta *m)
{
	struct vq_plan_bounds b = {vq_config_n_units(c), VQ_PLAN_NO_UNIT, NULL, 0};

	if (c->has_vision)
		b.projector = vq_config_projector_unit(c);
	if (m) {
		b.starts = m->checkpoints;
		b.n_starts = m->n_checkpoints;
	}
	return b;
}

int vq_plan_may_join(const struct vq_plan_bounds *b, uint32_t k)
{
	uint32_t i;

	if (k + 1 >= b->n_units || k == b->projector || k + 1 == b->projector)
		return 0;
	for (i = 0; i < b->n_starts; i++)
		if (b->starts[i] == k + 1)
			return 0;
	return 1;
}

/* The mean over the pairs that exist, whether or not a block may join them. */
static double mean_d(const double *d, uint32_t n)
{
	double sum = 0;
	uint32_t i, m = 0;

	for (i = 0; i < n; i++)
		if (d[i] >= 0) {
			sum += d[i];
			m++;
		}
	return m ? sum / m : 0;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The same pairs' quantile q, between the two nearest ones in proportion. */
static int quantile_d(const double *d, uint32_t n, double q, double *out, struct vq_err *err)
{
	double *s = vq_alloc(n, sizeof(*s), err), at;
	uint32_t i, m = 0;

	if (!s)
		return VQ_E_SYS;
	for (i = 0; i < n; i++)
		if (d[i] >= 0)
			s[m++] = d[i];
	qsort(s, m, sizeof(*s), ascending);
	at = m ? q * (m - 1) : 0;
	i = (uint32_t)at;
	*out = !m ? 0 : i + 1 < m ? s[i] + (at - i) * (s[i + 1] - s[i]) : s[m - 1];
	vq_free(s);
	return VQ_OK;
}

/* The threshold that was left to us. */
static int choose_h0(struct vq_plan *p, struct vq_err *err)
{
	p->h0 = 0;
	if (!p->d || p->n_units < 2)
		return VQ_OK;
	if (p->quantile >= 0)
		return quantile_d(p->d, p->n_units - 1, p->quantile, &p->h0, err);
	p->h0 = mean_d(p->d, p->n_units - 1);
	return VQ_OK;
}

/* The last unit of the block that starts at `first`. */
static uint32_t block_end(const struct vq_plan *p, const struct vq_plan_bounds *b, uint32_t first)
{
	uint32_t last = first, depth = p->depth;
	double sum = 0;

	if (p->partition == VQ_PART_NONE || (p->partition == VQ_PART_ENTROPY && !p->d))
		return first;
	if (p->partition == VQ_PART_RANDOM)
		depth = 1 +
			(uint32_t)(vq_rng_uniform(vq_rng_new(p->seed, "partition"), first) * depth);
	if (p->partition == VQ_PART_FIXED && p->offset && (first == 0 || first == b->projector + 1))
		depth = p->offset < depth ? p->offset : depth;
	while (last - first + 1 < depth && vq_plan_may_join(b, last)) {
		if (p->partition == VQ_PART_ENTROPY) {
			if (p->d[last] < 0)
				break;
			sum += p->d[last];
			if (!(sum > (last + 1 - first) * p->h0))
				break;
		}
		last++;
	}
	return last;
}

int vq_plan_cut(struct vq_plan *p, const struct vq_plan_bounds *b, struct vq_err *err)
{
	uint32_t first;

	if (b->n_units == 0 || b->n_units > VQ_PLAN_MAX_UNITS || p->depth == 0)
		return vq_fail(err, VQ_E_DATA, "plan: want 1..%u units and a depth, got %u and %u",
			       VQ_PLAN_MAX_UNITS, b->n_units, p->depth);
	p->n_units = b->n_units;
	p->n_blocks = 0;
	p->blocks = vq_alloc(b->n_units, sizeof(*p->blocks), err);
	if (!p->blocks)
		return VQ_E_SYS;
	if (p->h0 < 0 && choose_h0(p, err) < 0)
		return VQ_E_SYS;
	for (first = 0; first < b->n_units;) {
		uint32_t last = block_end(p, b, first);

		p->blocks[p->n_blocks++] = (struct vq_block){first, last};
		first = last + 1;
	}
	return VQ_OK;
}

void vq_plan_free(struct vq_plan *p)
{
	vq_free(p->blocks);
	vq_free(p->d);
	memset(p, 0, sizeof(*p));
}

uint32_t vq_plan_block_of(const struct vq_plan *p, uint32_t unit)
{
	uint32_t lo = 0, hi = p->n_blocks;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (p->blocks[mid].first <= unit)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* One [first, last] of the list; `next` is the unit that must come. */
static int parse_block(struct vq_block *out, const json_t *j, size_t i, uint32_t next,
		       const struct vq_plan_bounds *b, const char *label, struct vq_err *err)
{
	json_int_t first, last, k;

	if (json_array_size(j) != 2 || !json_is_integer(json_array_get(j, 0)) ||
	    !json_is_integer(json_array_get(j, 1)))
		return vq_fail(err, VQ_E_DATA,
			       "%s: plan: block %zu: want a pair of units [first, last]", label, i);
	first = json_integer_value(json_array_get(j, 0));
	last = json_integer_value(json_array_get(j, 1));
	if (first != next || last < first || last >= b->n_units)
		return vq_fail(err, VQ_E_DATA,
			       "%s: plan: block %zu: want [%u, last] with last in %u..%u, got "
			       "[%lld, %lld]",
			       label, i, next, next, b->n_units - 1, (long long)first,
			       (long long)last);
	for (k = first; k < last; k++)
		if (!vq_plan_may_join(b, (uint32_t)k))
			return vq_fail(
				err, VQ_E_DATA,
				"%s: plan: block %zu: [%lld, %lld] crosses the projector or a "
				"checkpoint between units %lld and %lld",
				label, i, (long long)first, (long long)last, (long long)k,
				(long long)k + 1);
	*out = (struct vq_block){(uint32_t)first, (uint32_t)last};
	return VQ_OK;
}

static int parse_blocks(struct vq_plan *p, const json_t *j, const struct vq_plan_bounds *b,
			const char *label, struct vq_err *err)
{
	size_t n = json_array_size(j), i;
	uint32_t next = 0;

	if (n == 0 || n > VQ_PLAN_MAX_UNITS)
		return vq_fail(err, VQ_E_DATA, "%s: plan: want 1..%u blocks, got %zu", label,
			       VQ_PLAN_MAX_UNITS, n);
	p->blocks = vq_alloc(n, sizeof(*p->blocks), err);
	if (!p->blocks)
		return VQ_E_SYS;
	for (i = 0; i < n; i++) {
		int rc = parse_block(&p->blocks[i], json_array_get(j, i), i, next, b, label, err);

		if (rc < 0)
			return rc;
		next = p->blocks[i].last + 1;
	}
	if (b->n_units != VQ_PLAN_MAX_UNITS && next != b->n_units)
		return vq_fail(err, VQ_E_DATA, "%s: plan: want blocks up to unit %u, got up to %u",
			       label, b->n_units - 1, next - 1);
	p->n_blocks = (uint32_t)n;
	p->n_units = next;
	return VQ_OK;
}

static int parse_d(struct vq_plan *p, const json_t *j, const char *label, struct vq_err *err)
{
	size_t n = json_array_size(j), i;

	if (!j || json_is_null(j))
		return VQ_OK;
	if (!json_is_array(j) || n != p->n_units - 1)
		return vq_fail(err, VQ_E_DATA, "%s: plan: D: want %u values, got %zu", label,
			       p->n_units - 1, n);
	p->d = vq_alloc(n, sizeof(double), err);
	if (!p->d)
		return VQ_E_SYS;
	for (i = 0; i < n; i++) {
		const json_t *v = json_array_get(j, i);

		if (!json_is_null(v) && (!json_is_number(v) || json_number_value(v) < 0))
			return vq_fail(err, VQ_E_DATA,
				       "%s: plan: D[%zu]: want a number >= 0 or null", label, i);
		p->d[i] = json_is_null(v) ? -1 : json_number_value(v);
	}
	return VQ_OK;
}

/* The position of a word in names, or VQ_E_DATA. */
static int parse_word(int *out, const json_t *j, const char *key, const char *const *names, int n,
		      const char *label, struct vq_err *err)
{
	const char *s;
	int i, rc = vq_json_str(j, key, names[0], &s, label, err);

	if (rc < 0)
		return rc;
	for (i = 0; i < n; i++)
		if (strcmp(s, names[i]) == 0) {
			*out = i;
			return VQ_OK;
		}
	return vq_fail(err, VQ_E_DATA, "%s: plan: %s: '%s' is not known", label, key, s);
}

int vq_plan_parse(struct vq_plan *p, const json_t *j, const struct vq_plan_bounds *b,
		  const char *label, struct vq_err *err)
{
	const struct vq_plan_bounds any = {VQ_PLAN_MAX_UNITS, VQ_PLAN_NO_UNIT, NULL, 0};
	int rc, part = 0, proxy = 0, space = 0;

	memset(p, 0, sizeof(*p));
	if (!json_is_object(j))
		return vq_fail(err, VQ_E_DATA, "%s: plan: want a JSON object", label);
	rc = parse_blocks(p, json_object_get(j, "blocks"), b ? b : &any, label, err);
	if (rc >= 0)
		rc = parse_d(p, json_object_get(j, "D"), label, err);
	if (rc >= 0)
		rc = vq_json_u32(j, "depth", 1, &p->depth, label, err);
	if (rc >= 0)
		rc = vq_json_u32(j, "bits", 4, &p->bits, label, err);
	if (rc >= 0)
		rc = parse_word(&part, j, "partition", partition_names, 4, label, err);
	if (rc >= 0)
		rc = parse_word(&proxy, j, "proxy", proxy_names, 2, label, err);
	if (rc >= 0)
		rc = parse_word(&space, j, "space", space_names, 2, label, err);
	p->h0 = json_number_value(json_object_get(j, "h0"));
	p->seed = (uint64_t)json_integer_value(json_object_get(j, "seed"));
	p->partition = (enum vq_partition)part;
	p->proxy = (enum vq_proxy)proxy;
	p->space = (enum vq_space)space;
	if (rc < 0)
		vq_plan_free(p);
	return rc;
}

json_t *vq_plan_json(const struct vq_plan *p, struct vq_err *err)
{
	json_t *blocks = json_array(), *d = json_array(), *j;
	uint32_t i;
	int bad = !blocks || !d;

	for (i = 0; i < p->n_blocks; i++)
		bad |= json_array_append_new(blocks,
					     json_pack("[I, I]", (json_int_t)p->blocks[i].first,
						       (json_int_t)p->blocks[i].last)) < 0;
	for (i = 0; p->d && i + 1 < p->n_units; i++)
		bad |= json_array_append_new(d, p->d[i] < 0 ? json_null() : json_real(p->d[i])) < 0;
	j = json_pack("{s:o, s:o, s:f, s:I, s:I, s:I, s:s, s:s, s:s}", "blocks", blocks, "D",
		      p->d ? d : json_null(), "h0", p->h0, "depth", (json_int_t)p->depth, "bits",
		      (json_int_t)p->bits, "seed", (json_int_t)p->seed, "partition",
		      partition_names[p->partition], "proxy", proxy_names[p->proxy], "space",
		      space_names[p->space]);
	if (!p->d)
		json_decref(d);
	if (!j || bad) {
		json_decref(j);
		vq_fail(err, VQ_E_SYS, "memory: cannot have the plan's JSON");
		return NULL;
	}
	return j;
}
