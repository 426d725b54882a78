/* An interrupted output of search, read again. */
#include "task/search_resume.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

struct vq_resume {
	char *path;
	int fd;
	struct vq_reader *in;
	struct vq_record rec;
	int have; /* rec is the reader's current record, not used yet */
	int done; /* nothing usable follows */
};

int vq_resume_open(struct vq_resume **out, const char *path, const json_t *header,
		   struct vq_err *err)
{
	struct vq_resume *r = vq_calloc(1, sizeof(*r), err);
	struct vq_err cut = {0};
	int rc = VQ_E_SYS;

	if (!r)
		return rc;
	r->fd = open(path, O_RDONLY | O_CLOEXEC);
	r->path = vq_strdup(path, err);
	if (r->fd < 0)
		vq_fail_errno(err, VQ_E_SYS, "%s: cannot open", path);
	if (r->fd < 0 || !r->path)
		goto fail;
	rc = vq_reader_open(&r->in, r->fd, r->path, err);
	if (rc < 0)
		goto fail;
	/* A file that ends before its header was interrupted very early: there is nothing to copy. */
	rc = vq_reader_segment(r->in, &cut);
	r->done = rc <= 0;
	if (r->done)
		vq_warn("%s: nothing can be taken from it: %s", path, cut.text);
	rc = VQ_OK;
	if (!r->done && !json_equal(vq_reader_header(r->in), header)) {
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: other parameters, another version or another input made it; "
			     "search without --resume",
			     path);
		goto fail;
	}
	*out = r;
	return VQ_OK;
fail:
	vq_resume_close(r);
	return rc;
}

void vq_resume_close(struct vq_resume *r)
{
	if (!r)
		return;
	vq_reader_close(r->in);
	if (r->fd >= 0)
		close(r->fd);
	vq_free(r->path);
	vq_free(r);
}

/* Makes rec the next unused record: 1, or 0 at the end of what is whole. */
static int peek(struct vq_resume *r)
{
	struct vq_err cut = {0};

	if (r->done)
		return 0;
	if (!r->have && vq_reader_next(r->in, &r->rec, &cut) <= 0) {
		r->done = 1;
		return 0;
	}
	r->have = 1;
	return 1;
}

/* Takes the current record with its payload: 1, 0 (cut within) or < 0 (no memory). */
static int take(struct vq_resume *r, struct vq_held_list *out, struct vq_err *err)
{
	struct vq_err cut = {0};
	int rc = vq_held_load(out, r->in, &r->rec, &cut);

	r->have = 0;
	if (rc == VQ_E_SYS)
		return vq_fail(err, VQ_E_SYS, "%s", cut.text);
	if (rc < 0)
		r->done = 1;
	return rc < 0 ? 0 : 1;
}

int vq_resume_start(struct vq_resume *r, const json_t *mark, struct vq_err *err)
{
	int same = 0, rc = VQ_OK;

	while (rc == VQ_OK && peek(r) && r->rec.kind != VQ_KIND_TENSOR) {
		struct vq_held_list one = {0};

		if (r->rec.kind == VQ_KIND_META && strcmp(r->rec.name, "search") == 0) {
			rc = take(r, &one, err);
			if (rc == 1) {
				json_t *j = vq_json_parse(one.items[0].data,
							  one.items[0].rec.raw_bytes, r->path, err);

				same = json_equal(j, mark);
				rc = !j ? VQ_E_DATA : VQ_OK;
				json_decref(j);
				if (rc == VQ_OK && !same)
					rc = vq_fail(err, VQ_E_DATA,
						     "%s: its input was another; search without "
						     "--resume",
						     r->path);
			}
			vq_held_clear(&one);
		}
		r->have = 0;
	}
	if (rc == VQ_OK && r->have && !same)
		rc = vq_fail(err, VQ_E_DATA, "%s: no record 'search' ahead of the weights",
			     r->path);
	return rc;
}

/* Does the current record stand for the input record in? */
static int stands_for(const struct vq_resume *r, const struct vq_held *in)
{
	const char *source = json_string_value(json_object_get(r->rec.attrs, "source"));
	char text[17];

	if (r->rec.kind != VQ_KIND_TENSOR || strcmp(r->rec.name, in->rec.name) != 0 ||
	    r->rec.n_dims != in->rec.n_dims ||
	    memcmp(r->rec.dims, in->rec.dims, in->rec.n_dims * sizeof(*in->rec.dims)) != 0)
		return 0;
	if (!source)
		return r->rec.dtype == in->rec.dtype && r->rec.hash == in->rec.hash;
	snprintf(text, sizeof(text), "%016" PRIx64, in->rec.hash);
	return strcmp(source, text) == 0;
}

/* How many grids and parts of a transform follow the record of in that the file holds; < 0 when it says nonsense. */
static int n_following(const struct vq_resume *r, const struct vq_held *in, struct vq_err *err)
{
	const json_t *grid = json_object_get(r->rec.attrs, "grid");
	const json_t *transform = json_object_get(r->rec.attrs, "transform");
	struct vq_transform_attr a;
	int n = 0;

	if (grid)
		n = json_object_get(grid, "type")                ? 3
		    : json_is_true(json_object_get(grid, "sym")) ? 1
								 : 2;
	n += json_object_get(json_object_get(r->rec.attrs, "act"), "range") != NULL;
	if (transform) {
		uint32_t n_in = in->rec.n_dims == 2 ? (uint32_t)in->rec.dims[1] : 0;

		if (vq_transform_attr_parse(&a, transform, n_in, in->rec.name, err) < 0)
			return VQ_E_DATA;
		n += vq_transform_is_own(&a, in->rec.name) ? (int)a.n_parts : 0;
	}
	return n;
}

/* The records of one input record, appended to out: 1, 0 or < 0. */
static int one_tensor(struct vq_resume *r, const struct vq_held *in, struct vq_held_list *out,
		      struct vq_err *err)
{
	size_t n = strlen(in->rec.name), stem = n > 7 ? n - 7 : 0; /* ".weight" */
	int rc, grids, i;

	if (!peek(r))
		return 0;
	if (!stands_for(r, in))
		return vq_fail(err, VQ_E_DATA,
			       "%s: record %" PRIu64
			       " '%s': want what search made of '%s' of this input",
			       r->path, r->rec.index, r->rec.name, in->rec.name);
	grids = n_following(r, in, err);
	if (grids < 0)
		return grids;
	rc = take(r, out, err);
	for (i = 0; rc == 1 && i < grids; i++) {
		if (!peek(r))
			return 0;
		if (r->rec.kind != VQ_KIND_GRID || strncmp(r->rec.name, in->rec.name, stem) != 0)
			return vq_fail(err, VQ_E_DATA,
				       "%s: record %" PRIu64 " '%s': want a grid of '%s'", r->path,
				       r->rec.index, r->rec.name, in->rec.name);
		rc = take(r, out, err);
	}
	return rc;
}

int vq_resume_block(struct vq_resume *r, const struct vq_held *in, size_t n, const char *stat,
		    struct vq_held_list *out, struct vq_err *err)
{
	struct vq_held_list got = {0};
	int rc = 1;
	size_t i;

	for (i = 0; rc == 1 && i < n; i++)
		rc = one_tensor(r, &in[i], &got, err);
	if (rc == 1 && stat) {
		rc = peek(r);
		if (rc == 1 && (r->rec.kind != VQ_KIND_STAT || strcmp(r->rec.name, stat) != 0))
			rc = vq_fail(err, VQ_E_DATA, "%s: record %" PRIu64 " '%s': want '%s'",
				     r->path, r->rec.index, r->rec.name, stat);
		if (rc == 1)
			rc = take(r, &got, err);
	}
	if (rc == 1 && vq_held_move(out, &got, err) < 0)
		rc = VQ_E_SYS;
	if (rc == 0)
		r->done = 1;
	vq_held_clear(&got);
	return rc;
}
