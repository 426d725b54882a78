/* JPEG through libjpeg-turbo with the settings that Pillow uses (accurate integer DCT, smooth chroma). */
#include <stdio.h> /* before jpeglib.h, which needs FILE */
#include <setjmp.h>
#include <string.h>
#include <jpeglib.h>
#include <jerror.h>

#include "base/log.h"
#include "base/mem.h"
#include "format/image_codec.h"

#define MAX_SCANS 500 /* a progressive file with thousands of scans is an attack on time */

/* Everything that must survive libjpeg's longjmp lives here and not in registers. */
struct jpeg_job {
	struct jpeg_decompress_struct c;
	struct jpeg_error_mgr mgr;
	struct jpeg_progress_mgr progress;
	struct jpeg_source_mgr source;
	jmp_buf back;
	struct vq_image im;
	char why[JMSG_LENGTH_MAX];
	int rc; /* set when it was not libjpeg that failed */
	int size_only;
	const char *label;
	struct vq_err *err;
};

static void on_error(j_common_ptr c)
{
	struct jpeg_job *j = c->client_data;

	c->err->format_message(c, j->why);
	longjmp(j->back, 1);
}

static void fail(struct jpeg_job *j, const char *why)
{
	snprintf(j->why, sizeof(j->why), "%s", why);
	longjmp(j->back, 1);
}

/* Pillow decodes damaged data as well as it can, and so do we; but we say so. */
static void on_message(j_common_ptr c, int level)
{
	struct jpeg_job *j = c->client_data;

	if (level >= 0 || c->err->num_warnings++ > 0)
		return;
	c->err->format_message(c, j->why);
	vq_warn("%s: damaged JPEG: %s", j->label, j->why);
}

static void on_progress(j_common_ptr c)
{
	struct jpeg_job *j = c->client_data;

	if (j->c.input_scan_number > MAX_SCANS)
		fail(j, "more than 500 scans");
}

static void source_start(j_decompress_ptr c)
{
	(void)c;
}

static boolean source_fill(j_decompress_ptr c)
{
	fail(c->client_data, "the file is cut short");
	return FALSE;
}

static void source_skip(j_decompress_ptr c, long n)
{
	if (n <= 0)
		return;
	if ((size_t)n > c->src->bytes_in_buffer)
		fail(c->client_data, "the file is cut short");
	c->src->next_input_byte += n;
	c->src->bytes_in_buffer -= (size_t)n;
}

static void set_up(struct jpeg_job *j, const uint8_t *data, size_t n)
{
	jpeg_create_decompress(&j->c);
	j->c.client_data = j;
	j->progress.progress_monitor = on_progress;
	j->c.progress = &j->progress;
	j->source.init_source = source_start;
	j->source.fill_input_buffer = source_fill;
	j->source.skip_input_data = source_skip;
	j->source.resync_to_restart = jpeg_resync_to_restart;
	j->source.term_source = source_start;
	j->source.next_input_byte = data;
	j->source.bytes_in_buffer = n;
	j->c.src = &j->source;
}

static void decode(struct jpeg_job *j)
{
	uint64_t pixels;

	jpeg_read_header(&j->c, TRUE);
	if (j->size_only) {
		j->im.w = j->c.image_width;
		j->im.h = j->c.image_height;
		j->rc = vq_image_check(j->im.w, j->im.h, j->label, j->err);
		return;
	}
	if (j->c.num_components != 1 && j->c.num_components != 3) {
		j->rc = vq_fail(j->err, VQ_E_DATA,
				"%s: want a grey or RGB JPEG, got %d components%s", j->label,
				j->c.num_components,
				j->c.num_components == 4 ? " (CMYK); convert it to RGB" : "");
		return;
	}
	/* A Huffman code has at least one bit for each 8 x 8 block: a small file that claims a huge picture
	 * is refused before memory is taken for it. */
	pixels = (uint64_t)j->c.image_width * j->c.image_height;
	if (!j->c.arith_code && pixels <= VQ_IMAGE_MAX_PIXELS &&
	    pixels / 512 > j->source.bytes_in_buffer)
		fail(j, "the file is cut short: it cannot hold so many pixels");
	j->rc = vq_image_new(&j->im, j->c.image_width, j->c.image_height, j->label, j->err);
	if (j->rc < 0)
		return;
	j->c.out_color_space = JCS_RGB;
	j->c.dct_method = JDCT_ISLOW;
	j->c.do_fancy_upsampling = TRUE;
	jpeg_start_decompress(&j->c);
	while (j->c.output_scanline < j->c.output_height) {
		JSAMPROW row = j->im.rgb + 3 * (size_t)j->im.w * j->c.output_scanline;

		jpeg_read_scanlines(&j->c, &row, 1);
	}
	jpeg_finish_decompress(&j->c);
}

static int run(struct vq_image *im, const uint8_t *data, size_t n, int size_only, const char *label,
	       struct vq_err *err)
{
	struct jpeg_job j = {.label = label, .err = err, .size_only = size_only};

	j.c.err = jpeg_std_error(&j.mgr);
	j.mgr.error_exit = on_error;
	j.mgr.emit_message = on_message;
	j.c.client_data = &j;
	if (setjmp(j.back) == 0) {
		set_up(&j, data, n);
		decode(&j);
	} else {
		j.rc = vq_fail(err, VQ_E_DATA, "%s: bad JPEG: %s", label, j.why);
	}
	jpeg_destroy_decompress(&j.c);
	if (j.rc < 0)
		vq_image_free(&j.im);
	else
		*im = j.im;
	return j.rc;
}

int vq_jpeg_decode(struct vq_image *im, const uint8_t *data, size_t n, const char *label,
		   struct vq_err *err)
{
	return run(im, data, n, 0, label, err);
}

int vq_jpeg_size(const uint8_t *data, size_t n, uint32_t *w, uint32_t *h, const char *label,
		 struct vq_err *err)
{
	struct vq_image im = {0};
	int rc = run(&im, data, n, 1, label, err);

	if (rc >= 0) {
		*w = im.w;
		*h = im.h;
	}
	return rc;
}
