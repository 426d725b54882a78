/* PNG through libpng, to the RGB that Pillow's open and convert("RGB") give. */
#include <png.h>
#include <setjmp.h>
#include <string.h>

#include "base/mem.h"
#include "format/image_codec.h"

/* Everything that must survive libpng's longjmp lives here and not in registers. */
struct png_job {
	png_structp png;
	png_infop info;
	const uint8_t *data;
	size_t n, at;
	struct vq_image im;
	uint8_t *
		rgba; /* [h, w, 4] of a picture that is laid on white; NULL: rows are those of im */
	png_bytep *rows;
	char why[160];
	int rc; /* set when it was not libpng that failed */
	enum vq_alpha alpha;
	const char *label;
	struct vq_err *err;
};

static void on_read(png_structp png, png_bytep to, size_t n)
{
	struct png_job *j = png_get_io_ptr(png);

	if (n > j->n - j->at)
		png_error(png, "the file is cut short");
	memcpy(to, j->data + j->at, n);
	j->at += n;
}

static void on_error(png_structp png, png_const_charp text)
{
	struct png_job *j = png_get_error_ptr(png);
	size_t n = strlen(text);

	n = n < sizeof(j->why) - 1 ? n : sizeof(j->why) - 1;
	memcpy(j->why, text, n);
	j->why[n] = '\0';
	png_longjmp(png, 1);
}

/* Warnings are about chunks that do not touch the pixels (profiles, dates). */
static void on_warning(png_structp png, png_const_charp text)
{
	(void)png;
	(void)text;
}

/* Palette entries, in place from the right.  Pillow starts with a grey ramp, so an index past the palette
 * gives grey of that level. */
static void expand_palette(struct png_job *j)
{
	png_colorp entry = NULL;
	uint8_t table[256][3];
	int n = 0, i;
	uint32_t y, x;

	png_get_PLTE(j->png, j->info, &entry, &n);
	for (i = 0; i < 256; i++)
		memset(table[i], i, 3);
	for (i = 0; i < n && i < 256; i++) {
		table[i][0] = entry[i].red;
		table[i][1] = entry[i].green;
		table[i][2] = entry[i].blue;
	}
	for (y = 0; y < j->im.h; y++)
		for (x = j->im.w; x-- > 0;)
			memcpy(j->rows[y] + 3 * (size_t)x, table[j->rows[y][x]], 3);
}

/* 16-bit grey becomes Pillow's mode I, whose convert("RGB") clips at 255. */
static void clip_grey16(struct png_job *j)
{
	uint32_t y, x;

	for (y = 0; y < j->im.h; y++)
		for (x = j->im.w; x-- > 0;) {
			uint8_t *row = j->rows[y];
			int v = row[2 * (size_t)x] ? 255 : row[2 * (size_t)x + 1];

			memset(row + 3 * (size_t)x, v, 3);
		}
}

/* s a + 255 (1 - a), alpha of 0..255, rounded as Pillow does. */
static void lay_on_white(struct png_job *j)
{
	size_t n = (size_t)j->im.w * j->im.h, i;
	int c;

	for (i = 0; i < n; i++) {
		const uint8_t *p = j->rgba + 4 * i;

		for (c = 0; c < 3; c++) {
			uint32_t v = (uint32_t)p[c] * p[3] + 255u * (255u - p[3]) + 128;

			j->im.rgb[3 * i + (size_t)c] = (uint8_t)((v + (v >> 8)) >> 8);
		}
	}
}

/* Deflate makes at most 1032 bytes of one (258 of 2 bits), so a small file that claims a huge picture is
 * refused before memory is taken for it. */
static int too_short(const struct png_job *j, int depth)
{
	uint64_t bits = (uint64_t)depth * png_get_channels(j->png, j->info);
	uint64_t pixels = (uint64_t)png_get_image_width(j->png, j->info) *
			  png_get_image_height(j->png, j->info);

	return pixels <= VQ_IMAGE_MAX_PIXELS && pixels * bits / 8 / 1032 > j->n;
}

/* The header, and transforms so that a row holds RGB, palette indices or 16-bit grey, at most 3 bytes a
 * pixel; or, *clear, RGB and alpha. */
static int start(struct png_job *j, int *grey16, int *palette, int *clear)
{
	int type, depth;

	png_set_read_fn(j->png, j, on_read);
	png_set_user_limits(j->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); /* ours name the file */
	png_set_benign_errors(j->png, 1);
	png_read_info(j->png, j->info);
	type = png_get_color_type(j->png, j->info);
	depth = png_get_bit_depth(j->png, j->info);
	*palette = type == PNG_COLOR_TYPE_PALETTE;
	*grey16 = type == PNG_COLOR_TYPE_GRAY && depth == 16;
	if (j->alpha == VQ_ALPHA_WHITE && !*grey16 &&
	    ((type & PNG_COLOR_MASK_ALPHA) || png_get_valid(j->png, j->info, PNG_INFO_tRNS))) {
		*palette = 0;
		*clear = 1;
		png_set_expand(j->png);
		png_set_strip_16(j->png);
		png_set_gray_to_rgb(j->png);
	} else if (*palette) {
		png_set_packing(j->png);
	} else if (!*grey16) {
		if (depth < 8)
			png_set_expand_gray_1_2_4_to_8(j->png);
		png_set_strip_16(j->png);
		png_set_strip_alpha(j->png);
		png_set_gray_to_rgb(j->png);
	}
	png_set_interlace_handling(j->png);
	if (too_short(j, depth))
		png_error(j->png, "the file is cut short: it cannot hold so many pixels");
	return vq_image_new(&j->im, png_get_image_width(j->png, j->info),
			    png_get_image_height(j->png, j->info), j->label, j->err);
}

static void decode(struct png_job *j)
{
	int grey16, palette, clear = 0, wide;
	uint8_t *pixels;
	uint32_t y;

	j->rc = start(j, &grey16, &palette, &clear);
	if (j->rc < 0)
		return;
	if (clear && !(j->rgba = vq_alloc((size_t)j->im.w * j->im.h, 4, j->err))) {
		j->rc = VQ_E_SYS;
		return;
	}
	pixels = clear ? j->rgba : j->im.rgb;
	wide = clear ? 4 : 3;
	j->rows = vq_alloc(j->im.h, sizeof(*j->rows), j->err);
	if (!j->rows) {
		j->rc = VQ_E_SYS;
		return;
	}
	for (y = 0; y < j->im.h; y++)
		j->rows[y] = pixels + (size_t)wide * y * j->im.w;
	png_read_update_info(j->png, j->info);
	if (png_get_rowbytes(j->png, j->info) > (size_t)wide * j->im.w ||
	    (clear && png_get_channels(j->png, j->info) != 4))
		png_error(j->png, "rows wider than expected");
	png_read_image(j->png, j->rows);
	png_read_end(j->png, NULL);
	if (palette)
		expand_palette(j);
	if (grey16)
		clip_grey16(j);
	if (clear)
		lay_on_white(j);
}

int vq_png_decode(struct vq_image *im, const uint8_t *data, size_t n, enum vq_alpha alpha,
		  const char *label, struct vq_err *err)
{
	struct png_job j = {.data = data, .n = n, .alpha = alpha, .label = label, .err = err};
	static const uint8_t none[4] = {0, 0, 0, 0};

	/* libpng would say "Invalid IHDR data". */
	if (n >= 24 && memcmp(data + 12, "IHDR", 4) == 0 &&
	    (memcmp(data + 16, none, 4) == 0 || memcmp(data + 20, none, 4) == 0))
		return vq_fail(err, VQ_E_DATA, "%s: picture has no pixels (a side is 0)", label);
	j.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &j, on_error, on_warning);
	j.info = j.png ? png_create_info_struct(j.png) : NULL;
	if (!j.info) {
		png_destroy_read_struct(&j.png, NULL, NULL);
		return vq_fail(err, VQ_E_SYS, "%s: memory: no PNG decoder", label);
	}
	if (setjmp(png_jmpbuf(j.png)) == 0)
		decode(&j);
	else
		j.rc = vq_fail(err, VQ_E_DATA, "%s: bad PNG: %s", label, j.why);
	png_destroy_read_struct(&j.png, &j.info, NULL);
	vq_free(j.rows);
	vq_free(j.rgba);
	if (j.rc < 0)
		vq_image_free(&j.im);
	else
		*im = j.im;
	return j.rc;
}
