/* The vocabulary of a tokenizer: tokens by id and by content, merges by pair. */
#include "format/token_vocab.h"

#include <string.h>
#include <xxhash.h>

#include "base/mem.h"

static uint32_t slot_of(const struct vq_tokenizer *t, const char *text, size_t n)
{
	uint32_t i = (uint32_t)XXH3_64bits(text, n) & (t->n_slots - 1);

	while (t->slots[i]) {
		const struct vq_piece *p = &t->pieces[t->slots[i] - 1];

		if (p->n == n && memcmp(p->text, text, n) == 0)
			break;
		i = (i + 1) & (t->n_slots - 1);
	}
	return i;
}

int32_t vq_vocab_find(const struct vq_tokenizer *t, const char *text, size_t n)
{
	return t->n_slots ? (int32_t)t->slots[slot_of(t, text, n)] - 1 : -1;
}

int32_t vq_vocab_find_own(const struct vq_tokenizer *t, const char *text, size_t n)
{
	int32_t id = vq_vocab_find(t, text, n);

	return id >= 0 && t->pieces[id].added ? -1 : id;
}

/* Room for ids below `size`; the hash table stays at most half full. */
static int make_room(struct vq_tokenizer *t, uint32_t size, struct vq_err *err)
{
	uint32_t room = t->room ? t->room : 1024, id;
	uint32_t *slots;

	if (size <= t->room)
		return VQ_OK;
	while (room < size)
		room *= 2;
	if (vq_grow((void **)&t->pieces, t->room, room, sizeof(*t->pieces), err) < 0)
		return VQ_E_SYS;
	memset(t->pieces + t->room, 0, (room - t->room) * sizeof(*t->pieces));
	t->room = room;
	slots = vq_calloc(2 * (size_t)room, sizeof(*slots), err);
	if (!slots)
		return VQ_E_SYS;
	vq_free(t->slots);
	t->slots = slots;
	t->n_slots = 2 * room;
	for (id = 0; id < t->size; id++)
		if (t->pieces[id].text)
			t->slots[slot_of(t, t->pieces[id].text, t->pieces[id].n)] = id + 1;
	return VQ_OK;
}

/* "<0x0A>" -> 10; -1 for anything else. */
static int byte_value(const char *text, size_t n)
{
	static const char digits[] = "0123456789ABCDEF";
	const char *hi, *lo;

	if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>' || !text[3] || !text[4])
		return -1;
	hi = strchr(digits, text[3]);
	lo = strchr(digits, text[4]);
	return hi && lo ? (int)((hi - digits) * 16 + (lo - digits)) : -1;
}

/* What the token looks like in a text. */
static void set_out(struct vq_piece *p, int byte_level)
{
	size_t i, o = 0;

	if (p->type == VQ_PIECE_BYTE) {
		p->out[o++] = (char)byte_value(p->text, p->n);
	} else if (byte_level && !p->special && p->type == VQ_PIECE_NORMAL) {
		o = vq_bytes_unmap(p->text, p->n, p->out);
	} else if (byte_level && !p->special) {
		memcpy(p->out, p->text, o = p->n);
	} else if (!p->special) {
		for (i = 0; i < p->n;) {
			if (p->n - i >= 3 && memcmp(p->text + i, VQ_SPACE, 3) == 0) {
				p->out[o++] = ' ';
				i += 3;
			} else {
				p->out[o++] = p->text[i++];
			}
		}
	}
	p->out[o] = '\0';
	p->n_out = (uint32_t)o;
}

int vq_vocab_put(struct vq_tokenizer *t, int64_t id, const char *text, size_t n,
		 enum vq_piece_type type, float score, const char *label, struct vq_err *err)
{
	struct vq_piece *p;
	int32_t have = vq_vocab_find(t, text, n);
	int show = n < 64 ? (int)n : 64; /* in messages */

	if (id < 0 || id > VQ_TOKEN_MAX_ID)
		return vq_fail(err, VQ_E_DATA, "%s: token '%.*s': want an id of 0..%u, got %lld",
			       label, show, text, VQ_TOKEN_MAX_ID, (long long)id);
	if (n == 0 || n > VQ_TOKEN_MAX_BYTES)
		return vq_fail(err, VQ_E_DATA, "%s: token %lld: want 1..%u bytes, got %zu", label,
			       (long long)id, VQ_TOKEN_MAX_BYTES, n);
	if (have >= 0 && have != id)
		return vq_fail(err, VQ_E_DATA, "%s: token '%.*s' has two ids, %d and %lld", label,
			       show, text, have, (long long)id);
	if (make_room(t, (uint32_t)id + 1, err) < 0)
		return VQ_E_SYS;
	p = &t->pieces[id];
	if (p->text && have < 0)
		return vq_fail(err, VQ_E_DATA, "%s: id %lld is '%.64s' and '%.*s'", label,
			       (long long)id, p->text, show, text);
	if (!p->text) {
		p->text = vq_alloc(n + 1, 1, err);
		p->out = vq_alloc(n + 1, 1, err);
		if (!p->text || !p->out)
			return VQ_E_SYS;
		memcpy(p->text, text, n);
		p->text[n] = '\0';
		p->n = (uint32_t)n;
		t->slots[slot_of(t, text, n)] = (uint32_t)id + 1;
		t->size = (uint32_t)id + 1 > t->size ? (uint32_t)id + 1 : t->size;
	}
	if (type == VQ_PIECE_BYTE && byte_value(text, n) < 0)
		return vq_fail(err, VQ_E_DATA, "%s: byte token %lld: want <0xXX>, got '%.*s'",
			       label, (long long)id, show, text);
	if (type == VQ_PIECE_BYTE)
		t->byte_id[byte_value(text, n)] = (int32_t)id;
	if (p->type != VQ_PIECE_BYTE) /* an added token may list a byte token again */
		p->type = (uint8_t)type;
	p->score = score;
	p->special |= type == VQ_PIECE_CONTROL || type == VQ_PIECE_UNKNOWN;
	set_out(p, t->pretoken != NULL);
	return VQ_OK;
}

static uint32_t pair_slot(const struct vq_tokenizer *t, int32_t left, int32_t right)
{
	uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
	uint32_t i = (uint32_t)XXH3_64bits(&key, sizeof(key)) & (t->n_merges - 1);

	while (t->merges[i].left >= 0 && (t->merges[i].left != left || t->merges[i].right != right))
		i = (i + 1) & (t->n_merges - 1);
	return i;
}

const struct vq_merge *vq_vocab_pair(const struct vq_tokenizer *t, int32_t left, int32_t right)
{
	const struct vq_merge *m = &t->merges[pair_slot(t, left, right)];

	return m->left >= 0 ? m : NULL;
}

int vq_vocab_merges(struct vq_tokenizer *t, uint32_t n, struct vq_err *err)
{
	uint32_t room = 16, i;

	while (room < 2 * (uint64_t)n)
		room *= 2;
	t->merges = vq_alloc(room, sizeof(*t->merges), err);
	if (!t->merges)
		return VQ_E_SYS;
	for (i = 0; i < room; i++)
		t->merges[i].left = -1;
	t->n_merges = room;
	return VQ_OK;
}

int vq_vocab_merge(struct vq_tokenizer *t, uint32_t rank, const char *a, size_t na, const char *b,
		   size_t nb, const char *label, struct vq_err *err)
{
	int32_t left = vq_vocab_find(t, a, na), right = vq_vocab_find(t, b, nb), id = -1;
	char *both;
	struct vq_merge *m;

	if (na > VQ_TOKEN_MAX_BYTES || nb > VQ_TOKEN_MAX_BYTES)
		return vq_fail(err, VQ_E_DATA, "%s: merge %u: too long", label, rank);
	both = vq_alloc(na + nb + 1, 1, err);
	if (!both)
		return VQ_E_SYS;
	memcpy(both, a, na);
	memcpy(both + na, b, nb);
	both[na + nb] = '\0';
	if (left >= 0 && right >= 0)
		id = vq_vocab_find(t, both, na + nb);
	vq_free(both);
	if (id < 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: merge %u of '%.*s' and '%.*s': not all of the two tokens and "
			       "what they make are in the vocabulary",
			       label, rank, (int)(na < 32 ? na : 32), a, (int)(nb < 32 ? nb : 32),
			       b);
	m = &t->merges[pair_slot(t, left, right)];
	*m = (struct vq_merge){.left = left, .right = right, .id = id, .rank = rank};
	return VQ_OK;
}
