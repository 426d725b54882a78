/* The stream header's provenance: who made it from what.  No time, no host, no user: the same input and
 * parameters give the same bytes. */
#ifndef VQ_STREAM_HISTORY_H
#define VQ_STREAM_HISTORY_H

#include "base/json.h"

/* A new header for a source: {"producer": "vqlm-calib 0.1.0", "model": model, "history": []}.
 * model is borrowed: {"name": ..., "sha256": ...}.  Given: json_decref. */
json_t *vq_header_new(const char *tool, json_t *model, struct vq_err *err);

/* A deep copy of a header with one more line of history: {"tool", "version", "params", "kernels", "blas"}.
 * params (an object, borrowed) holds what determines the output, the seed included; not threads, not
 * paths.  kernels and blas name the kernel set and the BLAS core, or are NULL.  Given. */
json_t *vq_header_derive(const json_t *header, const char *tool, json_t *params,
			 const char *kernels, const char *blas, struct vq_err *err);

/* The params of the last line of history that a tool left; NULL when there is none.  header may be NULL.  Borrowed. */
const json_t *vq_history_last(const json_t *header, const char *tool);

#endif
