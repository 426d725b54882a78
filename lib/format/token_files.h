/* Byte-level tokenizers that are not kept as tokenizer.json, made one: everything behind a checkpoint reads that alone.
 *
 *   vocab.json, merges.txt   GPT-2's files, also of Phi (CodeGenTokenizer) and Qwen 2; with added_tokens.json
 *   qwen.tiktoken, arcade100k.tiktoken
 *                            of the first Qwen and StableLM 2: a token in base64 and its rank a line.  The special tokens
 *                            are not in the file but in the authors' code, and so here
 *
 * https://github.com/openai/tiktoken */
#ifndef VQ_FORMAT_TOKEN_FILES_H
#define VQ_FORMAT_TOKEN_FILES_H

#include "base/json.h"

struct vq_ckpt;

/* tokenizer.json of a checkpoint that has none, nor tokenizer.model: 1 and its bytes (given), 0 when it has none of
 * these files either, < 0 error. */
VQ_MUST_CHECK int vq_token_files(const struct vq_ckpt *c, char **data, size_t *n,
				 struct vq_err *err);

/* The parts, label naming the file in messages.  *text is given. */
VQ_MUST_CHECK int vq_tiktoken_json(char **text, const char *data, size_t n, int qwen,
				   const char *label, struct vq_err *err);

/* tokenizer.json of the members that differ: pre-tokenizer pattern (NULL: GPT-2's), normalizer, special tokens and others
 * (an array), vocabulary and merges, all given also on failure. */
struct vq_token_parts {
	const char *pattern;
	int nfc, whole_first;
	json_t *added, *vocab, *merges;
};
VQ_MUST_CHECK int vq_token_parts_json(char **text, struct vq_token_parts *p, struct vq_err *err);

/* What Qwen, Qwen 2 and StableLM 2 cut texts by. */
extern const char vq_token_words_pattern[];

/* An entry of "added_tokens"; NULL: no memory. */
json_t *vq_token_added(int64_t id, const char *content, int special);

#endif
