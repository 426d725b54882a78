/* Pictures: memory, limits, and which decoder a file wants. */
#include "format/image.h"

#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "format/image_codec.h"

int vq_image_new(struct vq_image *im, uint64_t w, uint64_t h, const char *label, struct vq_err *err)
{
	uint8_t *rgb;

	if (w == 0 || h == 0)
		return vq_fail(err, VQ_E_DATA, "%s: picture has no pixels (%llu x %llu)", label,
			       (unsigned long long)w, (unsigned long long)h);
	if (w > VQ_IMAGE_MAX_SIDE || h > VQ_IMAGE_MAX_SIDE || w * h > VQ_IMAGE_MAX_PIXELS)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want at most %u pixels a side and %llu in all, got %llu x "
			       "%llu; make the picture smaller",
			       label, VQ_IMAGE_MAX_SIDE, VQ_IMAGE_MAX_PIXELS, (unsigned long long)w,
			       (unsigned long long)h);
	rgb = vq_alloc((size_t)(w * h), 3, err);
	if (!rgb)
		return VQ_E_SYS;
	im->w = (uint32_t)w;
	im->h = (uint32_t)h;
	im->rgb = rgb;
	return VQ_OK;
}

int vq_image_decode(struct vq_image *im, const uint8_t *data, size_t n, const char *label,
		    struct vq_err *err)
{
	static const uint8_t png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
	static const uint8_t jpeg[3] = {0xff, 0xd8, 0xff};

	if (n == 0)
		return vq_fail(err, VQ_E_DATA, "%s: want a picture, got an empty file", label);
	if (n >= sizeof(png) && memcmp(data, png, sizeof(png)) == 0)
		return vq_png_decode(im, data, n, label, err);
	if (n >= sizeof(jpeg) && memcmp(data, jpeg, sizeof(jpeg)) == 0)
		return vq_jpeg_decode(im, data, n, label, err);
	return vq_fail(err, VQ_E_DATA,
		       "%s: want a PNG or JPEG picture, got something else; convert it first",
		       label);
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
