/* A set of names: open addressing, at most half full. */
#include "stream/nameset.h"

#include <string.h>
#include <xxhash.h>

#include "base/mem.h"

/* The slot that holds name, or the free one where it belongs. */
static char **find(char **slots, size_t room, const char *name)
{
	size_t i = (size_t)XXH64(name, strlen(name), 0) & (room - 1);

	while (slots[i] && strcmp(slots[i], name) != 0)
		i = (i + 1) & (room - 1);
	return &slots[i];
}

static int grow(struct vq_nameset *s, struct vq_err *err)
{
	size_t room = s->room ? 2 * s->room : 256, i;
	char **slots = vq_calloc(room, sizeof(*slots), err);

	if (!slots)
		return VQ_E_SYS;
	for (i = 0; i < s->room; i++)
		if (s->slots[i])
			*find(slots, room, s->slots[i]) = s->slots[i];
	vq_free(s->slots);
	s->slots = slots;
	s->room = room;
	return VQ_OK;
}

int vq_nameset_add(struct vq_nameset *s, const char *name, struct vq_err *err)
{
	char **at;

	if (2 * (s->n + 1) > s->room && grow(s, err) < 0)
		return VQ_E_SYS;
	at = find(s->slots, s->room, name);
	if (*at)
		return 0;
	*at = vq_strdup(name, err);
	if (!*at)
		return VQ_E_SYS;
	s->n++;
	return 1;
}

void vq_nameset_clear(struct vq_nameset *s)
{
	size_t i;

	for (i = 0; i < s->room; i++)
		vq_free(s->slots[i]);
	vq_free(s->slots);
	memset(s, 0, sizeof(*s));
}
