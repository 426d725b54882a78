/* The file of a training's state. */
#include "task/heal_state.h"

#include <string.h>
#include <xxhash.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/str.h"

static const char magic[8] = {'V', 'Q', 'L', 'M', 'L', 'O', 'R', 'A'};

struct head {
	char magic[8], setup[64];
	uint32_t step, best_step;
	double best_loss;
	uint64_t n;
};

int vq_lora_state_new(struct vq_lora_state *s, const struct vq_lora *l, const struct vq_heal *h,
		      struct vq_err *err)
{
	const struct vq_prune_opts *o = h->o;
	char identity[VQ_SHA256_HEX];
	struct vq_str text = {0};
	uint32_t i;
	int rc = vq_ckpt_identity(h->ckpt, identity, err);

	if (rc < 0)
		return rc;
	vq_str_printf(&text, "%s %s %u %llu %u %u %.17g", identity, h->run->samples->sha256,
		      h->run->samples->n, (unsigned long long)o->seed, o->lora_rank, o->lora_steps,
		      o->lora_rate);
	for (i = 0; i < h->kept->n; i++)
		vq_str_printf(&text, " %u", h->kept->v[i]);
	*s = (struct vq_lora_state){.best = vq_alloc_f32(l->n, err)};
	rc = s->best && !text.failed ? VQ_OK : VQ_E_SYS;
	if (rc == VQ_OK)
		vq_sha256_of(text.s, text.n, s->setup);
	else if (text.failed)
		(void)vq_fail(err, VQ_E_SYS, "memory: cannot have the state"); /* rc says it */
	vq_str_free(&text);
	return rc;
}

void vq_lora_state_free(struct vq_lora_state *s)
{
	vq_free(s->best);
	memset(s, 0, sizeof(*s));
}

int vq_lora_state_write(const struct vq_lora_state *s, const struct vq_lora *l, const char *path,
			struct vq_err *err)
{
	const float *parts[] = {l->value, l->moment1, l->moment2, s->best};
	struct head head = {
		.step = s->step, .best_step = s->best_step, .best_loss = s->best_loss, .n = l->n};
	XXH64_state_t *x = XXH64_createState();
	struct vq_output out;
	uint64_t sum;
	uint32_t i;
	int rc = x ? vq_output_open(&out, path, err)
		   : vq_fail(err, VQ_E_SYS, "memory: cannot have a checksum");

	if (rc < 0) {
		(void)XXH64_freeState(x); /* always XXH_OK */
		return rc;
	}
	memcpy(head.magic, magic, sizeof(magic));
	memcpy(head.setup, s->setup, sizeof(head.setup));
	(void)XXH64_reset(x, 0); /* x is not NULL */
	(void)XXH64_update(x, &head, sizeof(head));
	rc = vq_write_full(out.fd, &head, sizeof(head), out.label, err);
	for (i = 0; i < 4 && rc >= 0; i++) {
		(void)XXH64_update(x, parts[i], l->n * sizeof(float));
		rc = vq_write_full(out.fd, parts[i], l->n * sizeof(float), out.label, err);
	}
	sum = XXH64_digest(x);
	if (rc >= 0)
		rc = vq_write_full(out.fd, &sum, sizeof(sum), out.label, err);
	(void)XXH64_freeState(x); /* always XXH_OK */
	if (rc >= 0)
		return vq_output_commit(&out, err);
	vq_output_abort(&out, 0);
	return rc;
}

int vq_lora_state_read(struct vq_lora_state *s, struct vq_lora *l, const char *path,
		       struct vq_err *err)
{
	size_t part = l->n * sizeof(float), want = sizeof(struct head) + 4 * part, n;
	struct head head;
	uint64_t sum;
	char *data;
	int rc;

	if (!vq_path_exists(path))
		return VQ_OK;
	rc = vq_file_read(path, want + sizeof(sum), VQ_E_SYS, &data, &n, err);
	if (rc < 0)
		return rc;
	if (n >= sizeof(head))
		memcpy(&head, data, sizeof(head));
	if (n < sizeof(head) || memcmp(head.magic, magic, sizeof(magic)) != 0) {
		rc = vq_fail(err, VQ_E_DATA, "%s: want the state of a training (--lora-state)",
			     path);
	} else if (memcmp(head.setup, s->setup, sizeof(head.setup)) != 0) {
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: the state is of another model, other blocks, samples or options; "
			     "give those, or another file",
			     path);
	} else {
		if (n == want + sizeof(sum))
			memcpy(&sum, data + want, sizeof(sum));
		if (n != want + sizeof(sum) || XXH64(data, want, 0) != sum)
			rc = vq_fail(err, VQ_E_DATA,
				     "%s: the state is damaged; remove it to begin "
				     "again",
				     path);
	}
	if (rc >= 0) {
		const char *p = data + sizeof(head);

		s->step = head.step;
		s->best_step = head.best_step;
		s->best_loss = head.best_loss;
		memcpy(l->value, p, part);
		memcpy(l->moment1, p + part, part);
		memcpy(l->moment2, p + 2 * part, part);
		memcpy(s->best, p + 3 * part, part);
	}
	vq_free(data);
	return rc;
}
