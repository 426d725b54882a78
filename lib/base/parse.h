/* Numbers from the command line: whole and in range, or an error that names the range. */
#ifndef VQ_BASE_PARSE_H
#define VQ_BASE_PARSE_H

#include <stdint.h>

#include "base/err.h"

VQ_MUST_CHECK int vq_parse_u64(uint64_t *out, const char *s, uint64_t min, uint64_t max);
VQ_MUST_CHECK int vq_parse_u32(uint32_t *out, const char *s, uint32_t min, uint32_t max);
VQ_MUST_CHECK int vq_parse_f64(double *out, const char *s, double min, double max);

/* The position of s among the words of "a|b|c", or VQ_E_USAGE. */
VQ_MUST_CHECK int vq_parse_choice(const char *s, const char *choices);

#endif
