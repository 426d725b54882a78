/* What preprocessor_config.json asks for, and doing it: pad, resize, crop, rescale, normalise. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format/preproc_parts.h"

#define MAX_SIDE 16384u /* of the square that a model sees */

static const double clip_mean[3] = {0.48145466, 0.4578275, 0.40821073};
static const double clip_std[3] = {0.26862954, 0.26130258, 0.27577711};
static const double half[3] = {0.5, 0.5, 0.5}; /* both, of the processors with tiles */

/* {"height": h, "width": w}, or both from one integer. */
static int parse_sides(const json_t *v, const char *key, uint32_t *h, uint32_t *w,
		       const char *label, struct vq_err *err)
{
	json_int_t a, b;

	if (json_is_integer(v)) {
		a = b = json_integer_value(v);
	} else if (json_is_integer(json_object_get(v, "height")) &&
		   json_is_integer(json_object_get(v, "width"))) {
		a = json_integer_value(json_object_get(v, "height"));
		b = json_integer_value(json_object_get(v, "width"));
	} else {
		return vq_fail(err, VQ_E_DATA,
			       "%s: '%s': want an integer, {\"shortest_edge\"} or {\"height\", "
			       "\"width\"}",
			       label, key);
	}
	if (a < 1 || b < 1 || a > MAX_SIDE || b > MAX_SIDE)
		return vq_fail(err, VQ_E_DATA, "%s: '%s': want 1..%u, got %lld x %lld", label, key,
			       MAX_SIDE, (long long)a, (long long)b);
	*h = (uint32_t)a;
	*w = (uint32_t)b;
	return VQ_OK;
}

/* CLIP: an integer is the shortest edge.  SigLIP and ViT: an integer is both sides. */
static int parse_size(struct vq_preproc *p, const json_t *v, int square, const char *label,
		      struct vq_err *err)
{
	const json_t *edge = json_object_get(v, "shortest_edge");
	uint32_t h, w;
	int rc;

	p->size = p->size_w = p->size_h = 0;
	rc = parse_sides(edge ? edge : v, "size", &h, &w, label, err);
	if (rc < 0)
		return rc;
	if (edge || (json_is_integer(v) && !square)) {
		p->size = h;
	} else {
		p->size_w = w;
		p->size_h = h;
	}
	return VQ_OK;
}

/* A JSON number, or its text: vq_json_text keeps 9 digits, which is too few for a double. */
static int parse_double(const json_t *j, const char *key, double dflt, double *out,
			const char *label, struct vq_err *err)
{
	const json_t *v = json_object_get(j, key);
	char *end = NULL;

	*out = dflt;
	if (!v || json_is_null(v))
		return VQ_OK;
	if (json_is_string(v))
		*out = strtod(json_string_value(v), &end);
	else
		*out = json_number_value(v);
	if (!(json_is_number(v) || (end && end != json_string_value(v) && !*end)) ||
	    !isfinite(*out))
		return vq_fail(err, VQ_E_DATA, "%s: '%s': want a number", label, key);
	return VQ_OK;
}

static int parse_three(const json_t *j, const char *key, const double dflt[3], double out[3],
		       const char *label, struct vq_err *err)
{
	const json_t *v = json_object_get(j, key);
	size_t i;

	memcpy(out, dflt, 3 * sizeof(*out));
	if (!v || json_is_null(v))
		return VQ_OK;
	if (!json_is_array(v) || json_array_size(v) != 3)
		return vq_fail(err, VQ_E_DATA, "%s: '%s': want three numbers", label, key);
	for (i = 0; i < 3; i++) {
		const json_t *e = json_array_get(v, i);

		if (!json_is_number(e) || !isfinite((float)json_number_value(e)))
			return vq_fail(err, VQ_E_DATA, "%s: '%s': want three numbers", label, key);
		out[i] = json_number_value(e);
	}
	return VQ_OK;
}

/* mean, std, the pad colour (from the means as written, before they become float32) and the scale. */
static int parse_numbers(struct vq_preproc *p, const json_t *j, const char *label,
			 struct vq_err *err)
{
	static const double zero[3] = {0, 0, 0}, one[3] = {1, 1, 1};
	double mean[3], std[3], fill[3];
	int normalise, rescale, i;

	if (vq_json_bool(j, "do_normalize", 1, &normalise, label, err) < 0 ||
	    vq_json_bool(j, "do_rescale", 1, &rescale, label, err) < 0 ||
	    parse_three(j, "image_mean", p->tiled ? half : clip_mean, mean, label, err) < 0 ||
	    parse_three(j, "image_std", p->tiled ? half : clip_std, std, label, err) < 0 ||
	    parse_double(j, "rescale_factor", 1.0 / 255.0, &p->rescale, label, err) < 0)
		return VQ_E_DATA;
	for (i = 0; i < 3; i++)
		fill[i] = trunc(mean[i] * 255.0);
	if (parse_three(j, "fill", fill, fill, label, err) < 0)
		return VQ_E_DATA;
	if (!rescale)
		p->rescale = 1.0;
	for (i = 0; i < 3; i++) {
		p->mean[i] = (float)(normalise ? mean : zero)[i];
		p->std[i] = (float)(normalise ? std : one)[i];
		p->fill[i] = (uint8_t)(fill[i] < 0 ? 0 : fill[i] > 255 ? 255 : fill[i]);
		if (!(p->std[i] > 0))
			return vq_fail(err, VQ_E_DATA, "%s: 'image_std': want numbers above 0",
				       label);
	}
	return VQ_OK;
}

/* Image processors whose arithmetic this is.  *square: an integer size means both sides, no crop.  *tiled: Idefics3's. */
static int parse_kind(const json_t *j, int *square, int *tiled, const char *label,
		      struct vq_err *err)
{
	static const char *const known[] = {"CLIP", "Llava",    "LLaVA",  "Siglip",
					    "ViT",  "Idefics3", "SmolVLM"};
	const char *type;
	size_t i;

	if (vq_json_str(j, "image_processor_type", NULL, &type, label, err) < 0)
		return VQ_E_DATA;
	if (!type && vq_json_str(j, "feature_extractor_type", "CLIP", &type, label, err) < 0)
		return VQ_E_DATA;
	*square = strncmp(type, "Siglip", 6) == 0 || strncmp(type, "ViT", 3) == 0;
	*tiled = strncmp(type, "Idefics3", 8) == 0 || strncmp(type, "SmolVLM", 7) == 0;
	for (i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (strncmp(type, known[i], strlen(known[i])) == 0)
			break;
	if (i == sizeof(known) / sizeof(*known) || strncmp(type, "LlavaNext", 9) == 0 ||
	    strncmp(type, "LlavaOnevision", 14) == 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want a CLIP, LLaVA, SigLIP, ViT, Idefics3 or SmolVLM image "
			       "processor, got '%s'",
			       label, type);
	return VQ_OK;
}

static int parse_aspect(struct vq_preproc *p, const json_t *j, const char *label,
			struct vq_err *err)
{
	const char *aspect;
	int pad;

	if (vq_json_bool(j, "do_pad", 0, &pad, label, err) < 0 ||
	    vq_json_str(j, "image_aspect_ratio", "square", &aspect, label, err) < 0)
		return VQ_E_DATA;
	if (strcmp(aspect, "pad") != 0 && strcmp(aspect, "square") != 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: 'image_aspect_ratio': want 'pad' or 'square', got '%s'", label,
			       aspect);
	p->aspect = pad || aspect[0] == 'p' ? VQ_ASPECT_PAD : VQ_ASPECT_CROP;
	return VQ_OK;
}

/* Resizing and cropping, and that what comes out is what the tower takes. */
static int parse_geometry(struct vq_preproc *p, const json_t *j, int square, uint32_t image_size,
			  const char *label, struct vq_err *err)
{
	const json_t *size = json_object_get(j, "size"), *crop = json_object_get(j, "crop_size");
	uint32_t filter, h = image_size, w = image_size;
	int resize;

	if (vq_json_bool(j, "do_resize", 1, &resize, label, err) < 0 ||
	    vq_json_bool(j, "do_center_crop", !square, &p->center_crop, label, err) < 0 ||
	    vq_json_u32(j, "resample", VQ_FILTER_BICUBIC, &filter, label, err) < 0)
		return VQ_E_DATA;
	if (filter < VQ_FILTER_LANCZOS || filter > VQ_FILTER_BICUBIC)
		return vq_fail(err, VQ_E_DATA,
			       "%s: 'resample': want 1 (Lanczos), 2 (bilinear) or 3 (bicubic), got "
			       "%u",
			       label, filter);
	p->filter = (enum vq_filter)filter;
	p->size = square ? 0 : image_size;
	p->size_w = p->size_h = square ? image_size : 0;
	if (size && !json_is_null(size) && parse_size(p, size, square, label, err) < 0)
		return VQ_E_DATA;
	if (!resize)
		p->size = p->size_w = p->size_h = 0;
	if (p->center_crop && crop && !json_is_null(crop) &&
	    parse_sides(crop, "crop_size", &h, &w, label, err) < 0)
		return VQ_E_DATA;
	if (!p->center_crop && p->size_w) {
		w = p->size_w;
		h = p->size_h;
	}
	if (w != image_size || h != image_size)
		return vq_fail(err, VQ_E_DATA,
			       "%s: pictures come out as %u x %u, but the vision tower takes %u x "
			       "%u",
			       label, w, h, image_size, image_size);
	p->crop = image_size;
	return VQ_OK;
}

const char *vq_aspect_name(enum vq_aspect a)
{
	return a == VQ_ASPECT_PAD ? "pad" : "crop";
}

int vq_preproc_parse(struct vq_preproc *p, const json_t *j, uint32_t image_size, const char *label,
		     struct vq_err *err)
{
	struct vq_preproc q = {0};
	json_t *empty = NULL;
	int square, rc = VQ_OK;

	if (j && !json_is_object(j))
		return vq_fail(err, VQ_E_DATA, "%s: want a JSON object", label);
	if (image_size < 1 || image_size > MAX_SIDE)
		return vq_fail(err, VQ_E_DATA, "%s: image size: want 1..%u, got %u", label,
			       MAX_SIDE, image_size);
	if (!j)
		j = empty = json_object();
	if (!j)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have a JSON object");
	rc = parse_kind(j, &square, &q.tiled, label, err);
	if (rc == VQ_OK && !q.tiled)
		rc = parse_aspect(&q, j, label, err);
	if (rc == VQ_OK)
		rc = parse_numbers(&q, j, label, err);
	if (rc == VQ_OK && q.tiled)
		rc = vq_tiles_parse(&q, j, image_size, label, err);
	else if (rc == VQ_OK)
		rc = parse_geometry(&q, j, square, image_size, label, err);
	json_decref(empty);
	if (rc == VQ_OK)
		*p = q;
	return rc;
}

json_t *vq_preproc_json(const struct vq_preproc *p)
{
	char scale[40];
	json_t *size;

	snprintf(scale, sizeof(scale), "%.17g", p->rescale);
	if (p->tiled)
		return vq_tiles_json(p, scale);
	size = p->size ? json_pack("{s:I}", "shortest_edge", (json_int_t)p->size)
		       : json_pack("{s:I,s:I}", "height", (json_int_t)p->size_h, "width",
				   (json_int_t)p->size_w);
	if (!p->size && !p->size_w) {
		json_decref(size);
		size = json_null();
	}
	return json_pack("{s:s,s:b,s:o,s:I,s:b,s:I,s:s,s:s,s:[f,f,f],s:[f,f,f],s:[i,i,i]}",
			 "image_processor_type", "CLIPImageProcessor", "do_resize",
			 p->size || p->size_w, "size", size, "crop_size", (json_int_t)p->crop,
			 "do_center_crop", p->center_crop, "resample", (json_int_t)p->filter,
			 "image_aspect_ratio", p->aspect == VQ_ASPECT_PAD ? "pad" : "square",
			 "rescale_factor", scale, "image_mean", (double)p->mean[0],
			 (double)p->mean[1], (double)p->mean[2], "image_std", (double)p->std[0],
			 (double)p->std[1], (double)p->std[2], "fill", p->fill[0], p->fill[1],
			 p->fill[2]);
}

/* A w x h canvas of one colour with the picture at (left, top); what hangs over is cut off. */
static int place(const struct vq_image *im, uint32_t w, uint32_t h, int64_t left, int64_t top,
		 const uint8_t fill[3], struct vq_image *out, struct vq_err *err)
{
	uint32_t x0 = left < 0 ? 0 : (uint32_t)left, y0 = top < 0 ? 0 : (uint32_t)top;
	uint32_t sx = left < 0 ? (uint32_t)-left : 0, sy = top < 0 ? (uint32_t)-top : 0;
	uint32_t nx = im->w - sx < w - x0 ? im->w - sx : w - x0;
	uint32_t ny = im->h - sy < h - y0 ? im->h - sy : h - y0;
	size_t i, n = (size_t)w * h;
	int rc = vq_image_new(out, w, h, "crop", err);

	if (rc < 0)
		return rc;
	for (i = 0; i < n; i++)
		memcpy(out->rgb + 3 * i, fill, 3);
	for (i = 0; i < ny; i++)
		memcpy(out->rgb + 3 * ((y0 + i) * (size_t)w + x0),
		       im->rgb + 3 * ((sy + i) * (size_t)im->w + sx), 3 * (size_t)nx);
	return VQ_OK;
}

/* (a - b) / 2 rounded down, as Python's //. */
static int64_t half_down(int64_t d)
{
	return d >= 0 ? d / 2 : -((1 - d) / 2);
}

static int resize(const struct vq_preproc *p, const struct vq_image *im, struct vq_image *out,
		  struct vq_err *err)
{
	uint64_t w = p->size_w, h = p->size_h;

	if (p->size) {
		uint64_t s = im->w < im->h ? im->w : im->h, l = im->w < im->h ? im->h : im->w;
		uint64_t edge =
			(uint64_t)((double)(p->size * l) / (double)s); /* Python's int(a / b) */

		w = im->w <= im->h ? p->size : edge;
		h = im->w <= im->h ? edge : p->size;
	}
	if (w > VQ_IMAGE_MAX_SIDE || h > VQ_IMAGE_MAX_SIDE)
		return vq_fail(err, VQ_E_DATA,
			       "a picture of %u x %u is too narrow: its shortest edge resized to "
			       "%u makes the other longer than %u",
			       im->w, im->h, p->size, VQ_IMAGE_MAX_SIDE);
	return vq_image_resize(im, (uint32_t)w, (uint32_t)h, p->filter, out, err);
}

/* Three 256-entry tables make the arithmetic exact and fast. */
void vq_tiles_normalise(const struct vq_preproc *p, const struct vq_image *im, uint32_t x0,
			uint32_t y0, float *out)
{
	uint32_t side = p->crop, x, y;
	float lut[256];
	int c, v;

	for (c = 0; c < 3; c++) {
		for (v = 0; v < 256; v++) {
			float x = (float)(v * p->rescale);

			lut[v] = (x - p->mean[c]) / p->std[c];
		}
		for (y = 0; y < side; y++) {
			const uint8_t *row =
				im->rgb + 3 * ((size_t)(y0 + y) * im->w + x0) + (size_t)c;

			for (x = 0; x < side; x++)
				*out++ = lut[row[3 * (size_t)x]];
		}
	}
}

/* Replaces the picture that *cur points to by next. */
static void advance(const struct vq_image **cur, struct vq_image *held, struct vq_image *next)
{
	vq_image_free(held);
	*held = *next;
	*cur = held;
}

int vq_preprocess(const struct vq_preproc *p, const struct vq_image *im, float *out,
		  struct vq_err *err)
{
	static const uint8_t black[3] = {0, 0, 0};
	struct vq_image held = {0}, next = {0};
	const struct vq_image *cur = im;
	int rc = VQ_OK;

	if (p->tiled)
		return vq_tiles_make(p, im, out, err);
	if (p->aspect == VQ_ASPECT_PAD && im->w != im->h) {
		uint32_t side = im->w > im->h ? im->w : im->h;

		rc = place(im, side, side, (side - im->w) / 2, (side - im->h) / 2, p->fill, &next,
			   err);
		if (rc < 0)
			goto out;
		advance(&cur, &held, &next);
	}
	if (p->size || p->size_w) {
		rc = resize(p, cur, &next, err);
		if (rc < 0)
			goto out;
		advance(&cur, &held, &next);
	}
	if (p->center_crop && (cur->w != p->crop || cur->h != p->crop)) {
		rc = place(cur, p->crop, p->crop, -half_down((int64_t)cur->w - p->crop),
			   -half_down((int64_t)cur->h - p->crop), black, &next, err);
		if (rc < 0)
			goto out;
		advance(&cur, &held, &next);
	}
	if (cur->w != p->crop || cur->h != p->crop) {
		rc = vq_fail(err, VQ_E_DATA, "want a picture of %u x %u pixels, got %u x %u",
			     p->crop, p->crop, cur->w, cur->h);
		goto out;
	}
	vq_tiles_normalise(p, cur, 0, 0, out);
out:
	vq_image_free(&held);
	return rc;
}
