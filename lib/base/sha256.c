/* SHA-256 through nettle. */
#include "base/sha256.h"

#include <stdint.h>
#include <stdio.h>

#include "base/io.h"

void vq_sha256_hex(struct sha256_ctx *ctx, char hex[VQ_SHA256_HEX])
{
	uint8_t d[SHA256_DIGEST_SIZE];
	int i;

	sha256_digest(ctx, sizeof(d), d);
	for (i = 0; i < SHA256_DIGEST_SIZE; i++)
		snprintf(hex + 2 * i, 3, "%02x", d[i]);
}

void vq_sha256_of(const void *data, size_t n, char hex[VQ_SHA256_HEX])
{
	struct sha256_ctx ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, n, data);
	vq_sha256_hex(&ctx, hex);
}

int vq_sha256_file(const char *path, int status, char hex[VQ_SHA256_HEX], struct vq_err *err)
{
	struct vq_map m;
	int rc = vq_map_open(&m, path, status, err);

	if (rc < 0)
		return rc;
	vq_sha256_of(m.data, m.n, hex);
	vq_map_close(&m);
	return VQ_OK;
}
