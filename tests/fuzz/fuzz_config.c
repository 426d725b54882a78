/* The small files beside the weights: config.json, and after a zero byte each preprocessor_config.json,
 * tokenizer_config.json and generation_config.json, in an archive with one tensor.  What is accepted comes back the same
 * from its canonical form.  A text that begins with {"arch" is taken for the canonical form itself. */
#include "fuzz.h"

#include <stdlib.h>

#include "format/checkpoint.h"
#include "model/config.h"
#include "repair.h"

/* Appends a file to a tar in memory. */
static size_t fuzz_tar(uint8_t *tar, size_t at, const char *name, const void *data, size_t n)
{
	uint8_t *h = tar + at;

	memset(h, 0, FUZZ_BLOCK);
	snprintf((char *)h, 100, "%s", name);
	memcpy(h + 100, "0000644", 8);
	snprintf((char *)h + 124, 12, "%011zo", n);
	memcpy(h + 136, "00000000000", 12);
	h[156] = '0';
	memcpy(h + 257,
	       "ustar\0"
	       "00",
	       8);
	fuzz_tar_sum(h);
	memcpy(h + FUZZ_BLOCK, data, n);
	memset(h + FUZZ_BLOCK + n, 0, FUZZ_BLOCK - 1 - (n + FUZZ_BLOCK - 1) % FUZZ_BLOCK);
	return at + FUZZ_BLOCK + (n + FUZZ_BLOCK - 1) / FUZZ_BLOCK * FUZZ_BLOCK;
}

/* 1 when what was accepted does not survive its canonical form. */
static int fuzz_round_trip(const struct vq_config *c)
{
	struct vq_err err = {0};
	struct vq_config again;
	json_t *j = vq_config_json(c, &err), *k = NULL;
	int bad = !j || vq_config_parse(&again, j, "fuzz", &err) < 0;

	if (!bad)
		k = vq_config_json(&again, &err);
	bad |= !json_equal(j, k);
	if (bad)
		fprintf(stderr, "canonical form: %s\n", err.text);
	json_decref(j);
	json_decref(k);
	return bad;
}

static int fuzz_canonical(const uint8_t *data, size_t n)
{
	struct vq_config c;
	struct vq_err err = {0};
	json_t *j = vq_json_parse((const char *)data, n, "fuzz", &err);
	int rc = j ? vq_config_parse(&c, j, "fuzz", &err) : VQ_E_DATA, bad;

	bad = fuzz_outcome(rc, &err);
	if (rc == VQ_OK)
		bad |= fuzz_round_trip(&c);
	json_decref(j);
	return bad;
}

/* The files as an archive; its length. */
static size_t fuzz_model(uint8_t *tar, const uint8_t *data, size_t n)
{
	static const char *const names[] = {"config.json", "preprocessor_config.json",
					    "tokenizer_config.json", "generation_config.json"};
	static const char head[] = "{\"lm_head.weight\":{\"dtype\":\"F16\",\"shape\":[1],"
				   "\"data_offsets\":[0,2]}}";
	uint8_t weights[8 + sizeof(head) - 1 + 2] = {sizeof(head) - 1};
	size_t at = 0, i;

	memcpy(weights + 8, head, sizeof(head) - 1);
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const uint8_t *end = n ? memchr(data, 0, n) : NULL;
		size_t k = end ? (size_t)(end - data) : n;

		at = fuzz_tar(tar, at, names[i], data, k);
		if (!end)
			break;
		data += k + 1;
		n -= k + 1;
	}
	at = fuzz_tar(tar, at, "model.safetensors", weights, sizeof(weights));
	memset(tar + at, 0, 2 * FUZZ_BLOCK);
	return at + 2 * FUZZ_BLOCK;
}

int vq_fuzz(const uint8_t *data, size_t n)
{
	static const char canonical[] = "{\"arch\"";
	struct vq_ckpt *k = NULL;
	struct vq_config c;
	struct vq_err err = {0};
	char path[64];
	uint8_t *tar;
	int fd, rc, bad;

	if (n >= sizeof(canonical) - 1 && memcmp(data, canonical, sizeof(canonical) - 1) == 0)
		return fuzz_canonical(data, n);
	tar = malloc(n + 14 * FUZZ_BLOCK);
	if (!tar)
		return 1;
	fd = fuzz_file(tar, fuzz_model(tar, data, n), path, sizeof(path));
	free(tar);
	if (fd < 0)
		return 1;
	rc = vq_ckpt_open(&k, path, &err);
	bad = fuzz_outcome(rc, &err);
	if (rc == VQ_OK) {
		rc = vq_config_from_ckpt(&c, k, NULL, &err);
		bad |= fuzz_outcome(rc, &err);
		if (rc == VQ_OK)
			bad |= fuzz_round_trip(&c);
	}
	vq_ckpt_close(k);
	close(fd);
	return bad;
}
