/* PyTorch's files (torch.save since 1.6: .bin, .pt): a ZIP of stored members, of which NAME/data.pkl describes the
 * tensors and NAME/data/KEY is a storage.  The tensors are views into the file; nothing of it is executed
 * (format/pickle.h). */
#ifndef VQ_FORMAT_TORCH_H
#define VQ_FORMAT_TORCH_H

#include "base/spool.h"
#include "format/safetensors.h"

struct vq_torch {
	struct vq_st_entry *entries; /* sorted by name */
	size_t n;
	struct vq_spool copies; /* of tensors that are not row-major in the file */
};

/* 1 when the first bytes are those of such a file, or of what torch.save wrote before 1.6. */
int vq_torch_is(const uint8_t *head, size_t n);

/* data, the whole file, is kept: entries point into it, or into copies.  A file from before 1.6, one that is cut, and
 * whatever is no state dict: VQ_E_DATA.  Given: vq_torch_close. */
VQ_MUST_CHECK int vq_torch_open(struct vq_torch *t, const uint8_t *data, size_t n,
				const char *label, struct vq_err *err);
void vq_torch_close(struct vq_torch *t);

#endif
