/* Independent jobs shared out among the threads. */
#ifndef VQ_KERNEL_SHARE_H
#define VQ_KERNEL_SHARE_H

#include <stddef.h>

/* Jobs first .. end - 1. */
typedef void vq_share_fn(void *ctx, size_t first, size_t end);

/* 1 when work of a loop is best done by the thread at hand: it is little, there is no other thread, or the others
 * have work of their own.  OpenMP's `if` would start a team of one for it, which costs memory and a call to the
 * operating system. */
int vq_alone(int little);

/* Jobs 0 .. n - 1 by some calls of f: a range of them on each thread, in pieces, so that who is done helps the others. */
void vq_share(size_t n, int little, vq_share_fn *f, void *ctx);

#endif
