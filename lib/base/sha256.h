/* SHA-256 (FIPS 180-4) through nettle, for provenance. */
#ifndef VQ_BASE_SHA256_H
#define VQ_BASE_SHA256_H

#include <stddef.h>
#include <nettle/sha2.h>

#include "base/err.h"

#define VQ_SHA256_HEX 65 /* 64 digits and a zero byte */

/* Incremental: sha256_init, sha256_update, then this. */
void vq_sha256_hex(struct sha256_ctx *ctx, char hex[VQ_SHA256_HEX]);

void vq_sha256_of(const void *data, size_t n, char hex[VQ_SHA256_HEX]);
VQ_MUST_CHECK int vq_sha256_file(const char *path, int status, char hex[VQ_SHA256_HEX],
				 struct vq_err *err);

#endif
