/* Idefics3's pictures: the longest edge to a given length, both sides up to multiples of the tile, tiles, and the whole
 * picture as one more.  The rounding is transformers' (Idefics3ImageProcessor): quotients in double, cut to integers. */
#include <string.h>

#include "format/preproc_parts.h"

#define LONGEST 4096u /* transformers' bound on the longest edge */

/* {"longest_edge": n} or n. */
static int parse_longest(const json_t *j, const char *key, uint32_t dflt, uint32_t *out,
			 const char *label, struct vq_err *err)
{
	const json_t *v = json_object_get(j, key), *n = v;
	char got[64];

	*out = dflt;
	if (!v || json_is_null(v))
		return VQ_OK;
	if (json_is_object(v))
		n = json_object_get(v, "longest_edge");
	if (json_is_integer(n) && json_integer_value(n) >= 1 && json_integer_value(n) <= LONGEST) {
		*out = (uint32_t)json_integer_value(n);
		return VQ_OK;
	}
	vq_json_brief(v, got, sizeof(got));
	return vq_fail(err, VQ_E_DATA, "%s: '%s': want {\"longest_edge\"} of 1..%u, got %s", label,
		       key, LONGEST, got);
}

int vq_tiles_parse(struct vq_preproc *p, const json_t *j, uint32_t image_size, const char *label,
		   struct vq_err *err)
{
	uint32_t filter, tile, most;
	int resize;

	if (vq_json_bool(j, "do_resize", 1, &resize, label, err) < 0 ||
	    vq_json_bool(j, "do_image_splitting", 1, &p->split, label, err) < 0 ||
	    vq_json_u32(j, "resample", VQ_FILTER_LANCZOS, &filter, label, err) < 0 ||
	    parse_longest(j, "size", 4 * 364, &p->longest, label, err) < 0 ||
	    parse_longest(j, "max_image_size", 364, &tile, label, err) < 0)
		return VQ_E_DATA;
	if (filter < VQ_FILTER_LANCZOS || filter > VQ_FILTER_BICUBIC)
		return vq_fail(err, VQ_E_DATA,
			       "%s: 'resample': want 1 (Lanczos), 2 (bilinear) or 3 (bicubic), got "
			       "%u",
			       label, filter);
	if (tile != image_size)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: 'max_image_size': want tiles of %u pixels a side, as the vision "
			"tower takes them, got %u",
			label, image_size, tile);
	most = (p->longest + tile - 1) / tile;
	if (p->split && resize && most * most >= VQ_MAX_TILES)
		return vq_fail(err, VQ_E_DATA,
			       "%s: a picture of %u pixels a side would become %u x %u tiles; want "
			       "fewer than %u",
			       label, p->longest, most, most, VQ_MAX_TILES);
	p->filter = (enum vq_filter)filter;
	p->crop = tile;
	if (!resize)
		p->longest = 0;
	return VQ_OK;
}

json_t *vq_tiles_json(const struct vq_preproc *p, const char *scale)
{
	return json_pack("{s:s,s:b,s:{s:I},s:{s:I},s:b,s:I,s:s,s:[f,f,f],s:[f,f,f]}",
			 "image_processor_type", "Idefics3ImageProcessor", "do_resize",
			 p->longest > 0, "size", "longest_edge",
			 (json_int_t)(p->longest ? p->longest : p->crop), "max_image_size",
			 "longest_edge", (json_int_t)p->crop, "do_image_splitting", p->split,
			 "resample", (json_int_t)p->filter, "rescale_factor", scale, "image_mean",
			 (double)p->mean[0], (double)p->mean[1], (double)p->mean[2], "image_std",
			 (double)p->std[0], (double)p->std[1], (double)p->std[2]);
}

static uint32_t at_least_one(double x)
{
	return x < 1 ? 1 : (uint32_t)x;
}

/* The longer side becomes `edge`, the other follows: even, 1 at least. */
static void fit_longest(uint32_t edge, uint32_t *w, uint32_t *h)
{
	double ratio = (double)*w / *h;
	uint32_t *longer = *w >= *h ? w : h, *shorter = *w >= *h ? h : w;
	uint32_t other = (uint32_t)(*w >= *h ? edge / ratio : edge * ratio);

	*longer = edge;
	*shorter = other + other % 2 ? other + other % 2 : 1;
}

/* Both sides up to multiples of the tile; the shorter one follows the longer one's way up first. */
static void fill_tiles(uint32_t tile, uint32_t *w, uint32_t *h)
{
	double ratio = (double)*w / *h;
	uint32_t *longer = *w >= *h ? w : h, *shorter = *w >= *h ? h : w;
	int wide = *w >= *h;

	*longer = (*longer + tile - 1) / tile * tile;
	*shorter = at_least_one(wide ? *longer / ratio : *longer * ratio);
	*shorter = (*shorter + tile - 1) / tile * tile;
}

int vq_preproc_tiling(const struct vq_preproc *p, uint32_t w, uint32_t h, struct vq_tiling *t,
		      struct vq_err *err)
{
	uint64_t n;

	*t = (struct vq_tiling){.n = 1, .w = w, .h = h};
	if (!p->tiled)
		return VQ_OK;
	if (p->longest)
		fit_longest(p->longest, &t->w, &t->h);
	t->cut_w = t->cut_h = p->crop;
	if (!p->split)
		return VQ_OK;
	t->cut_w = t->w;
	t->cut_h = t->h;
	fill_tiles(p->crop, &t->cut_w, &t->cut_h);
	if (t->cut_w == p->crop && t->cut_h == p->crop)
		return VQ_OK;
	n = (uint64_t)(t->cut_w / p->crop) * (t->cut_h / p->crop) + 1;
	if (n > VQ_MAX_TILES)
		return vq_fail(
			err, VQ_E_DATA,
			"a picture of %u x %u pixels would become %llu tiles, at most %u are "
			"read; make it smaller",
			w, h, (unsigned long long)n, VQ_MAX_TILES);
	t->n = (uint32_t)n;
	t->rows = t->cut_h / p->crop;
	t->cols = t->cut_w / p->crop;
	return VQ_OK;
}

int vq_tiles_make(const struct vq_preproc *p, const struct vq_image *im, float *out,
		  struct vq_err *err)
{
	size_t each = 3 * (size_t)p->crop * p->crop;
	struct vq_image fit = {0}, cut = {0}, whole = {0};
	struct vq_tiling t;
	uint32_t i;
	int rc = vq_preproc_tiling(p, im->w, im->h, &t, err);

	if (rc == VQ_OK)
		rc = vq_image_resize(im, t.w, t.h, p->filter, &fit, err);
	if (rc == VQ_OK)
		rc = vq_image_resize(&fit, t.cut_w, t.cut_h, p->filter, &cut, err);
	for (i = 0; rc == VQ_OK && i + 1 < t.n; i++)
		vq_tiles_normalise(p, &cut, i % t.cols * p->crop, i / t.cols * p->crop,
				   out + i * each);
	if (rc == VQ_OK)
		rc = vq_image_resize(&cut, p->crop, p->crop, p->filter, &whole, err);
	if (rc == VQ_OK)
		vq_tiles_normalise(p, &whole, 0, 0, out + (t.n - 1) * each);
	vq_image_free(&whole);
	vq_image_free(&cut);
	vq_image_free(&fit);
	return rc;
}
