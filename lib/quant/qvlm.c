/* Coordinate descent over rounding functions. */
#include "quant/qvlm.h"

#include "base/mem.h"

/* The best value of one coordinate, all others fixed. */
static int scan(struct vq_descent *d, uint32_t coord, uint8_t *choice, int *changed,
		struct vq_err *err)
{
	uint8_t was = choice[coord], best = 0, v;
	double error[VQ_QVLM_VALUES];
	int found = 0, rc;

	rc = d->enter(d->ctx, coord, choice, err);
	for (v = 0; rc >= 0 && v < VQ_QVLM_VALUES; v++) {
		if (v != was && !d->usable[coord * VQ_QVLM_VALUES + v])
			continue;
		error[v] = d->error;
		if (v != was) {
			choice[coord] = v;
			rc = d->eval(d->ctx, coord, choice, &error[v], err);
			d->n_evals++;
		}
		/* The first of equals stays; a NaN is never taken. */
		if (rc >= 0 && (!found || error[v] < error[best])) {
			if (error[v] == error[v] || v == was)
				best = v;
			found = found || error[v] == error[v];
		}
	}
	choice[coord] = was;
	if (rc < 0)
		return rc;
	if (found && best != was && error[best] <= d->error) {
		choice[coord] = best;
		d->error = error[best];
		*changed = 1;
	}
	return VQ_OK;
}

int vq_qvlm_descend(struct vq_descent *d, uint8_t *choice, struct vq_err *err)
{
	/* How many changes there had been when a coordinate was looked at last: as many as now means that nothing
	 * would come out differently. */
	uint32_t *seen = vq_alloc(d->n_coords, sizeof(*seen), err), n_changes = 1, sweep, i;
	int rc = VQ_OK;

	if (!seen)
		return VQ_E_SYS;
	for (i = 0; i < d->n_coords; i++)
		seen[i] = 0;
	d->n_evals = 0;
	for (sweep = 0; rc >= 0 && sweep < d->sweeps; sweep++) {
		uint32_t before = n_changes;

		for (i = 0; rc >= 0 && i < d->n_coords; i++) {
			int changed = 0;

			if (seen[i] == n_changes)
				continue;
			rc = scan(d, i, choice, &changed, err);
			n_changes += changed ? 1 : 0;
			seen[i] = n_changes;
		}
		if (n_changes == before)
			break;
	}
	vq_free(seen);
	return rc;
}
