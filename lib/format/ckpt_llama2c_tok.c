/* llama2.c's tokenizer file as a SentencePiece model.
 *
 *   int32 bytes of the longest piece; then for each token float32 score, int32 bytes, the bytes
 *
 * Its pieces are SentencePiece's with spaces in the place of U+2581 and line ends around those of the beginning and the
 * end; ids 0, 1, 2 are unknown, beginning, end, and "<0xNN>" are single bytes, as in every LLaMA model. */
#include "format/ckpt_llama2c.h"

#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/str.h"
#include "format/spm_write.h"

#define FILE_LIMIT ((size_t)256 << 20)

static enum vq_piece_type type_of(uint32_t id, const char *s, size_t n)
{
	if (id == 0)
		return VQ_PIECE_UNKNOWN;
	if (id == VQ_LLAMA2C_BOS || id == VQ_LLAMA2C_EOS)
		return VQ_PIECE_CONTROL;
	return n == 6 && memcmp(s, "<0x", 3) == 0 && s[5] == '>' ? VQ_PIECE_BYTE : VQ_PIECE_NORMAL;
}

static void spell(struct vq_str *out, enum vq_piece_type type, const char *s, size_t n)
{
	size_t i;

	if (type == VQ_PIECE_CONTROL && n > 2 && s[0] == '\n' && s[n - 1] == '\n') {
		vq_str_add(out, s + 1, n - 2);
		return;
	}
	for (i = 0; i < n; i++)
		if (s[i] == ' ')
			vq_str_puts(out, VQ_SPACE);
		else
			vq_str_add(out, s + i, 1);
}

static int convert(struct vq_str *model, const char *data, size_t n, uint32_t vocab,
		   const char *path, struct vq_err *err)
{
	size_t at = sizeof(int32_t);
	uint32_t id;

	for (id = 0; id < vocab; id++) {
		struct vq_str piece = {0};
		enum vq_piece_type type;
		int32_t bytes;
		float score;

		if (n < at + 8)
			break;
		memcpy(&score, data + at, 4);
		memcpy(&bytes, data + at + 4, 4);
		at += 8;
		if (bytes < 0 || (size_t)bytes > n - at)
			break;
		type = type_of(id, data + at, (size_t)bytes);
		spell(&piece, type, data + at, (size_t)bytes);
		model->failed |= piece.failed;
		vq_spm_piece(model, piece.s ? piece.s : "", piece.n, score, type);
		vq_str_free(&piece);
		at += (size_t)bytes;
	}
	if (id < vocab || at != n)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want the %u tokens of a tokenizer of llama2.c, got %s after "
			       "token %u",
			       path, vocab, id < vocab ? "the end" : "more bytes", id);
	vq_spm_end(model, &(struct vq_spm_spec){.byte_fallback = 1,
						.dummy_prefix = 1,
						.unk = 0,
						.bos = VQ_LLAMA2C_BOS,
						.eos = VQ_LLAMA2C_EOS});
	return model->failed ? vq_fail(err, VQ_E_SYS, "memory: cannot have a tokenizer") : VQ_OK;
}

/* The bytes of dir/name: 1, 0 when there is none. */
static int read_beside(const char *dir, const char *name, char **data, size_t *n,
		       struct vq_err *err)
{
	char *path = vq_path_join(dir, name, err);
	int rc = path ? 0 : VQ_E_SYS;

	if (path && vq_path_exists(path)) {
		rc = vq_file_read(path, FILE_LIMIT, VQ_E_DATA, data, n, err);
		rc = rc < 0 ? rc : 1;
	}
	vq_free(path);
	return rc;
}

static int convert_beside(const char *dir, uint32_t vocab, char **data, size_t *n,
			  struct vq_err *err)
{
	struct vq_str model = {0};
	char name[32], *raw = NULL;
	size_t raw_n;
	int rc;

	snprintf(name, sizeof(name), "tok%u.bin", vocab);
	rc = read_beside(dir, name, &raw, &raw_n, err);
	if (rc == 0) {
		snprintf(name, sizeof(name), "tokenizer.bin");
		rc = read_beside(dir, name, &raw, &raw_n, err);
	}
	if (rc <= 0)
		return rc;
	rc = convert(&model, raw, raw_n, vocab, name, err);
	vq_free(raw);
	if (rc == VQ_OK) {
		*data = vq_alloc(model.n + 1, 1, err);
		rc = *data ? 1 : VQ_E_SYS;
	}
	if (rc > 0) {
		memcpy(*data, model.s, model.n + 1);
		*n = model.n;
	}
	vq_str_free(&model);
	return rc;
}

int vq_llama2c_file(const char *path, uint32_t vocab, const char *name, char **data, size_t *n,
		    struct vq_err *err)
{
	static const char *const beside[] = {"tokenizer.json", "tokenizer.model",
					     "tokenizer_config.json", "added_tokens.json"};
	char *dir = vq_path_dir(path, err);
	size_t i;
	int rc = dir ? 0 : VQ_E_SYS;

	for (i = 0; rc == 0 && i < sizeof(beside) / sizeof(beside[0]); i++)
		if (strcmp(name, beside[i]) == 0)
			rc = read_beside(dir, name, data, n, err);
	if (rc == 0 && strcmp(name, "tokenizer.model") == 0)
		rc = convert_beside(dir, vocab, data, n, err);
	vq_free(dir);
	return rc;
}
