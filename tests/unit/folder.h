/* A folder of its own for a test that needs files, and assertions on errors. */
#ifndef FOLDER_H
#define FOLDER_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/err.h"

static char folder[256];

static inline int folder_setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(folder, sizeof(folder), "%s/vqlm-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	return mkdtemp(folder) ? 0 : -1;
}

static inline int folder_teardown(void **state)
{
	DIR *d = opendir(folder);
	struct dirent *e;

	(void)state;
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	return rmdir(folder);
}

/* The path of a name in the folder; good until the eighth call after this one. */
static inline const char *in_folder(const char *name)
{
	static char buf[8][512];
	static unsigned turn;
	char *p = buf[turn++ % 8];

	snprintf(p, sizeof(buf[0]), "%s/%s", folder, name);
	return p;
}

static inline void put_file(const char *name, const void *data, size_t n)
{
	FILE *f = fopen(in_folder(name), "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

static inline void put_text(const char *name, const char *text)
{
	put_file(name, text, strlen(text));
}

/* A safetensors file with this header and n_data bytes 0, 1, 2, ... behind it. */
static inline void put_safetensors(const char *name, const char *header, size_t n_data)
{
	size_t n = strlen(header), i;
	uint8_t *b = malloc(8 + n + n_data);

	assert_non_null(b);
	for (i = 0; i < 8; i++)
		b[i] = (uint8_t)(n >> (8 * i));
	memcpy(b + 8, header, n);
	for (i = 0; i < n_data; i++)
		b[8 + n + i] = (uint8_t)i;
	put_file(name, b, 8 + n + n_data);
	free(b);
}

/* Every one of the words (NULL ends them) is in the error's one line. */
static inline void assert_says(const struct vq_err *err, const char *const *words)
{
	assert_null(strchr(err->text, '\n'));
	for (; *words; words++)
		if (!strstr(err->text, *words))
			fail_msg("'%s' is not in: %s", *words, err->text);
}

#define SAYS(...) ((const char *const[]){__VA_ARGS__, NULL})

#endif
