/* Hashes made right again, so that what a fuzzer changed gets past them: whoever means harm computes them too.  All of
 * these work in place and leave alone what they do not know. */
#ifndef FUZZ_REPAIR_H
#define FUZZ_REPAIR_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "stream/frame.h"

/* --- model streams (stream/frame.h) --- */

/* The hash of a stored payload of n bytes at p goes into the record header c; 0 when it is of another layout. */
static inline int fuzz_fix_payload(uint8_t *c, const uint8_t *p, size_t n)
{
	uint64_t raw = vq_get_u64(c + 24), left = raw;
	XXH64_state_t *s;

	if (vq_get_u32(c + 20) != VQ_CODEC_STORED || raw > n || vq_stored_bytes(raw) > n)
		return 0;
	s = XXH64_createState();
	if (!s)
		return 0;
	(void)XXH64_reset(s, 0);
	for (p += VQ_STORED_HEAD; left > 0; left -= n, p += n) {
		n = left < VQ_BLOCK ? (size_t)left : VQ_BLOCK;
		p += VQ_BLOCK_HEAD;
		(void)XXH64_update(s, p, n);
	}
	vq_put_u64(c + 40, XXH64_digest(s));
	XXH64_freeState(s);
	return 1;
}

/* The hashes of headers, stored payloads and the end record, whose counts are made right too. */
static inline void fuzz_fix_stream(uint8_t *p, size_t n)
{
	XXH64_state_t *s = XXH64_createState();
	uint64_t records = 0, raw = 0;
	size_t at = 0, k;

	if (s)
		(void)XXH64_reset(s, 0);
	while (s && n - at >= VQ_SKIP_BYTES + 16 && vq_get_u32(p + at) == VQ_SKIP_MAGIC) {
		uint8_t *c = p + at + VQ_SKIP_BYTES;

		k = vq_get_u32(p + at + 4);
		if (k < 16 || k > n - at - VQ_SKIP_BYTES)
			break;
		at += VQ_SKIP_BYTES + k;
		if (memcmp(c, VQ_TAG_RECORD, VQ_TAG_BYTES) == 0 && k >= VQ_RECORD_BYTES) {
			uint64_t stored = vq_get_u64(c + 32);

			if (stored > n - at)
				break;
			fuzz_fix_payload(c, p + at, n - at);
			at += stored;
			records++;
			raw += vq_get_u64(c + 24);
		}
		if (memcmp(c, VQ_TAG_END, VQ_TAG_BYTES) == 0 && k == VQ_END_BYTES) {
			vq_put_u64(c + 8, records);
			vq_put_u64(c + 16, raw);
			vq_put_u64(c + 24, XXH64_digest(s));
			(void)XXH64_reset(s, 0);
			records = raw = 0;
		}
		vq_put_u64(c + k - 8, XXH64(c, k - 8, 0));
		if (memcmp(c, VQ_TAG_RECORD, VQ_TAG_BYTES) == 0)
			(void)XXH64_update(s, c, k);
	}
	XXH64_freeState(s);
}

/* --- tar, and packed models (format/vqm.h) --- */

#define FUZZ_BLOCK 512u

struct fuzz_entry {
	const char *name; /* in the header, at most 100 bytes */
	size_t at, n;     /* of its data */
};

static inline void fuzz_tar_sum(uint8_t *h)
{
	unsigned sum = 0, i;

	memset(h + 148, ' ', 8);
	for (i = 0; i < FUZZ_BLOCK; i++)
		sum += h[i];
	snprintf((char *)h + 148, 8, "%06o", sum);
}

/* The headers' checksums; lists at most room plain files.  How many there are. */
static inline size_t fuzz_fix_tar(uint8_t *p, size_t n, struct fuzz_entry *list, size_t room)
{
	size_t at = 0, found = 0, k;
	char digits[13] = {0};

	while (n - at >= FUZZ_BLOCK && memcmp(p + at + 257, "ustar", 5) == 0) {
		memcpy(digits, p + at + 124, 12);
		k = strtoull(digits, NULL, 8);
		fuzz_tar_sum(p + at);
		if (k > n - at - FUZZ_BLOCK)
			break;
		if (p[at + 156] != 'x' && p[at + 156] != 'g' && found < room)
			list[found++] = (struct fuzz_entry){(char *)p + at, at + FUZZ_BLOCK, k};
		k = (k + FUZZ_BLOCK - 1) / FUZZ_BLOCK * FUZZ_BLOCK;
		if (k > n - at - FUZZ_BLOCK)
			break;
		at += FUZZ_BLOCK + k;
	}
	return found;
}

/* Places and hashes of the members in a manifest. */
static inline void fuzz_fix_members(json_t *list, const uint8_t *p, const struct fuzz_entry *e,
				    size_t n)
{
	char hex[VQ_SHA256_HEX], name[101] = {0};
	size_t i;

	for (i = 0; i < n; i++) {
		json_t *o = json_array_get(list, i);

		memcpy(name, e[i].name, 100);
		vq_sha256_of(p + e[i].at, e[i].n, hex);
		json_object_set_new(o, "name", json_string(name));
		json_object_set_new(o, "size", json_integer((json_int_t)e[i].n));
		json_object_set_new(o, "offset", json_integer((json_int_t)e[i].at));
		json_object_set_new(o, "sha256", json_string(hex));
	}
}

/* A packed model: checksums, and the manifest where the new one has room. */
static inline void fuzz_fix_vqm(uint8_t *p, size_t n)
{
	static struct fuzz_entry e[4096];
	size_t k = fuzz_fix_tar(p, n, e, sizeof(e) / sizeof(e[0]));
	json_t *j = k ? json_loadb((const char *)p + e[k - 1].at, e[k - 1].n, 0, NULL) : NULL;
	char hex[VQ_SHA256_HEX], *text;

	if (!json_is_object(j)) {
		json_decref(j);
		return;
	}
	fuzz_fix_members(json_object_get(j, "members"), p, e, k - 1);
	json_object_del(j, "sha256");
	text = vq_json_text(j, NULL);
	if (text) {
		vq_sha256_of(text, strlen(text), hex);
		json_object_set_new(j, "sha256", json_string(hex));
		vq_free(text);
		text = vq_json_text(j, NULL);
	}
	if (text && strlen(text) <= e[k - 1].n) {
		memset(p + e[k - 1].at, ' ', e[k - 1].n);
		memcpy(p + e[k - 1].at, text, strlen(text));
	}
	vq_free(text);
	json_decref(j);
}

/* f on the bytes as they are, and on a copy repaired by fix. */
static inline int fuzz_both(int (*f)(const uint8_t *, size_t), void (*fix)(uint8_t *, size_t),
			    const uint8_t *data, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);
	int bad = !copy || f(data, n);

	if (copy && n)
		memcpy(copy, data, n);
	if (!bad)
		fix(copy, n);
	if (!bad && memcmp(copy, data, n) != 0)
		bad = f(copy, n);
	free(copy);
	return bad;
}

#endif
