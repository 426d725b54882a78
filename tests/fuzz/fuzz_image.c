/* PNG and JPEG decoding, and the size by the header alone. */
#include "fuzz.h"

#include "format/image.h"

int vq_fuzz(const uint8_t *data, size_t n)
{
	struct vq_image im = {0};
	struct vq_err err = {0};
	int rc = vq_image_decode(&im, data, n, "fuzz", &err), bad = fuzz_outcome(rc, &err), k;
	uint32_t w, h;

	if (rc == VQ_OK)
		bad |= !im.w || !im.h || !im.rgb;
	else
		bad |= im.rgb != NULL;
	err.code = VQ_OK;
	k = vq_image_size(data, n, &w, &h, "fuzz", &err);
	bad |= fuzz_outcome(k, &err);
	if (rc == VQ_OK)
		bad |= k < 0 || w != im.w || h != im.h;
	vq_image_free(&im);
	err.code = VQ_OK;
	k = vq_image_decode_as(&im, data, n, VQ_ALPHA_WHITE, "fuzz", &err);
	bad |= fuzz_outcome(k, &err);
	vq_image_free(&im);
	return bad;
}
