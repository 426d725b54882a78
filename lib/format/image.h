/* Pictures: PNG and JPEG to 8-bit RGB as Pillow's convert("RGB") gives it, Pillow's resize, CLIP's crop,
 * pad and normalisation. */
#ifndef VQ_FORMAT_IMAGE_H
#define VQ_FORMAT_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/json.h"

struct vq_image {
	uint32_t w, h;
	uint8_t *rgb; /* [h, w, 3] */
};

#define VQ_IMAGE_MAX_SIDE   65500u
#define VQ_IMAGE_MAX_FILE   ((size_t)1 << 30) /* bytes */
#define VQ_IMAGE_MAX_PIXELS 178956970ull      /* Pillow's limit against decompression bombs */

/* PNG or JPEG by content.  Palettes are expanded (an index past the palette is grey of that level, as in
 * Pillow); alpha and tRNS are dropped, not composited; grey is repeated; 16-bit samples keep their high
 * byte, except plain grey, which Pillow clips at 255.  CMYK JPEG is refused.  EXIF orientation is ignored,
 * as Pillow and Hugging Face do.  Dimensions are checked before memory is taken.  VQ_E_DATA on a cut or
 * bad file; a missing file is `status`.  Given: vq_image_free. */
VQ_MUST_CHECK int vq_image_read(struct vq_image *im, const char *path, int status,
				struct vq_err *err);
VQ_MUST_CHECK int vq_image_decode(struct vq_image *im, const uint8_t *data, size_t n,
				  const char *label, struct vq_err *err);
void vq_image_free(struct vq_image *im);

/* What becomes of alpha and tRNS: VQ_ALPHA_WHITE lays the picture on white, to the bit as Pillow's alpha_composite does
 * (transparent grey of 16 bits is not looked at). */
enum vq_alpha { VQ_ALPHA_DROP, VQ_ALPHA_WHITE };
VQ_MUST_CHECK int vq_image_decode_as(struct vq_image *im, const uint8_t *data, size_t n,
				     enum vq_alpha alpha, const char *label, struct vq_err *err);

/* Width and height by the file's header, held to the same limits; the rest may still be bad. */
VQ_MUST_CHECK int vq_image_size(const uint8_t *data, size_t n, uint32_t *w, uint32_t *h,
				const char *label, struct vq_err *err);

enum vq_filter {
	VQ_FILTER_BILINEAR = 2,
	VQ_FILTER_BICUBIC = 3,
	VQ_FILTER_LANCZOS = 1
}; /* PIL's numbers */

/* w x h pixels, not set; VQ_E_DATA naming label when a side is 0 or past the limits above.  Given. */
VQ_MUST_CHECK int vq_image_new(struct vq_image *im, uint64_t w, uint64_t h, const char *label,
			       struct vq_err *err);

/* Pillow's Image.resize with antialiasing, to the bit.  out is given. */
VQ_MUST_CHECK int vq_image_resize(const struct vq_image *in, uint32_t w, uint32_t h,
				  enum vq_filter f, struct vq_image *out, struct vq_err *err);

/* What preprocessor_config.json says, with the defaults of CLIPImageProcessor. */
enum vq_aspect { VQ_ASPECT_CROP = 0, VQ_ASPECT_PAD = 1 };
const char *vq_aspect_name(enum vq_aspect a); /* "crop", "pad" */

/* As an option: position in VQ_ASPECTS. */
#define VQ_ASPECTS    "model|crop|pad"
#define VQ_ASPECT_OWN 0 /* what the model has; else 1 + an enum vq_aspect */

struct vq_preproc {
	uint32_t size; /* shortest edge after resizing; 0: no resizing by the edge */
	uint32_t size_w,
		size_h;  /* resized to exactly this, whatever the shape; 0, 0: by the edge */
	uint32_t crop;   /* side of the square that the model sees */
	int center_crop; /* 0: what comes out of resizing must be crop x crop already */
	enum vq_filter filter;
	enum vq_aspect aspect; /* pad: first expanded to a square with the colour `fill` */
	uint8_t fill[3];       /* int(mean * 255), LLaVA's expand2square */
	double rescale;        /* 1/255, in double as transformers has it */
	float mean[3], std[3]; /* 0 and 1 when normalisation is off */

	/* Idefics3: a picture becomes tiles of crop x crop pixels; size, size_w, size_h, center_crop and aspect say nothing
	 * then. */
	int tiled;
	uint32_t longest; /* longest edge after resizing; 0: left as it is */
	int split;        /* 0: the whole picture as one tile */
};

/* What becomes of a picture. */
struct vq_tiling {
	uint32_t
		n; /* pictures that the tower sees: rows x cols tiles and the whole; 1 without tiles */
	uint32_t rows, cols;   /* 0, 0: the whole alone */
	uint32_t w, h;         /* resized to this, */
	uint32_t cut_w, cut_h; /* then to this, which tiles fill */
};

#define VQ_MAX_TILES 1024u

/* Of a picture of w x h pixels.  VQ_E_DATA: more than VQ_MAX_TILES. */
VQ_MUST_CHECK int vq_preproc_tiling(const struct vq_preproc *p, uint32_t w, uint32_t h,
				    struct vq_tiling *t, struct vq_err *err);

/* j: preprocessor_config.json (of CLIP, LLaVA, SigLIP, ViT, Idefics3 and SmolVLM image processors), or NULL for the defaults.
 * image_size: what the vision tower takes; the crop must be that.  "image_aspect_ratio" (a key of LLaVA's
 * config.json) is understood too, when the caller merged it in. */
VQ_MUST_CHECK int vq_preproc_parse(struct vq_preproc *p, const json_t *j, uint32_t image_size,
				   const char *label, struct vq_err *err);
json_t *vq_preproc_json(const struct vq_preproc *p); /* what vq_preproc_parse reads back; given */

/* RGB to the model's input: out [n, 3, crop, crop] float32, n as vq_preproc_tiling has it, equal to transformers' slow (Pillow + numpy)
 * image processors to the bit: pad, resize, crop, u8 * (1/255) in double, then (x - mean) / std in
 * float32.  Tiles come row by row, the whole picture behind them. */
VQ_MUST_CHECK int vq_preprocess(const struct vq_preproc *p, const struct vq_image *im, float *out,
				struct vq_err *err);

#endif
