/* The loops of round.h in plain C. */
#include <string.h>

#include "base/num.h"
#include "kernel/round.h"

static void range(const float *w, size_t n, float *min, float *max)
{
	float lo = 0, hi = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		lo = w[i] < lo ? w[i] : lo;
		hi = w[i] > hi ? w[i] : hi;
	}
	*min = lo;
	*max = hi;
}

static void codes(const float *w, size_t n, float s, float z, float top, uint8_t *u)
{
	size_t i;

	for (i = 0; i < n; i++) {
		float v = vq_rne(w[i] / s) + z;

		v = v > 0 ? v : 0;
		u[i] = (uint8_t)(v < top ? v : top);
	}
}

static void values(const uint8_t *u, size_t n, float s, float z, float *w)
{
	size_t i;

	for (i = 0; i < n; i++)
		w[i] = s * ((float)u[i] - z);
}

static void errors(const float *w, const float *q, size_t n, double *err2, double *ref2)
{
	size_t r, i;

	for (r = 0; r < 8; r++, w += n, q += n)
		for (i = 0; i < n; i++) {
			double d = (double)q[i] - (double)w[i];

			err2[r] += d * d;
			ref2[r] += (double)w[i] * (double)w[i];
		}
}

static void distance(const float *a, const float *b, uint32_t n_rows, size_t n, double *e)
{
	size_t r, i;

	for (r = 0; r < n_rows; r++, a += n, b += n) {
		double s[4] = {0, 0, 0, 0};

		for (i = 0; i < n; i++) {
			double d = (double)a[i] - (double)b[i];

			s[i < n / 4 * 4 ? i % 4 : 0] += d * d;
		}
		e[r] = (s[0] + s[1]) + (s[2] + s[3]);
	}
}

static int finite_words(const uint8_t *p, size_t n, uint32_t e, uint32_t one)
{
	const uint32_t sign = (e + one) & ~e;
	uint32_t acc = 0, v;
	size_t i;

	for (i = 0; i + 4 <= n; i += 4) {
		memcpy(&v, p + i, 4);
		acc |= (v & e) + one;
	}
	if (i < n) { /* one element of 16 bits */
		v = 0;
		memcpy(&v, p + i, n - i);
		acc |= (v & e) + one;
	}
	return (acc & sign) == 0;
}

const struct vq_round vq_round_generic = {"generic", range,    codes,       values,
					  errors,    distance, finite_words};
