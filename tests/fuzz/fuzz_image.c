/* PNG and JPEG decoding. */
#include "fuzz.h"

#include "format/image.h"

int vq_fuzz(const uint8_t *data, size_t n)
{
	struct vq_image im = {0};
	struct vq_err err = {0};
	int rc = vq_image_decode(&im, data, n, "fuzz", &err), bad = fuzz_outcome(rc, &err);

	if (rc == VQ_OK)
		bad |= !im.w || !im.h || !im.rgb;
	else
		bad |= im.rgb != NULL;
	vq_image_free(&im);
	return bad;
}
