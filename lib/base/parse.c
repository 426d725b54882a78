/* Numbers from the command line. */
#include "base/parse.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int vq_parse_u64(uint64_t *out, const char *s, uint64_t min, uint64_t max)
{
	unsigned long long v;
	char *end;

	if (*s < '0' || *s > '9') /* strtoull takes signs and spaces; we do not */
		return VQ_E_USAGE;
	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno || *end || v < min || v > max)
		return VQ_E_USAGE;
	*out = v;
	return VQ_OK;
}

int vq_parse_u32(uint32_t *out, const char *s, uint32_t min, uint32_t max)
{
	uint64_t v;

	if (vq_parse_u64(&v, s, min, max) < 0)
		return VQ_E_USAGE;
	*out = (uint32_t)v;
	return VQ_OK;
}

int vq_parse_f64(double *out, const char *s, double min, double max)
{
	char *end;
	double v;

	if (!strchr("+-.0123456789", *s) || !*s)
		return VQ_E_USAGE;
	v = strtod(s, &end);
	if (*end || !isfinite(v) || v < min || v > max)
		return VQ_E_USAGE;
	*out = v;
	return VQ_OK;
}

int vq_parse_choice(const char *s, const char *choices)
{
	size_t n = strlen(s);
	int i;

	for (i = 0; *choices; i++) {
		size_t m = strcspn(choices, "|");

		if (m == n && strncmp(s, choices, n) == 0)
			return i;
		choices += m + (choices[m] == '|');
	}
	return VQ_E_USAGE;
}
