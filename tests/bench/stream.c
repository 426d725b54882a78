/* How fast a stream goes through a pipe: writer and reader in two processes, level 0, beside the plain pipe. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "stream/history.h"
#include "stream/reader.h"
#include "stream/source.h"
#include "stream/writer.h"

#define TENSOR ((size_t)90 << 20) /* bytes; gate_proj of a 7B decoder in 16 bits */
#define COUNT  24

static int send_all(int fd, int plain, const void *data, int level, struct vq_err *err)
{
	struct vq_tensor t = {
		.dtype = VQ_F16, .n_dims = 2, .dims = {TENSOR / 8192, 4096}, .data = data};
	json_t *h = vq_header_new("bench", NULL, err);
	struct vq_writer *w = NULL;
	char name[32];
	int rc = VQ_OK, i;

	if (!plain)
		rc = vq_writer_open(&w, fd, "pipe", level, err);
	if (rc == VQ_OK && !plain)
		rc = vq_writer_begin(w, h, err);
	for (i = 0; i < COUNT && rc == VQ_OK; i++) {
		snprintf(name, sizeof(name), "w.%d", i);
		rc = plain ? vq_write_full(fd, data, TENSOR, "pipe", err)
			   : vq_writer_put_tensor(w, VQ_KIND_TENSOR, name, &t, NULL, err);
	}
	if (rc == VQ_OK && !plain)
		rc = vq_writer_end(w, err);
	vq_writer_close(w);
	json_decref(h);
	return rc;
}

static int take_all(int fd, int plain, void *buf, struct vq_err *err)
{
	struct vq_reader *r = NULL;
	struct vq_record rec;
	size_t got = 1;
	int rc = VQ_OK;

	if (plain) {
		vq_pipe_widen(fd);
		while (rc == VQ_OK && got)
			rc = vq_read_upto(fd, buf, TENSOR, &got, "pipe", err);
		return rc;
	}
	rc = vq_reader_open(&r, fd, "pipe", err);
	if (rc == VQ_OK)
		rc = vq_reader_segment(r, err);
	while (rc > 0 && (rc = vq_reader_next(r, &rec, err)) > 0)
		rc = vq_reader_read(r, buf, err) < 0 ? VQ_E_DATA : 1;
	vq_reader_close(r);
	return rc;
}

static int once(int plain, int level, void *data)
{
	struct vq_err err = {0};
	double t0 = vq_now(), t;
	int fd[2], rc, status;
	pid_t pid;

	if (pipe(fd) < 0 || (pid = fork()) < 0)
		return 1;
	if (pid == 0) {
		close(fd[0]);
		_exit(send_all(fd[1], plain, data, level, &err) < 0);
	}
	close(fd[1]);
	rc = take_all(fd[0], plain, data, &err);
	waitpid(pid, &status, 0);
	t = vq_now() - t0;
	if (rc < 0 || status != 0) {
		fprintf(stderr, "bench: %s\n", err.text);
		return 1;
	}
	if (plain)
		printf("# figure: plain pipe: %.2f GB/s\n", 1e-9 * TENSOR * COUNT / t);
	else
		printf("# figure: stream through a pipe, level %d: %.2f GB/s\n", level,
		       1e-9 * TENSOR * COUNT / t);
	return 0;
}

int main(void)
{
	struct vq_err err = {0};
	uint8_t *data = vq_alloc(TENSOR, 1, &err);
	size_t i;
	int rc;

	if (!data)
		return 1;
	for (i = 0; i < TENSOR; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 13);
	rc = once(1, 0, data) | once(0, 0, data);
	vq_free(data);
	return rc;
}
