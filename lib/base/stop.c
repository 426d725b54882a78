/* A request to stop. */
#include "base/stop.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t asked;

static void on_signal(int sig)
{
	(void)sig; /* either one means the same */
	asked = 1;
}

void vq_stop_catch(void)
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = on_signal;
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
}

int vq_stop_asked(void)
{
	return asked;
}
