/* The sketch of the vision features' effect on the final output, from calib to search.
 *
 * F is the final hidden state (after the last norm) at the last prompt token of one sample, J = dF/dV its
 * Jacobian with respect to the sample's vision features V [rows, n_in].  For K seeded sign vectors u_k (entries
 * +1 or -1, so E[u u^T] = I) calib pulls u_k back through decoder and projector and sends
 *
 *     G[k] = J^T u_k / (sqrt(K) ||F||)          record stat/sketch/S, f32 [K, rows, n_in], S the sample's index
 *
 * so that for any change dV   sum_k <G[k], dV>^2   estimates  ||J dV||^2 / ||F||^2  without bias (Hutchinson's
 * trace estimator for J^T J, relative deviation sqrt(2 / K)).  Search scores a candidate by
 *
 *     ||dV||^2 / ||V||^2  +  eta * mean over sketched samples of the estimate
 *
 * Why pulled-back vectors and not pushed-forward ones: K forward probes know J on K directions only, and the
 * error of a candidate is in none of them.  Measured on the demo models (rank correlation with the true
 * ||F(V + dV) - F(V)||^2 over random clips of the vision tower, 8 samples, K = 16): at 4 bits 0.95 and at 6 bits
 * 0.99, where ||dV||^2 alone has 0.64 and 0.84, and K = 16 forward probes along quantization noise 0.84 and 0.86.
 * With outliers at 4 bits dV is too large for a linear model (0.65, ||dV||^2 0.80): the sum of both terms with
 * eta = 10 has 0.89 and 0.84 there and above, hence the default.  tests/unit/test_calib.c prints the figures of what
 * calib sends (a sixteenth of 64 samples).  There the slope of the decoder's entropies (task/calib_entropy.h) has a rank
 * correlation of 0.88 at 4 bits and 0.81 at 6 with the true change of the entropies, but added to the score with
 * lambda = 1 it takes the correlation with the final error from 0.82 to 0.78 and from 0.92 to 0.89: the default of
 * lambda is 0. */
#ifndef VQ_QUANT_SKETCH_H
#define VQ_QUANT_SKETCH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define VQ_SKETCH_ETA 10.0

/* Sum over k of <g[k], dv>^2: g [n_k, n], dv [n].  The same for any number of threads. */
double vq_sketch_energy(const float *g, uint32_t n_k, size_t n, const float *dv);

/* u[i] = +1 or -1 for i < n: sign vector k of a seed. */
void vq_sketch_signs(uint64_t seed, uint32_t k, size_t n, float *u);

#endif
