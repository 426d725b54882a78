/* The pickle of a PyTorch file, as data.  Of pickle's machine only what state dicts are made of is understood: the
 * opcodes of protocol 2 that torch.save emits for dictionaries of tensors, and the globals of the table in pickle.c.
 * Nothing is imported and nothing is called; whatever else stands in the file is refused by its name and place.
 * Format: Python's pickletools; torch/serialization.py and torch/_utils.py. */
#ifndef VQ_FORMAT_PICKLE_H
#define VQ_FORMAT_PICKLE_H

#include "stream/tensor.h"

#define VQ_PICKLE_LIMIT ((size_t)16 << 20) /* bytes; a state dict needs some 200 a tensor */

/* A tensor as the file describes it: a view into a storage, which is another member of the file.  Numbers are held to no
 * range but their sign: the caller knows how large the storage is. */
struct vq_pickled {
	char *name;
	char *key; /* of the storage: the member data/KEY */
	enum vq_dtype dtype;
	uint64_t n_storage; /* elements of the whole storage */
	uint64_t offset;    /* of the first element, in elements */
	uint32_t n_dims;
	uint64_t dims[VQ_MAX_DIMS], strides[VQ_MAX_DIMS]; /* in elements */
};

/* The tensors of a state dict, in the order of the file.  label is the file's name.  VQ_E_DATA names the offset.  Given:
 * vq_pickled_free. */
VQ_MUST_CHECK int vq_pickle_read(struct vq_pickled **out, size_t *n, const uint8_t *data,
				 size_t n_data, const char *label, struct vq_err *err);
void vq_pickled_free(struct vq_pickled *t, size_t n); /* NULL is fine */

#endif
