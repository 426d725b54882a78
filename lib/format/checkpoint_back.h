/* What stands behind format/checkpoint.h: one back-end for each way to keep a checkpoint (format/ckpt_*.c).  A back-end
 * opens the input, lists its tensors and hands out side files; what is common to all is checkpoint.c.
 *
 * A new one is a row of the table there.  What a format calls its configuration and its tensors the back-end puts in the
 * words of one of the two forms of checkpoint.h, so that nothing to the right of format/ knows where a model came from.
 * Data that a format keeps otherwise than row-major little-endian goes through a spool (base/spool.h). */
#ifndef VQ_FORMAT_CHECKPOINT_BACK_H
#define VQ_FORMAT_CHECKPOINT_BACK_H

#include "base/sha256.h"
#include "format/checkpoint.h"
#include "format/tree.h"

#define VQ_CKPT_HEAD VQ_TREE_HEAD /* bytes of a file that a back-end is chosen by */
#define VQ_CKPT_SIDE_LIMIT \
	((size_t)256 << 20) /* bytes of a side file; real tokenizers have 0.5 to 20 MB */

struct vq_ckpt_slot {
	const char *name;
	const struct vq_tensor *t; /* stays where it is; its data may move in load */
	const char *where;         /* the file that holds it */
	uint64_t hash;             /* XXH64 of the data, where it is known without reading them */
};

struct vq_ckpt {
	const struct vq_ckpt_back *back;
	void *priv;           /* the back-end's */
	char *path;           /* "stdin" for "-" */
	struct vq_ckpt *part; /* joined, or NULL */

	/* Of a file: open at its beginning, the first n_head bytes read already (a pipe cannot be read twice).  fd is -1
	 * for a folder.  The front closes it. */
	int fd;
	uint8_t head[VQ_CKPT_HEAD];
	size_t n_head;

	/* What open fills.  The arrays are the front's, to be freed by it; what they point to is the back-end's. */
	enum vq_ckpt_form form;
	json_t *config;
	char config_sha[VQ_SHA256_HEX];
	json_t *header;             /* of a stream, or NULL */
	struct vq_ckpt_slot *slots; /* in any order; names may not repeat */
	size_t n;
};

struct vq_ckpt_back {
	const char *what; /* "a model stream" */
	/* 1 when the input is of this kind, by c's path, fd and head. */
	int (*takes)(const struct vq_ckpt *c);
	/* After a failure close is called too. */
	int (*open)(struct vq_ckpt *c, struct vq_err *err);
	/* As vq_ckpt_file, vq_ckpt_load, vq_ckpt_lock, vq_ckpt_close. */
	int (*file)(const struct vq_ckpt *c, const char *name, char **data, size_t *n,
		    struct vq_err *err);
	int (*load)(struct vq_ckpt *c, struct vq_err *err);
	int (*lock)(const struct vq_ckpt *c, struct vq_err *err);
	void (*close)(struct vq_ckpt *c);
	/* As vq_ckpt_ready; NULL where open leaves nothing to do. */
	int (*ready)(struct vq_ckpt *c, struct vq_err *err);
	/* As vq_ckpt_tower, and what vq_ckpt_join makes of c->part; NULL where there is no such thing. */
	int (*tower)(const struct vq_ckpt *c, char **path, struct vq_err *err);
	int (*join)(struct vq_ckpt *c, struct vq_err *err);
};

extern const struct vq_ckpt_back vq_ckpt_folder;  /* config.json and weights, or an archive */
extern const struct vq_ckpt_back vq_ckpt_stream;  /* a model stream */
extern const struct vq_ckpt_back vq_ckpt_gguf;    /* a GGUF file, or the shards of one */
extern const struct vq_ckpt_back vq_ckpt_llama2c; /* llama2.c's export, version 0 */

#endif
