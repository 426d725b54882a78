/* The loop of joint.h on the compiler's vectors of eight doubles, to be compiled for each instruction set.
 * Only additions, products and divisions of elements, so that the width of the real registers cannot be
 * seen in the result.  BODY is the attribute of every function. */
#include "kernel/joint.h"

#include <string.h>

#define LANES VQ_JOINT_WIDE
#define N_W   (2 * VQ_JOINT_REACH + 1)

typedef double v8d __attribute__((vector_size(64)));
typedef float v8f __attribute__((vector_size(32)));
typedef int64_t v8l __attribute__((vector_size(64)));

/* a where m is set, b elsewhere. */
#define CHOOSE(m, a, b) ((v8d)(((m) & (v8l)(a)) | (~(m) & (v8l)(b))))
#define KEEP(m, a)      ((v8d)((m) & (v8l)(a)))

struct lanes {
	double a[LANES];        /* nearest level */
	double w[LANES][LANES]; /* [weight][value] */
} __attribute__((aligned(64)));

/* The soft levels of n <= 8 values from channel c on: for the nearest level a the weights of a-3 .. a+3, those
 * outside 0..top or farther than 3 being 0.  With f = u - a, exp(-(f - j)^2) is proportional to
 * exp(-j^2) exp(2f)^j, so one exponential makes all seven.  It is the Taylor series, to 1e-12: the C
 * library's exp picks its code, and so its last bit, by the CPU. */
static inline BODY void soft_levels(const struct vq_joint *j, int side, size_t at, uint32_t c,
				    uint32_t n, struct lanes *out)
{
	static const double taylor[] = {1.0 / 87178291200.0,
					1.0 / 6227020800.0,
					1.0 / 479001600.0,
					1.0 / 39916800.0,
					1.0 / 3628800.0,
					1.0 / 362880.0,
					1.0 / 40320.0,
					1.0 / 5040.0,
					1.0 / 720.0,
					1.0 / 120.0,
					1.0 / 24.0,
					1.0 / 6.0,
					0.5,
					1.0,
					1.0};
	const double e1 = 0x1.78b56362cef38p-2, /* exp(-1) */
		e4 = 0x1.2c155b8213cf4p-6,      /* exp(-4) */
		e9 = 0x1.02cf22526545ap-13;     /* exp(-9) */
	const double round = 0x1.8p52;          /* added and taken off: rint */
	v8f fx, fmin;
	v8d u, vmin, vinv, zero = {0}, top = zero + (double)j->top, a, f, t, r, sum = zero, w[N_W];
	uint32_t i;

	if (n == LANES) {
		memcpy(&fx, j->side[side].x + at, sizeof(fx));
		memcpy(&fmin, j->side[side].min + c, sizeof(fmin));
		memcpy(&vinv, j->side[side].inv + c, sizeof(vinv));
	} else {
		fx = fmin = (v8f){0};
		vinv = zero;
		for (i = 0; i < n; i++) {
			fx[i] = j->side[side].x[at + i];
			fmin[i] = j->side[side].min[c + i];
			vinv[i] = j->side[side].inv[c + i];
		}
	}
	u = __builtin_convertvector(fx, v8d);
	vmin = __builtin_convertvector(fmin, v8d);
	u = (u - vmin) * vinv;
	u = KEEP(u > zero, u); /* NaN too */
	u = CHOOSE(u < top, u, top);
	a = (u + round) - round;
	f = u - a;
	t = zero + taylor[0];
#pragma GCC unroll 14
	for (i = 1; i < sizeof(taylor) / sizeof(taylor[0]); i++)
		t = t * (2 * f) + taylor[i];
	r = 1 / t;
	w[0] = KEEP(f <= zero, e9 * r * r * r);
	w[1] = e4 * r * r;
	w[2] = e1 * r;
	w[3] = zero + 1;
	w[4] = e1 * t;
	w[5] = e4 * t * t;
	w[6] = KEEP(f >= zero, e9 * t * t * t);
#pragma GCC unroll 7
	for (i = 0; i < N_W; i++) {
		v8d level = a + ((double)i - VQ_JOINT_REACH);

		w[i] = KEEP((level >= zero) & (level <= top), w[i]);
		sum += w[i];
	}
	sum = 1 / sum;
	memcpy(out->a, &a, sizeof(a));
#pragma GCC unroll 7
	for (i = 0; i < N_W; i++) {
		w[i] *= sum;
		memcpy(out->w[i], &w[i], sizeof(w[i]));
	}
	memset(out->w[N_W], 0, sizeof(out->w[N_W]));
}

static inline BODY void joint_rows(const struct vq_joint *j, size_t r0, size_t r1, double *S)
{
	size_t ld = (size_t)j->top + 1 + VQ_JOINT_WIDE, row;
	struct lanes p, q;
	uint32_t c, n, i, k;

	for (row = r0; row < r1; row++)
		for (c = 0; c < j->n_channels; c += n) {
			size_t at = row * j->n_channels + c;

			n = j->n_channels - c < LANES ? j->n_channels - c : LANES;
			soft_levels(j, 0, at, c, n, &p);
			soft_levels(j, 1, at, c, n, &q);
			for (i = 0; i < n; i++) {
				double *s = S +
					    ((i & (j->n_copies - 1)) * ld + (size_t)p.a[i]) * ld +
					    (size_t)q.a[i];
				v8d wq = {q.w[0][i], q.w[1][i], q.w[2][i], q.w[3][i],
					  q.w[4][i], q.w[5][i], q.w[6][i], 0};

#pragma GCC unroll 7
				for (k = 0; k < N_W; k++, s += ld) {
					v8d v;

					memcpy(&v, s, sizeof(v));
					v += p.w[k][i] * wq;
					memcpy(s, &v, sizeof(v));
				}
			}
		}
}
