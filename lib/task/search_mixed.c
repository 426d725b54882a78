/* Which layers keep inputs of 8 bits. */
#include "task/search_mixed.h"

#include <math.h>

#include "base/mem.h"
#include "task/search_held.h"

static struct vq_entropy_opts entropy_opts(const struct vq_search_opts *o)
{
	return (struct vq_entropy_opts){
		.bits = 4, .space = o->rotate == VQ_ROTATE_NONE ? VQ_SPACE_RAW : VQ_SPACE_HADAMARD};
}

int vq_mixed_wants(const struct vq_search_opts *o, const struct vq_record *rec)
{
	struct vq_entropy_opts e = entropy_opts(o);

	return o->mixed > 0 && rec->kind == VQ_KIND_STAT && vq_entropy_stat_wants(&e, rec);
}

int vq_mixed_record(struct vq_entropy_stat *s, const struct vq_search_opts *o,
		    const struct vq_config *c, struct vq_reader *r, const struct vq_record *rec,
		    struct vq_writer *out, struct vq_err *err)
{
	struct vq_entropy_opts e = entropy_opts(o);
	struct vq_held_list one = {0};
	int rc = vq_held_load(&one, r, rec, err);

	vq_entropy_stat_config(s, c);
	if (rc == VQ_OK)
		rc = vq_entropy_stat_take(s, &e, &one.items[0].rec, one.items[0].data,
					  vq_reader_label(r), err);
	if (rc >= 0)
		rc = out ? vq_held_put(&one, out, err) : VQ_OK;
	vq_held_clear(&one);
	return rc;
}

/* Units with an entropy that come before unit u. */
static uint32_t n_before(const struct vq_entropy_stat *s, uint32_t u)
{
	uint32_t n = 0, i;

	for (i = 0; i < s->n_units; i++)
		n += s->h[i] >= 0 && (s->h[i] > s->h[u] || (s->h[i] == s->h[u] && i < u));
	return n;
}

int vq_mixed_units(uint8_t **wide, const struct vq_entropy_stat *s, const struct vq_search_opts *o,
		   const char *label, struct vq_err *err)
{
	uint32_t n = 0, u;
	double most;

	if (!(o->mixed > 0))
		return VQ_OK;
	if (!s->h)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: --mixed wants record 'stat/joint/%s/4'; vqlm-calib sends it with -d, "
			"-n above 0 and 4 among its --bits",
			label, o->rotate == VQ_ROTATE_NONE ? "raw" : "hadamard");
	*wide = vq_calloc(s->n_units, 1, err);
	if (!*wide)
		return VQ_E_SYS;
	for (u = 0; u < s->n_units; u++)
		n += s->h[u] >= 0;
	most = rint(o->mixed * n);
	for (u = 0; u < s->n_units; u++)
		(*wide)[u] = s->h[u] >= 0 && n_before(s, u) < most;
	return VQ_OK;
}
