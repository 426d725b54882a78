/* One thread beside the caller's. */
#include "base/worker.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "base/mem.h"

struct vq_worker {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int busy, quit;
	void (*work)(void *arg);
	void *arg;
};

static void *run(void *arg)
{
	struct vq_worker *w = arg;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!w->busy && !w->quit)
			pthread_cond_wait(&w->changed, &w->lock);
		if (!w->busy)
			break;
		pthread_mutex_unlock(&w->lock);
		w->work(w->arg);
		pthread_mutex_lock(&w->lock);
		w->busy = 0;
		pthread_cond_broadcast(&w->changed);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* The tools' handlers of signals belong to the thread that looks at what they set. */
static int start(struct vq_worker *w)
{
	sigset_t all, was;
	int failed;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	failed = pthread_create(&w->thread, NULL, run, w);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	return failed;
}

int vq_worker_new(struct vq_worker **out, void (*work)(void *arg), void *arg, struct vq_err *err)
{
	struct vq_worker *w = vq_calloc(1, sizeof(*w), err);
	int failed;

	if (!w)
		return VQ_E_SYS;
	w->work = work;
	w->arg = arg;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	failed = start(w);
	if (failed) {
		pthread_cond_destroy(&w->changed);
		pthread_mutex_destroy(&w->lock);
		vq_free(w);
		return vq_fail(err, VQ_E_SYS, "cannot start a thread: %s", strerror(failed));
	}
	*out = w;
	return VQ_OK;
}

void vq_worker_go(struct vq_worker *w)
{
	pthread_mutex_lock(&w->lock);
	w->busy = 1;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

void vq_worker_wait(struct vq_worker *w)
{
	pthread_mutex_lock(&w->lock);
	while (w->busy)
		pthread_cond_wait(&w->changed, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

void vq_worker_free(struct vq_worker *w)
{
	if (!w)
		return;
	vq_worker_wait(w);
	pthread_mutex_lock(&w->lock);
	w->quit = 1;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	vq_free(w);
}
