/* Writing SentencePiece models: protocol buffers, with the fields as sentencepiece_model.proto calls them. */
#include "format/spm_write.h"

static void put_varint(struct vq_str *b, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		vq_str_add(b, &(char){(char)(v | 0x80)}, 1);
	vq_str_add(b, &(char){(char)v}, 1);
}

static void put_number(struct vq_str *b, uint32_t field, uint64_t v)
{
	put_varint(b, field << 3);
	put_varint(b, v);
}

static void put_message(struct vq_str *b, uint32_t field, const char *p, size_t n)
{
	put_varint(b, field << 3 | 2);
	put_varint(b, n);
	vq_str_add(b, p, n);
}

/* m, which is freed, as a field of the model. */
static void put_part(struct vq_str *model, uint32_t field, struct vq_str *m)
{
	model->failed |= m->failed;
	put_message(model, field, m->s ? m->s : "", m->n);
	vq_str_free(m);
}

/* SentencePiece {piece = 1, score = 2, type = 3}, field 1 of ModelProto. */
void vq_spm_piece(struct vq_str *model, const char *s, size_t n, float score,
		  enum vq_piece_type type)
{
	struct vq_str m = {0};

	put_message(&m, 1, s, n);
	put_varint(&m, 2 << 3 | 5);
	vq_str_add(&m, (const char *)&score, sizeof(score));
	put_number(&m, 3, type);
	put_part(model, 1, &m);
}

/* TrainerSpec {model_type = 3 (2: BPE), byte_fallback = 35, unk_id = 40, bos_id = 41, eos_id = 42}, field 2. */
static void put_trainer(struct vq_str *model, const struct vq_spm_spec *spec)
{
	struct vq_str m = {0};

	put_number(&m, 3, 2);
	put_number(&m, 35, spec->byte_fallback != 0);
	put_number(&m, 40, (uint64_t)(int64_t)spec->unk);
	put_number(&m, 41, (uint64_t)(int64_t)spec->bos);
	put_number(&m, 42, (uint64_t)(int64_t)spec->eos);
	put_part(model, 2, &m);
}

/* NormalizerSpec {name = 1, add_dummy_prefix = 3, remove_extra_whitespaces = 4, escape_whitespaces = 5}, field 3. */
void vq_spm_end(struct vq_str *model, const struct vq_spm_spec *spec)
{
	static const char name[] = "identity";
	struct vq_str m = {0};

	put_trainer(model, spec);
	put_message(&m, 1, name, sizeof(name) - 1);
	put_number(&m, 3, spec->dummy_prefix != 0);
	put_number(&m, 4, 0);
	put_number(&m, 5, 1);
	put_part(model, 3, &m);
}
