/* tokenizer.model: SentencePiece's ModelProto (sentencepiece_model.proto), read field by field. */
#include <math.h>
#include <string.h>

#include "base/num.h"
#include "format/token_vocab.h"

/* A protocol buffer message: fields of (number, wire type, value). */
struct pb {
	const uint8_t *p, *end;
};

struct field {
	uint32_t number, type;
	uint64_t value; /* varint, fixed32, fixed64 */
	struct pb sub;  /* length-delimited */
};

/* 1 and a varint, or 0 when the message is cut or the number is longer than 64 bits. */
static int varint(struct pb *m, uint64_t *out)
{
	uint32_t shift;

	*out = 0;
	for (shift = 0; m->p < m->end && shift < 64; shift += 7) {
		uint8_t b = *m->p++;

		*out |= (uint64_t)(b & 0x7f) << shift;
		if (b < 0x80)
			return 1;
	}
	return 0;
}

static int fixed(struct pb *m, size_t n, uint64_t *out)
{
	size_t i;

	if ((size_t)(m->end - m->p) < n)
		return 0;
	for (*out = 0, i = 0; i < n; i++)
		*out |= (uint64_t)m->p[i] << (8 * i);
	m->p += n;
	return 1;
}

/* 1 and the next field, 0 at the end, VQ_E_DATA when the message is cut or not one. */
static int next(struct pb *m, struct field *f)
{
	uint64_t tag, n;

	memset(f, 0, sizeof(*f));
	if (m->p == m->end)
		return 0;
	if (!varint(m, &tag) || tag >> 3 == 0 || tag >> 32)
		return VQ_E_DATA;
	f->number = (uint32_t)(tag >> 3);
	f->type = tag & 7;
	switch (f->type) {
	case 0: return varint(m, &f->value) ? 1 : VQ_E_DATA;
	case 1: return fixed(m, 8, &f->value) ? 1 : VQ_E_DATA;
	case 5: return fixed(m, 4, &f->value) ? 1 : VQ_E_DATA;
	case 2:
		if (!varint(m, &n) || n > (uint64_t)(m->end - m->p))
			return VQ_E_DATA;
		f->sub = (struct pb){m->p, m->p + n};
		m->p += n;
		return 1;
	default: return VQ_E_DATA;
	}
}

static int is(const struct field *f, uint32_t number, uint32_t type)
{
	return f->number == number && f->type == type;
}

/* SentencePiece {piece = 1, score = 2, type = 3}. */
static int read_piece(struct vq_tokenizer *t, struct pb m, int64_t id, const char *label,
		      struct vq_err *err)
{
	struct field f;
	struct pb text = {0};
	char copy[64] = "";
	size_t n;
	float score = 0;
	uint64_t type = VQ_PIECE_NORMAL;
	int rc;

	while ((rc = next(&m, &f)) == 1) {
		if (is(&f, 1, 2))
			text = f.sub;
		else if (is(&f, 2, 5))
			score = vq_bits_f32((uint32_t)f.value);
		else if (is(&f, 3, 0))
			type = f.value;
	}
	n = (size_t)(text.end - text.p);
	if (n)
		memcpy(copy, text.p, n < sizeof(copy) ? n : sizeof(copy) - 1);
	if (rc < 0 || !isfinite(score) || type < VQ_PIECE_NORMAL || type > VQ_PIECE_BYTE)
		return vq_fail(err, VQ_E_DATA, "%s: piece %lld '%s' is damaged", label,
			       (long long)id, copy);
	if (type == VQ_PIECE_UNUSED)
		return vq_fail(err, VQ_E_DATA,
			       "%s: piece %lld '%s': a restricted vocabulary (unused pieces) is "
			       "not supported",
			       label, (long long)id, copy);
	rc = vq_vocab_put(t, id, n ? (const char *)text.p : "", n, (enum vq_piece_type)type, score,
			  label, err);
	if (rc == VQ_OK && type == VQ_PIECE_USER)
		rc = vq_matcher_put(&t->user, (struct vq_match){.id = (int32_t)id}, err);
	if (rc == VQ_OK && (type == VQ_PIECE_CONTROL || type == VQ_PIECE_UNKNOWN))
		rc = vq_matcher_put(&t->added, (struct vq_match){.id = (int32_t)id}, err);
	return rc;
}

/* TrainerSpec {model_type = 3, byte_fallback = 35, unk_id = 40, bos_id = 41, eos_id = 42}. */
static int read_trainer(struct vq_tokenizer *t, struct pb m, uint64_t *kind)
{
	struct field f;
	int rc;

	while ((rc = next(&m, &f)) == 1) {
		if (f.type != 0)
			continue;
		switch (f.number) {
		case 3: *kind = f.value; break;
		case 24: *kind = f.value ? 99 : *kind; break; /* whitespace as suffix */
		case 35: t->byte_fallback = f.value != 0; break;
		case 40: t->unk = (int32_t)f.value; break;
		case 41: t->bos = (int32_t)f.value; break;
		case 42: t->eos = (int32_t)f.value; break;
		}
	}
	return rc;
}

/* NormalizerSpec {name = 1, precompiled_charsmap = 2, add_dummy_prefix = 3, remove_extra_whitespaces = 4,
 * escape_whitespaces = 5}. */
static int read_normalizer(struct vq_tokenizer *t, struct pb m, int *changes_text)
{
	int64_t collapse = 1;
	struct field f;
	int rc;

	*changes_text = 0;
	t->prefix = VQ_PREFIX_ALWAYS;
	t->escape_space = 1;
	while ((rc = next(&m, &f)) == 1) {
		if (is(&f, 2, 2))
			*changes_text |= f.sub.p != f.sub.end;
		else if (is(&f, 3, 0))
			t->prefix = f.value ? VQ_PREFIX_ALWAYS : VQ_PREFIX_NEVER;
		else if (is(&f, 4, 0))
			collapse = f.value != 0;
		else if (is(&f, 5, 0))
			t->escape_space = f.value != 0;
	}
	*changes_text |= collapse != 0;
	return rc;
}

int vq_tokenizer_read_spm(struct vq_tokenizer *t, const char *data, size_t n, const char *label,
			  struct vq_err *err)
{
	static const char *const kinds[] = {"unknown", "Unigram", "BPE", "word", "char"};
	struct pb m = {(const uint8_t *)data, (const uint8_t *)data + n};
	uint64_t kind = 1;
	int64_t id = 0;
	int changes_text = 1, rc, sub = VQ_OK;
	struct field f;

	t->unk = 0;
	t->bos = 1;
	t->eos = 2;
	t->fuse_unk = 1;
	while ((rc = next(&m, &f)) == 1) {
		if (is(&f, 1, 2))
			sub = read_piece(t, f.sub, id++, label, err);
		else if (is(&f, 2, 2))
			sub = read_trainer(t, f.sub, &kind);
		else if (is(&f, 3, 2))
			sub = read_normalizer(t, f.sub, &changes_text);
		if (sub < 0)
			break;
	}
	if (rc < 0 || sub < 0)
		return vq_fail(err, rc < 0 ? rc : sub,
			       "%s: cut or no SentencePiece model (after %lld pieces)", label,
			       (long long)id);
	if (kind != 2)
		return vq_fail(err, VQ_E_DATA, "%s: want a BPE SentencePiece model, got kind '%s'",
			       label, kind < 5 ? kinds[kind] : "whitespace as suffix");
	if (changes_text)
		return vq_fail(err, VQ_E_DATA,
			       "%s: a SentencePiece model that rewrites characters or removes "
			       "spaces is not supported",
			       label);
	return VQ_OK;
}
