/* Unicode's normalization form C. */
#ifndef VQ_FORMAT_NFC_H
#define VQ_FORMAT_NFC_H

#include "base/str.h"

/* Appends text in form C to *out.  text: valid UTF-8.  O(n), whatever the text: utf8proc alone takes quadratic time on a
 * long run of combining marks.  VQ_E_SYS without memory. */
VQ_MUST_CHECK int vq_nfc(const char *text, size_t n, struct vq_str *out, struct vq_err *err);

#endif
