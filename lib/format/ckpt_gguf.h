/* Inside the back-end of GGUF files: a model that lies in one file or in the shards of llama-gguf-split, and what the
 * architectures make of its keys and tensors. */
#ifndef VQ_FORMAT_CKPT_GGUF_H
#define VQ_FORMAT_CKPT_GGUF_H

#include "base/io.h"
#include "base/json.h"
#include "base/spool.h"
#include "format/gguf_read.h"
#include "stream/tensor.h"

struct vq_gguf_shard {
	char *path;
	struct vq_map map;  /* with the head */
	struct vq_map copy; /* once loaded: where the tensors are used */
	struct vq_gguf_file file;
};

struct vq_gguf_entry {
	char name[128]; /* as Hugging Face's folders have it */
	struct vq_tensor t;
	const struct vq_gguf_tensor_info *from;
	const struct vq_gguf_shard *shard;
	uint32_t heads; /* whose rows stand in pairs, as the engine rotates them; 0: as they are */
	int spooled;
	size_t at; /* of the data, in the shard or in the spool */
};

struct vq_gguf_model {
	struct vq_gguf_shard *shards; /* the first has the keys */
	uint32_t n_shards;
	struct vq_spool spool;
	struct vq_gguf_entry *entries; /* of the tensors that the model reads */
	size_t n;
};

/* An architecture in the words of Hugging Face. */
struct vq_gguf_arch {
	const char *what; /* general.architecture */
	/* config.json, given. */
	int (*config)(json_t **out, const struct vq_gguf_model *m, struct vq_err *err);
	/* e->name and e->heads by e->from: 1, or 0 for a tensor that is not read.  One that the model cannot do without is
	 * refused. */
	int (*name)(struct vq_gguf_entry *e, const struct vq_gguf_model *m, struct vq_err *err);
	/* A side file as in vq_ckpt_file. */
	int (*file)(const struct vq_gguf_model *m, const char *name, char **data, size_t *n,
		    struct vq_err *err);
};

extern const struct vq_gguf_arch vq_gguf_llama; /* format/gguf_llama.c */
extern const struct vq_gguf_arch
	vq_gguf_clip; /* format/gguf_clip.c; config has "llava", what the language model's lacks */

/* The one mmproj*.gguf in the folder of path: 1 and its path, given; 0 when there is none; several: VQ_E_DATA. */
VQ_MUST_CHECK int vq_gguf_beside(const char *path, char **found, struct vq_err *err);

/* m->shards from a file that is open, and those that lie beside it.  After a failure too they are to be closed. */
VQ_MUST_CHECK int vq_gguf_open_shards(struct vq_gguf_model *m, const char *path, int fd,
				      struct vq_err *err);
void vq_gguf_close_shards(struct vq_gguf_model *m);

/* NULL when no shard has it. */
const struct vq_gguf_tensor_info *vq_gguf_model_find(const struct vq_gguf_model *m,
						     const char *name);

/* A key that must be there, as vq_gguf_get_u32 and vq_gguf_get_f64. */
VQ_MUST_CHECK int vq_gguf_need_u32(const struct vq_gguf_file *g, const char *name, uint32_t lo,
				   uint32_t hi, uint32_t *out, struct vq_err *err);
VQ_MUST_CHECK int vq_gguf_need_f64(const struct vq_gguf_file *g, const char *name, double *out,
				   struct vq_err *err);

/* "blk.7.attn_q.weight" with prefix "blk.": *layer 7 and the rest, "attn_q.weight"; NULL for other names. */
const char *vq_gguf_layer(const char *name, const char *prefix, uint32_t *layer);

/* A pair of names for what stands before ".weight" or ".bias"; tables end in zeroes. */
struct vq_gguf_pair {
	const char *theirs, *ours;
};

/* ours for the whole name, or ours and the ending: 1 and buf; 0 when the table lacks it. */
int vq_gguf_translate(const struct vq_gguf_pair *table, const char *name, char *buf, size_t room);

VQ_MUST_CHECK int vq_gguf_refuse_tensor(const struct vq_gguf_entry *e, const char *why,
					struct vq_err *err);

/* VQ_E_DATA for a kind of tokenizer that is not known, before anything is made of it.  format/gguf_tok.c */
VQ_MUST_CHECK int vq_gguf_tokenizer_check(const struct vq_gguf_file *g, struct vq_err *err);
/* tokenizer.model or tokenizer.json, and tokenizer_config.json, of a model with the keys tokenizer.ggml.*, as vq_ckpt_file. */
VQ_MUST_CHECK int vq_gguf_tokenizer_file(const struct vq_gguf_file *g, const char *name,
					 char **data, size_t *n, struct vq_err *err);

/* The bytes of s, which is freed, as a side file: 1. */
VQ_MUST_CHECK int vq_gguf_give(struct vq_str *s, char **data, size_t *n, struct vq_err *err);

#endif
