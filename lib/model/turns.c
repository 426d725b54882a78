/* Cosines and sines of positions. */
#include "model/turns.h"

#include <string.h>

#include "base/mem.h"
#include "kernel/ops.h"

static int grow(struct vq_turns *t, uint32_t n, struct vq_err *err)
{
	uint32_t room = t->room > n / 2 && t->room <= UINT32_MAX / 2 ? 2 * t->room : n;
	size_t row = t->head_dim / 2 * sizeof(float);

	if (vq_grow((void **)&t->c, t->n, room, row, err) < 0 ||
	    vq_grow((void **)&t->s, t->n, room, row, err) < 0)
		return VQ_E_SYS;
	t->room = room;
	return VQ_OK;
}

int vq_turns_make(struct vq_turns *t, uint32_t n, uint32_t head_dim, float theta,
		  struct vq_err *err)
{
	size_t at;

	if (t->head_dim != head_dim || t->theta != theta) {
		vq_turns_free(t);
		t->head_dim = head_dim;
		t->theta = theta;
	}
	if (n <= t->n)
		return VQ_OK;
	if (n > t->room && grow(t, n, err) < 0)
		return VQ_E_SYS;
	at = (size_t)t->n * (head_dim / 2);
	vq_rotary_table(t->c + at, t->s + at, t->n, n - t->n, head_dim, theta);
	t->n = n;
	return VQ_OK;
}

void vq_turns_free(struct vq_turns *t)
{
	vq_free(t->c);
	vq_free(t->s);
	memset(t, 0, sizeof(*t));
}
