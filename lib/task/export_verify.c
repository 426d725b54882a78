/* Exporting: what was written, read back and compared with what the packed model computes with. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "task/export_parts.h"
#include "task/export_read.h"

/* Half a step of float16 at v: relative, and near 0 absolute. */
static double half_step(double v)
{
	return fmax(fabs(v) * 0x1p-11, 0x1p-25);
}

struct tally {
	uint32_t n;
	double worst, bound; /* the largest difference, and the largest that is allowed anywhere */
	uint32_t n_folded;   /* norms */
	const char *bad;     /* a tensor with a difference above what is allowed there */
	double bad_by;
};

static void count(struct tally *t, const char *name, double difference, double bound)
{
	if (difference > t->worst)
		t->worst = difference;
	if (bound > t->bound)
		t->bound = bound;
	if (!(difference <= bound) && !t->bad) {
		t->bad = name;
		t->bad_by = difference;
	}
}

/* Rows first.. first + n of the packed model. */
static int model_rows(const struct vq_export_tensor *m, uint32_t first, uint32_t n, uint32_t n_cols,
		      float *out, struct vq_err *err)
{
	if (m->t.data)
		return vq_tensor_to_f32(&m->t, (size_t)first * n_cols, (size_t)n * n_cols, out,
					err);
	vq_packed_rows(&m->p, first, n, n_cols, out);
	return VQ_OK;
}

static void compare_row(const struct vq_export_item *i, const struct vq_export_seen *s, uint32_t o,
			const float *want, double *got, double *bound, struct tally *t)
{
	uint32_t k;

	memset(bound, 0, i->n_in * sizeof(*bound));
	s->row(s, o, got, bound);
	for (k = 0; k < i->n_in; k++)
		count(t, i->name->name, fabs(got[k] - (double)want[k]),
		      i->as == VQ_AS_HALF ? half_step(got[k]) : bound[k]);
}

/* Norms are vectors: rows of one value. */
static int compare_norm(const struct vq_export *x, const struct vq_export_item *i,
			const struct vq_export_seen *s, const struct vq_export_tensor *m,
			struct vq_err *err)
{
	float *plain = vq_alloc_f32(i->n_out, err);
	double *got = plain ? vq_alloc(i->n_out, sizeof(*got), err) : NULL, none;
	uint32_t o;
	int rc = got ? vq_tensor_to_f32(&m->t, 0, i->n_out, plain, err) : VQ_E_SYS;

	for (o = 0; rc == VQ_OK && o < i->n_out; o++)
		s->row(s, o, &got[o], &none);
	if (rc == VQ_OK)
		rc = vq_export_verify_norm(x, i, plain, got, err);
	vq_free(got);
	vq_free(plain);
	return rc;
}

static int compare(const struct vq_export *x, const struct vq_export_item *i,
		   const struct vq_export_seen *s, struct tally *t, struct vq_err *err)
{
	struct vq_export_tensor m;
	float *want = NULL;
	double *got = NULL;
	uint32_t r, o, rows;
	int rc = vq_export_open(&m, x->v, i->name, err);

	if (rc < 0)
		return rc;
	if (strstr(i->name->name, ".layers.") && strstr(i->name->name, ".norm"))
		rc = compare_norm(x, i, s, &m, err);
	if (rc != VQ_OK) { /* folded, or an error */
		t->n_folded += rc > 0;
		vq_export_close(&m);
		return rc < 0 ? rc : VQ_OK;
	}
	want = vq_alloc_f32((size_t)VQ_PANEL * i->n_in, err);
	got = want ? vq_alloc(2 * (size_t)i->n_in, sizeof(*got), err) : NULL;
	rc = got ? VQ_OK : VQ_E_SYS;
	for (r = 0; rc == VQ_OK && r < i->n_out; r += VQ_PANEL) {
		rows = i->n_out - r < VQ_PANEL ? i->n_out - r : VQ_PANEL;
		rc = model_rows(&m, r, rows, i->n_in, want, err);
		for (o = 0; rc == VQ_OK && o < rows; o++)
			compare_row(i, s, r + o, want + (size_t)o * i->n_in, got, got + i->n_in, t);
	}
	/* Rows of new tokens, after the last, are the first again. */
	if (rc == VQ_OK && i->n_more)
		rc = model_rows(&m, 0, 1, i->n_in, want, err);
	for (o = 0; rc == VQ_OK && o < i->n_more; o++)
		compare_row(i, s, i->n_out + o, want, got, got + i->n_in, t);
	t->n++;
	vq_free(got);
	vq_free(want);
	vq_export_close(&m);
	return rc;
}

static int report(const struct vq_export *x, const struct tally *t, const char *what,
		  struct vq_err *err)
{
	if (t->n_folded)
		vq_export_say(x,
			      "verify: %u weights of norms hold the scales of the inputs behind "
			      "them\n",
			      t->n_folded);
	if (t->n)
		vq_export_say(x, "verify: %u %s, largest difference %g, promised %g\n", t->n, what,
			      t->worst, t->bound);
	return t->bad ? vq_fail(err, VQ_E_NO,
				"%s: '%s': what was written differs by %g, more than promised",
				x->v->label, t->bad, t->bad_by)
		      : VQ_OK;
}

int vq_export_verify(struct vq_export *x, struct vq_err *err)
{
	struct vq_export_read *r = NULL;
	struct tally t[3] = {{0}};
	struct vq_export_seen s;
	char what[64];
	size_t i;
	int rc = vq_export_read_open(&r, x, err);

	for (i = 0; rc == VQ_OK && i < x->n; i++) {
		const struct vq_export_item *it = &x->items[i];

		rc = vq_export_go_on(x, err);
		if (rc == VQ_OK)
			rc = vq_export_read_find(r, it, &s, err);
		if (rc == VQ_OK)
			rc = compare(x, it, &s, &t[it->as], err);
	}
	vq_export_read_close(r);
	snprintf(what, sizeof(what), "matrices in %s", vq_export_name(x->o->to));
	if (rc == VQ_OK)
		rc = report(x, &t[VQ_AS_CODES], what, err);
	if (rc == VQ_OK)
		rc = report(x, &t[VQ_AS_HALF], "matrices dequantized to float16", err);
	return rc < 0 ? rc : report(x, &t[VQ_AS_FLOAT], "tensors of floats", err);
}
