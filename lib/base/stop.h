/* A request to stop: set by a signal handler, looked at by long work between blocks. */
#ifndef VQ_BASE_STOP_H
#define VQ_BASE_STOP_H

void vq_stop_catch(void); /* SIGTERM and SIGINT from now on only set the flag */
int vq_stop_asked(void);  /* 1 after such a signal */

#endif
