/* JSON through jansson, with errors that name the file, the key and what came. */
#ifndef VQ_BASE_JSON_H
#define VQ_BASE_JSON_H

#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

#include "base/err.h"
#include "base/str.h"

/* Duplicate keys are refused.  NULL and err (VQ_E_DATA) on bad text.  Given: json_decref. */
json_t *vq_json_parse(const char *text, size_t n, const char *label, struct vq_err *err);

/* A file of at most 1 GiB; status as in vq_file_read. */
json_t *vq_json_file(const char *path, int status, struct vq_err *err);

/* JSON Lines: each line that is not blank, in order, with its number; what `each` returns below 0 ends the reading.  Bad
 * text: VQ_E_DATA naming label and line, and that the last line may have been cut. */
VQ_MUST_CHECK int vq_json_lines(const char *text, size_t n, const char *label,
				int (*each)(void *ctx, json_t *j, uint64_t line,
					    struct vq_err *err),
				void *ctx, struct vq_err *err);

/* Compact text with sorted keys and 9 significant digits: the same value gives the same bytes.
 * Given: vq_free. */
char *vq_json_text(const json_t *j, struct vq_err *err);

/* The text and a newline, added to o.  j is given; NULL: there was no memory for it. */
VQ_MUST_CHECK int vq_json_puts(struct vq_str *o, json_t *j, struct vq_err *err);

/* A value for a message: as much of it as goes into room bytes, 60 at most; "nothing" for NULL. */
void vq_json_brief(const json_t *v, char *out, size_t room);

/* Members of an object.  An absent key, or JSON null, gives the default; a value of the wrong type or
 * out of range is VQ_E_DATA naming label and key. */
VQ_MUST_CHECK int vq_json_u32(const json_t *o, const char *key, uint32_t dflt, uint32_t *out,
			      const char *label, struct vq_err *err);
VQ_MUST_CHECK int vq_json_f32(const json_t *o, const char *key, float dflt, float *out,
			      const char *label, struct vq_err *err);
VQ_MUST_CHECK int vq_json_bool(const json_t *o, const char *key, int dflt, int *out,
			       const char *label, struct vq_err *err);
/* *out is borrowed from the object (or dflt). */
VQ_MUST_CHECK int vq_json_str(const json_t *o, const char *key, const char *dflt, const char **out,
			      const char *label, struct vq_err *err);
/* *out is borrowed, NULL when absent or null. */
VQ_MUST_CHECK int vq_json_obj(const json_t *o, const char *key, json_t **out, const char *label,
			      struct vq_err *err);

#endif
