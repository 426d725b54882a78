/* How far a run's next-token distributions are from a baseline's. */
#include "task/eval.h"

#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "quant/stats.h"
#include "stream/reader.h"

struct side {
	const char *path;
	int fd, in_segment;
	struct vq_reader *r;
	struct vq_record rec;
	void *data; /* f32 [rows, n] */
	size_t rows, n;
};

static int side_open(struct side *s, const char *path, struct vq_err *err)
{
	s->path = path;
	s->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (s->fd < 0)
		return vq_fail_errno(err, VQ_E_SYS, "%s: cannot open", path);
	return vq_reader_open(&s->r, s->fd, path, err);
}

static void side_close(struct side *s)
{
	vq_free(s->data);
	if (s->r)
		vq_reader_close(s->r);
	if (s->fd >= 0)
		close(s->fd);
}

/* The next record of logits, whatever segment it is in: 1 = there is one, 0 = the end. */
static int side_next(struct side *s, struct vq_err *err)
{
	int rc;

	vq_free(s->data);
	s->data = NULL;
	for (;;) {
		int was_in = s->in_segment;

		rc = was_in ? vq_reader_next(s->r, &s->rec, err) : vq_reader_segment(s->r, err);
		if (rc < 0 || (rc == 0 && !was_in))
			return rc;
		s->in_segment = rc;
		if (was_in && rc == 1 && s->rec.kind == VQ_KIND_TENSOR)
			break;
	}
	s->rows = s->rec.n_dims == 2 ? (size_t)s->rec.dims[0] : 1;
	s->n = s->rec.n_dims ? (size_t)s->rec.dims[s->rec.n_dims - 1] : 0;
	if (s->rec.dtype != VQ_F32 || s->rec.n_dims > 2 || s->rows == 0 || s->n == 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: record '%s': want logits, f32 of one or two dimensions, got %s "
			       "of %u",
			       s->path, s->rec.name, vq_dtype_name(s->rec.dtype), s->rec.n_dims);
	rc = vq_reader_load(s->r, &s->data, err);
	return rc < 0 ? rc : 1;
}

static int compare(struct vq_eval_logits *out, const struct side *a, const struct side *b,
		   struct vq_err *err)
{
	size_t i;

	if (strcmp(a->rec.name, b->rec.name) != 0 || a->n != b->n || a->rows != b->rows)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: record '%s' of %zu times %zu logits, but %s has '%s' of %zu times "
			"%zu there; want runs over the same questions in the same order",
			a->path, a->rec.name, a->rows, a->n, b->path, b->rec.name, b->rows, b->n);
	for (i = 0; i < a->rows; i++) {
		const float *x = (const float *)a->data + i * a->n,
			    *y = (const float *)b->data + i * b->n;
		double kl = vq_kl_logits(y, x, a->n);

		if (!isfinite(kl))
			return vq_fail(err, VQ_E_DATA,
				       "%s: record '%s': want finite logits here and in %s",
				       a->path, a->rec.name, b->path);
		out->kl_mean += kl;
		out->kl_max = fmax(out->kl_max, kl);
		out->same_top += vq_argmax_f32(x, a->n) == vq_argmax_f32(y, a->n);
		out->n++;
	}
	return VQ_OK;
}

int vq_eval_logits(struct vq_eval_logits *out, const char *path, const char *base,
		   struct vq_err *err)
{
	struct side a = {.fd = -1}, b = {.fd = -1};
	int rc, more_a, more_b;

	memset(out, 0, sizeof(*out));
	rc = side_open(&a, path, err);
	if (rc == VQ_OK)
		rc = side_open(&b, base, err);
	while (rc == VQ_OK) {
		more_a = side_next(&a, err);
		more_b = more_a < 0 ? 0 : side_next(&b, err);
		if (more_a < 0 || more_b < 0)
			rc = more_a < 0 ? more_a : more_b;
		else if (more_a != more_b)
			rc = vq_fail(err, VQ_E_DATA, "%s has more questions than %s; want the same",
				     more_a ? path : base, more_a ? base : path);
		else if (more_a)
			rc = compare(out, &a, &b, err);
		else
			break;
	}
	if (rc == VQ_OK && out->n == 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: want logits, got a stream without any", path);
	if (out->n)
		out->kl_mean /= out->n;
	side_close(&a);
	side_close(&b);
	return rc;
}
