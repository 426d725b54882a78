/* Joint matrices of neighbouring layers. */
#include "task/calib_joint.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "quant/dependency.h"
#include "quant/hadamard.h"

static const char *const space_names[VQ_CALIB_SPACES] = {"raw", "hadamard"};

int vq_calib_joint_new(struct vq_calib_joint *j, const struct vq_calib_run *r, uint32_t n_pairs,
		       struct vq_err *err)
{
	uint32_t b;
	int s;

	memset(j, 0, sizeof(*j));
	j->n_bits = r->n_bits;
	memcpy(j->bits, r->bits, sizeof(j->bits));
	j->n_pairs = n_pairs;
	j->seed = r->seed;
	for (s = 0; s < VQ_CALIB_SPACES; s++)
		for (b = 0; b < j->n_bits; b++) {
			j->p[s][b] =
				vq_calloc((size_t)n_pairs << (2 * j->bits[b]), sizeof(float), err);
			if (!j->p[s][b])
				return VQ_E_SYS;
		}
	return VQ_OK;
}

static void leave_tower(struct vq_calib_joint *j)
{
	int i, s;

	for (i = 0; i < 2; i++)
		for (s = 0; s < VQ_CALIB_SPACES; s++) {
			vq_free(j->x[i][s]);
			vq_free(j->min[i][s]);
			vq_free(j->max[i][s]);
			j->x[i][s] = j->min[i][s] = j->max[i][s] = NULL;
		}
	vq_free(j->rows);
	j->rows = NULL;
	j->have = 0;
}

void vq_calib_joint_free(struct vq_calib_joint *j)
{
	uint32_t b;
	int s;

	leave_tower(j);
	for (s = 0; s < VQ_CALIB_SPACES; s++)
		for (b = 0; b < j->n_bits; b++)
			vq_free(j->p[s][b]);
	memset(j, 0, sizeof(*j));
}

int vq_calib_joint_tower(struct vq_calib_joint *j, size_t n_rows, uint32_t width,
			 struct vq_err *err)
{
	size_t most = VQ_CALIB_JOINT_ELEMENTS / width ? VQ_CALIB_JOINT_ELEMENTS / width : 1;
	int i, s;

	leave_tower(j);
	if (n_rows > UINT32_MAX)
		return vq_fail(err, VQ_E_DATA, "%zu rows of hidden states are too many", n_rows);
	j->width = width;
	j->n_rows = (uint32_t)(n_rows < most ? n_rows : most);
	if (j->n_looked == 0)
		j->n_looked = (uint64_t)j->n_rows * width;
	j->rows = vq_alloc(j->n_rows, sizeof(*j->rows), err);
	if (!j->rows)
		return VQ_E_SYS;
	for (i = 0; i < 2; i++)
		for (s = 0; s < VQ_CALIB_SPACES; s++) {
			j->x[i][s] = vq_alloc((size_t)j->n_rows * width, sizeof(float), err);
			j->min[i][s] = vq_alloc_f32(width, err);
			j->max[i][s] = vq_alloc_f32(width, err);
			if (!j->x[i][s] || !j->min[i][s] || !j->max[i][s])
				return VQ_E_SYS;
		}
	return vq_rng_choose(vq_rng_new(j->seed, "rows"), (uint32_t)n_rows, j->n_rows, j->rows,
			     err);
}

static void ranges(const float *x, uint32_t n_rows, uint32_t width, float *min, float *max)
{
	uint32_t i, c;

	memcpy(min, x, width * sizeof(float));
	memcpy(max, x, width * sizeof(float));
	for (i = 1; i < n_rows; i++)
		for (c = 0; c < width; c++) {
			float v = x[(size_t)i * width + c];

			min[c] = v < min[c] ? v : min[c];
			max[c] = v > max[c] ? v : max[c];
		}
}

/* The rows looked at, raw and rotated, with their ranges, into slot j->now. */
static int gather(struct vq_calib_joint *j, const float *h, struct vq_err *err)
{
	float *raw = j->x[j->now][0], *rot = j->x[j->now][1];
	float *sign = vq_alloc_f32(j->width, err);
	uint32_t i;

	if (!sign)
		return VQ_E_SYS;
	for (i = 0; i < j->n_rows; i++)
		memcpy(raw + (size_t)i * j->width, h + (size_t)j->rows[i] * j->width,
		       j->width * sizeof(float));
	memcpy(rot, raw, (size_t)j->n_rows * j->width * sizeof(float));
	vq_sign_fill(sign, j->width, j->seed);
	vq_hadamard_apply(rot, j->n_rows, j->width, sign);
	vq_free(sign);
	for (i = 0; i < VQ_CALIB_SPACES; i++)
		ranges(j->x[j->now][i], j->n_rows, j->width, j->min[j->now][i], j->max[j->now][i]);
	return VQ_OK;
}

/* Sums -> probabilities as float. */
static void store(const double *sums, size_t n, float *out)
{
	double total = 0;
	size_t i;

	for (i = 0; i < n; i++)
		total += sums[i];
	for (i = 0; i < n; i++)
		out[i] = (float)(sums[i] / total);
}

static int one_pair(struct vq_calib_joint *j, int space, uint32_t b, struct vq_err *err)
{
	size_t n = (size_t)1 << (2 * j->bits[b]);
	int k = !j->now, k1 = j->now, rc;
	struct vq_levels a = {j->x[k][space], j->min[k][space], j->max[k][space]};
	struct vq_levels c = {j->x[k1][space], j->min[k1][space], j->max[k1][space]};
	double *sums = vq_calloc(n, sizeof(*sums), err);

	if (!sums)
		return VQ_E_SYS;
	rc = vq_joint_add(sums, &a, &c, j->n_rows, j->width, j->bits[b], 0, err);
	if (rc >= 0)
		store(sums, n, j->p[space][b] + j->pair * n);
	vq_free(sums);
	return rc;
}

int vq_calib_joint_output(struct vq_calib_joint *j, const float *h, struct vq_err *err)
{
	uint32_t b;
	int s, rc;

	j->now = !j->now;
	rc = gather(j, h, err);
	if (rc < 0 || j->have++ == 0)
		return rc;
	for (s = 0; s < VQ_CALIB_SPACES && rc >= 0; s++)
		for (b = 0; b < j->n_bits && rc >= 0; b++)
			rc = one_pair(j, s, b, err);
	j->pair++;
	return rc;
}

int vq_calib_joint_write(const struct vq_calib_joint *j, struct vq_writer *w, struct vq_err *err)
{
	json_t *attrs = json_pack("{s:I}", "elements", (json_int_t)j->n_looked);
	int s, rc = attrs ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot have attributes");
	uint32_t b;
	char name[64];

	for (s = 0; s < VQ_CALIB_SPACES && rc >= 0; s++)
		for (b = 0; b < j->n_bits && rc >= 0; b++) {
			uint64_t levels = (uint64_t)1 << j->bits[b];
			struct vq_tensor t = {VQ_F32, 3, {j->n_pairs, levels, levels}, j->p[s][b]};

			snprintf(name, sizeof(name), "stat/joint/%s/%u", space_names[s],
				 j->bits[b]);
			rc = vq_writer_put_tensor(w, VQ_KIND_STAT, name, &t, attrs, err);
		}
	json_decref(attrs);
	return rc;
}
