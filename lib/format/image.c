/* Pictures: memory, limits, and which decoder a file wants. */
#include "format/image.h"

#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "format/image_codec.h"

int vq_image_check(uint64_t w, uint64_t h, const char *label, struct vq_err *err)
{
	if (w == 0 || h == 0)
		return vq_fail(err, VQ_E_DATA, "%s: picture has no pixels (%llu x %llu)", label,
			       (unsigned long long)w, (unsigned long long)h);
	if (w > VQ_IMAGE_MAX_SIDE || h > VQ_IMAGE_MAX_SIDE || w * h > VQ_IMAGE_MAX_PIXELS)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want at most %u pixels a side and %llu in all, got %llu x "
			       "%llu; make the picture smaller",
			       label, VQ_IMAGE_MAX_SIDE, VQ_IMAGE_MAX_PIXELS, (unsigned long long)w,
			       (unsigned long long)h);
	return VQ_OK;
}

int vq_image_new(struct vq_image *im, uint64_t w, uint64_t h, const char *label, struct vq_err *err)
{
	uint8_t *rgb;

	if (vq_image_check(w, h, label, err) < 0)
		return VQ_E_DATA;
	rgb = vq_alloc((size_t)(w * h), 3, err);
	if (!rgb)
		return VQ_E_SYS;
	im->w = (uint32_t)w;
	im->h = (uint32_t)h;
	im->rgb = rgb;
	return VQ_OK;
}

static int is_png(const uint8_t *data, size_t n)
{
	static const uint8_t png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

	return n >= sizeof(png) && memcmp(data, png, sizeof(png)) == 0;
}

static int is_jpeg(const uint8_t *data, size_t n)
{
	static const uint8_t jpeg[3] = {0xff, 0xd8, 0xff};

	return n >= sizeof(jpeg) && memcmp(data, jpeg, sizeof(jpeg)) == 0;
}

static int neither(size_t n, const char *label, struct vq_err *err)
{
	if (n == 0)
		return vq_fail(err, VQ_E_DATA, "%s: want a picture, got an empty file", label);
	return vq_fail(err, VQ_E_DATA,
		       "%s: want a PNG or JPEG picture, got something else; convert it first",
		       label);
}

int vq_image_decode(struct vq_image *im, const uint8_t *data, size_t n, const char *label,
		    struct vq_err *err)
{
	return vq_image_decode_as(im, data, n, VQ_ALPHA_DROP, label, err);
}

int vq_image_decode_as(struct vq_image *im, const uint8_t *data, size_t n, enum vq_alpha alpha,
		       const char *label, struct vq_err *err)
{
	if (is_png(data, n))
		return vq_png_decode(im, data, n, alpha, label, err);
	if (is_jpeg(data, n))
		return vq_jpeg_decode(im, data, n, label, err);
	return neither(n, label, err);
}

static uint32_t big_endian(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

int vq_image_size(const uint8_t *data, size_t n, uint32_t *w, uint32_t *h, const char *label,
		  struct vq_err *err)
{
	if (is_jpeg(data, n))
		return vq_jpeg_size(data, n, w, h, label, err);
	if (!is_png(data, n))
		return neither(n, label, err);
	if (n < 24 || memcmp(data + 12, "IHDR", 4) != 0)
		return vq_fail(err, VQ_E_DATA, "%s: bad PNG: no header", label);
	*w = big_endian(data + 16);
	*h = big_endian(data + 20);
	return vq_image_check(*w, *h, label, err);
}

int vq_image_read(struct vq_image *im, const char *path, int status, struct vq_err *err)
{
	char *data;
	size_t n;
	int rc = vq_file_read(path, VQ_IMAGE_MAX_FILE, status, &data, &n, err);

	if (rc < 0)
		return rc;
	rc = vq_image_decode(im, (const uint8_t *)data, n, path, err);
	vq_free(data);
	return rc;
}

void vq_image_free(struct vq_image *im)
{
	vq_free(im->rgb);
	memset(im, 0, sizeof(*im));
}
