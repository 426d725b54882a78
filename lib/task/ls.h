/* vqlm-ls: what is in a stream or a packed model, and is it whole? */
#ifndef VQ_TASK_LS_H
#define VQ_TASK_LS_H

#include <stdio.h>

#include "base/err.h"

struct vq_ls {
	int check; /* read and verify everything, print only a summary */
	int json;  /* JSON Lines instead of columns */
	int wide;  /* attributes in full */
	const char
		*cat; /* instead: payloads of the records whose names match this pattern; or NULL */
};

/* Lists the stream or packed model that fd holds; label names it in messages.  VQ_E_DATA for anything that
 * is not whole and right, and where nothing matches cat. */
VQ_MUST_CHECK int vq_ls_run(const struct vq_ls *o, int fd, const char *label, FILE *out,
			    struct vq_err *err);

#endif
