/* UTF-8: is the next character whole and valid? */
#ifndef VQ_BASE_UTF8_H
#define VQ_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define VQ_UTF8_BAD     0    /* this byte begins no valid character */
#define VQ_UTF8_PARTIAL (-1) /* valid so far, but the text ends inside the character */

/* Bytes (1..4) of the character at s[0..n), n > 0, or one of the above.  *cp, when not NULL, gets the code
 * point.  Overlong forms, surrogates and what lies above U+10FFFF are bad. */
static inline int vq_utf8_next(const char *s, size_t n, uint32_t *cp)
{
	static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
	const uint8_t *p = (const uint8_t *)s;
	int len = p[0] < 0x80   ? 1
		  : p[0] < 0xc2 ? 0
		  : p[0] < 0xe0 ? 2
		  : p[0] < 0xf0 ? 3
		  : p[0] < 0xf5 ? 4
				: 0;
	uint32_t c = len <= 1 ? p[0] : p[0] & (0x7fu >> len);
	int i;

	for (i = 1; i < len; i++) {
		if ((size_t)i == n)
			return VQ_UTF8_PARTIAL;
		if ((p[i] & 0xc0) != 0x80)
			return VQ_UTF8_BAD;
		c = c << 6 | (p[i] & 0x3f);
		if (i == 1 && len == 3 && (c < 0x20 || (c >= 0x360 && c < 0x380)))
			return VQ_UTF8_BAD; /* overlong, or a surrogate */
		if (i == 1 && len == 4 && (c < 0x10 || c >= 0x110))
			return VQ_UTF8_BAD; /* overlong, or above U+10FFFF */
	}
	if (len == 0 || c < least[len])
		return VQ_UTF8_BAD;
	if (cp)
		*cp = c;
	return len;
}

#endif
