/* The kernel table. */
#include "kernel/cpu.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

static const struct vq_kernels *const rows[] = {
	&vq_kernels_generic,
#if defined(__x86_64__)
	&vq_kernels_avx2,
	&vq_kernels_avx512vnni,
#elif defined(__aarch64__)
	&vq_kernels_neon,
	&vq_kernels_neondot,
#endif
};

#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static _Atomic(const struct vq_kernels *) chosen;

const struct vq_kernels *vq_kernels_row(uint32_t i)
{
	return i < N_ROWS ? rows[i] : NULL;
}

void vq_kernels_use(const struct vq_kernels *k)
{
	atomic_store(&chosen, k);
}

/* The row called name, or the best one for NULL; NULL when this CPU has none such. */
static const struct vq_kernels *find(const char *name)
{
	size_t i = N_ROWS;

	while (i-- > 0)
		if ((!name || strcmp(rows[i]->name, name) == 0) && rows[i]->runs())
			return rows[i];
	return NULL;
}

/* Two threads that come first together make the same choice. */
const struct vq_kernels *vq_kernels_get(void)
{
	const struct vq_kernels *k = atomic_load_explicit(&chosen, memory_order_relaxed);

	if (k)
		return k;
	k = find(getenv("VQLM_CPU"));
	if (!k)
		k = find(NULL);
	atomic_store(&chosen, k);
	return k;
}

const char *vq_cpu_name(void)
{
	return vq_kernels_get()->name;
}

int vq_cpu_check(struct vq_err *err)
{
	const char *want = getenv("VQLM_CPU");
	struct vq_str have = {0};
	size_t i;
	int rc;

	if (!want || find(want))
		return VQ_OK;
	for (i = 0; i < N_ROWS; i++)
		if (rows[i]->runs())
			vq_str_printf(&have, "%s%s", i ? ", " : "", rows[i]->name);
	rc = vq_fail(err, VQ_E_USAGE,
		     "VQLM_CPU: want a kernel set that this CPU runs (%s), got '%s'",
		     have.s ? have.s : "generic", want);
	vq_str_free(&have);
	return rc;
}
