/* Pictures as the decoder reads them, each worked out once: known by the bytes of its file, kept while there is room. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "format/image.h"
#include "task/infer_parts.h"

#define KEEP ((size_t)64 << 20) /* bytes of rows that outlive the questions they were made for */
#define ROWS 512u               /* of the tower at a time, where several towers run at a time */

int vq_picture_read(struct vq_picture_file *f, const char *path, struct vq_err *err)
{
	XXH128_hash_t h;
	int rc = vq_file_read(path, VQ_IMAGE_MAX_FILE, VQ_E_DATA, &f->data, &f->n, err);

	if (rc < 0)
		return rc;
	h = XXH3_128bits(f->data, f->n);
	f->key[0] = h.low64;
	f->key[1] = h.high64;
	return VQ_OK;
}

void vq_picture_file_free(struct vq_picture_file *f)
{
	vq_free(f->data);
	f->data = NULL;
}

static void drop(struct vq_picture *p)
{
	vq_picture_file_free(&p->file);
	vq_free(p->rows);
	vq_free(p);
}

void vq_pictures_init(struct vq_pictures *c, const struct vq_config *cfg)
{
	memset(c, 0, sizeof(*c));
	c->each = cfg->has_vision ? (size_t)cfg->n_image_tokens * cfg->projector.out : 0;
}

void vq_pictures_free(struct vq_pictures *c)
{
	size_t i;

	for (i = 0; i < c->n; i++)
		drop(c->v[i]);
	vq_free(c->v);
	memset(c, 0, sizeof(*c));
}

static int by_age(const void *a, const void *b)
{
	const struct vq_picture *x = *(struct vq_picture *const *)a,
				*y = *(struct vq_picture *const *)b;

	return x->used > y->used ? -1 : x->used < y->used;
}

void vq_pictures_next(struct vq_pictures *c)
{
	size_t most = c->each ? KEEP / (c->each * sizeof(float)) : 0, n = 0, kept;

	c->now++;
	for (kept = 0; kept < c->n; kept++)
		n += c->v[kept]->n;
	if (n <= most)
		return;
	qsort(c->v, c->n, sizeof(*c->v), by_age);
	for (kept = n = 0; kept < c->n && n + c->v[kept]->n <= most; kept++)
		n += c->v[kept]->n;
	while (c->n > kept)
		drop(c->v[--c->n]);
}

static struct vq_picture *find(const struct vq_pictures *c, const uint64_t *key)
{
	size_t i;

	for (i = c->n; i-- > 0;) /* the newest first: questions about a picture stand together */
		if (c->v[i]->file.key[0] == key[0] && c->v[i]->file.key[1] == key[1])
			return c->v[i];
	return NULL;
}

struct vq_picture *vq_pictures_get(struct vq_pictures *c, struct vq_picture_file *f,
				   const char *path, uint32_t n, struct vq_err *err)
{
	struct vq_picture *p = find(c, f->key);

	if (!p) {
		if (c->n == c->room) {
			size_t room = c->room ? 2 * c->room : 64;

			if (vq_grow((void **)&c->v, c->n, room, sizeof(struct vq_picture *), err) <
			    0)
				return NULL;
			c->room = room;
		}
		p = vq_calloc(1, sizeof(*p), err);
		if (!p)
			return NULL;
		p->file = *f;
		p->path = path;
		p->n = n;
		f->data = NULL;
		c->v[c->n++] = p;
	}
	p->used = c->now;
	return p;
}

/* --- the tower --- */

/* Pictures of one go; each that fails has its own error. */
struct go {
	struct vq_picture *const *p;
	uint32_t n;
};

static int pixels_of(const struct vq_config *c, struct vq_picture *p, float *pixels)
{
	struct vq_image im = {0};
	struct vq_tiling t;
	int rc = vq_prompt_decode(c, &im, p->file.data, p->file.n, p->path, &p->err);

	if (rc >= 0)
		rc = vq_preproc_tiling(&c->preproc, im.w, im.h, &t, &p->err);
	if (rc >= 0 && t.n != p->n)
		rc = vq_fail(&p->err, VQ_E_DATA, "%s: its header says another size", p->path);
	if (rc >= 0)
		rc = vq_prompt_pixels(c, &im, p->path, pixels, &p->err);
	vq_image_free(&im);
	return rc;
}

/* Every picture has rows or an error then. */
static void encode(const struct vq_model *m, const struct go *g)
{
	const struct vq_config *c = &m->cfg;
	size_t side = c->vision.image_size, each = 3 * side * side, row_each, i;
	float *pixels = NULL, *rows = NULL;
	struct vq_err err = {0};
	uint32_t *at = vq_alloc((size_t)g->n + 1, sizeof(*at), &err); /* the first tile of each */
	long long k;
	int rc = VQ_OK;

	row_each = (size_t)c->n_image_tokens * c->projector.out;
	for (i = 0; at && i <= g->n; i++)
		at[i] = i ? at[i - 1] + g->p[i - 1]->n : 0;
	if (at)
		pixels = vq_alloc(at[g->n], each * sizeof(float), &err);
	if (pixels)
		rows = vq_alloc(at[g->n], row_each * sizeof(float), &err);
	if (rows) {
#pragma omp parallel for schedule(dynamic, 1)
		for (k = 0; k < (long long)g->n; k++)
			g->p[k]->rc = pixels_of(c, g->p[k], pixels + at[k] * each);
	}
	for (i = 0; rows && i < g->n; i++) {
		if (g->p[i]->rc < 0) /* its pixels are not set */
			memset(pixels + at[i] * each, 0, g->p[i]->n * each * sizeof(float));
	}
	rc = rows ? vq_vision_encode(m, pixels, at[g->n], rows, &err) : VQ_E_SYS;
	for (i = 0; i < g->n; i++) {
		struct vq_picture *p = g->p[i];

		if (rc < 0 && p->rc >= 0) {
			p->rc = rc;
			p->err = err;
		}
		if (p->rc >= 0 && !(p->rows = vq_alloc(p->n, row_each * sizeof(float), &p->err)))
			p->rc = VQ_E_SYS;
		if (p->rows)
			memcpy(p->rows, rows + at[i] * row_each, p->n * row_each * sizeof(float));
		vq_picture_file_free(&p->file);
	}
	vq_free(rows);
	vq_free(pixels);
	vq_free(at);
}

/* Pictures that this round asks for and that are not worked out. */
static uint32_t pending(const struct vq_pictures *c, struct vq_picture **out)
{
	uint32_t n = 0;
	size_t i;

	for (i = 0; i < c->n; i++)
		if (c->v[i]->used == c->now && !c->v[i]->rows && c->v[i]->rc >= 0)
			out[n++] = c->v[i];
	return n;
}

int vq_pictures_encode(struct vq_pictures *c, const struct vq_model *m, uint32_t workers,
		       struct vq_run_times *times, struct vq_err *err)
{
	struct vq_picture **p = vq_alloc(c->n, sizeof(struct vq_picture *), err);
	uint32_t rows = m->cfg.has_vision ? vq_vision_positions(&m->cfg) : 1, n, each, goes;
	double t0 = vq_now();
	long long i;

	if (!p)
		return VQ_E_SYS;
	n = pending(c, p);
	each = (workers > 1 ? ROWS : VQ_MAX_ROWS) / rows;
	each = each && !m->cfg.preproc.tiled ? each : 1; /* a picture's tiles are enough */
	goes = (n + each - 1) / each;
#pragma omp parallel for schedule(dynamic, 1) if (workers > 1)
	for (i = 0; i < (long long)goes; i++) {
		uint32_t first = (uint32_t)i * each, left = n - first;

		encode(m, &(struct go){p + first, left < each ? left : each});
	}
	times->pictures += n;
	times->vision += (vq_now() - t0) * workers;
	vq_free(p);
	return VQ_OK;
}
