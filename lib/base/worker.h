/* One thread beside the caller's that does one kind of work, each time when told to: for what would otherwise wait for
 * input while the caller computes. */
#ifndef VQ_BASE_WORKER_H
#define VQ_BASE_WORKER_H

#include "base/err.h"

struct vq_worker;

/* work(arg) is what it does; arg is kept.  Signals are left to the other threads.  VQ_E_SYS when there is no thread. */
VQ_MUST_CHECK int vq_worker_new(struct vq_worker **out, void (*work)(void *arg), void *arg,
				struct vq_err *err);
/* Begins the work, once; the thread must be at rest.  What the caller wrote before is seen by the work. */
void vq_worker_go(struct vq_worker *w);
/* Returns when the thread is at rest.  What the work wrote is seen by the caller. */
void vq_worker_wait(struct vq_worker *w);
void vq_worker_free(struct vq_worker *w); /* waits first; NULL is fine */

#endif
