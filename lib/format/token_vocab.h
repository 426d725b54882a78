/* Inside the tokenizers: vocabulary, merges, and what the readers of the two file kinds fill in. */
#ifndef VQ_FORMAT_TOKEN_VOCAB_H
#define VQ_FORMAT_TOKEN_VOCAB_H

#include <jansson.h>

#include "format/pretoken.h"
#include "format/tokenizer.h"

#define VQ_TOKEN_MAX_ID    ((1u << 20) - 1)
#define VQ_TOKEN_MAX_BYTES (1u << 16)     /* of one token */
#define VQ_SPACE           "\xe2\x96\x81" /* U+2581, which stands for a space in pieces */

/* SentencePiece's numbers. */
enum vq_piece_type {
	VQ_PIECE_NONE = 0, /* a hole among the ids */
	VQ_PIECE_NORMAL = 1,
	VQ_PIECE_UNKNOWN = 2,
	VQ_PIECE_CONTROL = 3,
	VQ_PIECE_USER = 4,
	VQ_PIECE_UNUSED = 5,
	VQ_PIECE_BYTE = 6,
};

struct vq_piece {
	char *text; /* content in the vocabulary */
	char *out;  /* as it stands in a text */
	uint32_t n, n_out;
	float score;
	uint8_t type;
	uint8_t special; /* left out of decoded text */
	uint8_t added;   /* not in the model's vocabulary: running text never makes it */
};

struct vq_merge {
	int32_t left, right, id; /* left -1: an empty slot */
	uint32_t rank;
};

/* A set of tokens that are looked for in running text: an added token, or a piece that the user defined. */
struct vq_match {
	int32_t id;
	uint8_t lstrip, rstrip, single_word;
};

struct vq_matcher {
	struct vq_match *m; /* once sorted: by first byte, then the longest first */
	uint32_t n, room;
	uint32_t first[257]; /* m[first[b]] .. m[first[b + 1]] begin with byte b */
};

enum vq_prefix { VQ_PREFIX_ALWAYS, VQ_PREFIX_FIRST, VQ_PREFIX_NEVER };

struct vq_tokenizer {
	struct vq_piece *pieces; /* [size], by id */
	uint32_t size, room;
	uint32_t *slots; /* open addressing over the contents; id + 1, 0 empty */
	uint32_t n_slots;
	struct vq_merge *
		merges; /* tokenizer.json: open addressing over pairs; NULL for pieces with scores */
	uint32_t n_merges;
	struct vq_matcher added, user;
	struct vq_matcher
		normalized; /* added tokens that are looked for once the text is normalised */
	struct vq_pretoken *pretoken; /* byte-level BPE; NULL: SentencePiece's way */
	int nfc;
	enum vq_prefix prefix;
	int prefix_if_missing; /* Metaspace: no second one */
	int escape_space;      /* spaces become U+2581 */
	int split_at_space;    /* Metaspace: no merge reaches over the start of a word */
	int whole_first;       /* ignore_merges: a word that is a token stays one */
	int fuse_unk;
	int byte_fallback;
	int32_t byte_id[256];
	int32_t unk, bos, eos;
};

/* Puts a token at its id.  VQ_E_DATA when the id is taken by another content or the content has another
 * id. */
VQ_MUST_CHECK int vq_vocab_put(struct vq_tokenizer *t, int64_t id, const char *text, size_t n,
			       enum vq_piece_type type, float score, const char *label,
			       struct vq_err *err);
int32_t vq_vocab_find(const struct vq_tokenizer *t, const char *text, size_t n); /* -1: none */
/* The same without tokens that are only added. */
int32_t vq_vocab_find_own(const struct vq_tokenizer *t, const char *text, size_t n);

/* n: how many merges will be put.  The token that a pair makes must exist. */
VQ_MUST_CHECK int vq_vocab_merges(struct vq_tokenizer *t, uint32_t n, struct vq_err *err);
VQ_MUST_CHECK int vq_vocab_merge(struct vq_tokenizer *t, uint32_t rank, const char *a, size_t na,
				 const char *b, size_t nb, const char *label, struct vq_err *err);
const struct vq_merge *vq_vocab_pair(const struct vq_tokenizer *t, int32_t left, int32_t right);

VQ_MUST_CHECK int vq_matcher_put(struct vq_matcher *m, struct vq_match what, struct vq_err *err);
void vq_matcher_sort(struct vq_matcher *m, const struct vq_tokenizer *t);
/* The longest match at text[at..n): its entry, or NULL. */
const struct vq_match *vq_matcher_at(const struct vq_matcher *m, const struct vq_tokenizer *t,
				     const char *text, size_t n, size_t at);
/* The next match of an added token at or after `done`, which is where the last one ended: its entry and the span
 * [*from, *to) that it takes, white space that it strips included; NULL and the end of the text when there is none. */
const struct vq_match *vq_matcher_next(const struct vq_matcher *a, const struct vq_tokenizer *t,
				       const char *text, size_t n, size_t done, size_t *from,
				       size_t *to);

/* The readers. */
VQ_MUST_CHECK int vq_tokenizer_read_spm(struct vq_tokenizer *t, const char *data, size_t n,
					const char *label, struct vq_err *err);
VQ_MUST_CHECK int vq_tokenizer_read_json(struct vq_tokenizer *t, const char *data, size_t n,
					 const char *label, struct vq_err *err);
/* Byte-level BPE's part of tokenizer.json: the normalizer, and the pre-tokenizer into t->pretoken.  Before the vocabulary
 * is read. */
VQ_MUST_CHECK int vq_tokenizer_read_bytes(struct vq_tokenizer *t, const json_t *root,
					  const char *label, struct vq_err *err);
/* Whether tokenizer.json is byte-level BPE's. */
int vq_tokenizer_is_bytes(const json_t *root);
/* One entry of "added_tokens" or "added_tokens_decoder". */
VQ_MUST_CHECK int vq_tokenizer_add(struct vq_tokenizer *t, int64_t id, const json_t *entry,
				   const char *label, struct vq_err *err);

/* Byte-level vocabularies write a byte as one character: 33..126, 161..172 and 174..255 as they are, the others as U+0100 and
 * on.  out: room for 2 n bytes (map), for n (unmap); bytes written.  What holds another character stays as it is. */
size_t vq_bytes_map(const char *bytes, size_t n, char *out);
size_t vq_bytes_unmap(const char *text, size_t n, char *out);

/* Tokens of one normalised word (▁ for spaces, or mapped bytes; valid UTF-8), appended to *ids. */
struct vq_ids {
	int32_t *v;
	size_t n, room;
};
VQ_MUST_CHECK int vq_ids_put(struct vq_ids *ids, int32_t id, struct vq_err *err);
/* Tokens of text[0..n), which holds none of t->added, by byte-level BPE. */
VQ_MUST_CHECK int vq_bytes_encode(const struct vq_tokenizer *t, const char *text, size_t n,
				  struct vq_ids *ids, struct vq_err *err);
VQ_MUST_CHECK int vq_bpe_encode(const struct vq_tokenizer *t, const char *word, size_t n,
				struct vq_ids *ids, struct vq_err *err);

#endif
