/* Attention beside its definition in double precision, and every kernel set beside the generic one, bit by bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <omp.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "kernel/attend.h"
#include "kernel/cpu.h"
#include "model/attention.h"
#include "emulated.h"

/* Errors of sums in float32, of 2^x and of the division, for numbers of a normal distribution. */
#define BOUND 1e-5

struct shape {
	uint32_t past, n, heads, kv_heads, dim;
	int causal;
	enum vq_kv_type type;
};

struct data {
	struct shape s;
	struct vq_layer_config c;
	size_t q_width, kv_width;
	float *q, *k, *v;        /* of past + n tokens */
	double *kept_k, *kept_v; /* as a cache of the type keeps them */
};

static float *random_rows(size_t n, const char *purpose)
{
	struct vq_rng r = vq_rng_new(3, purpose);
	float *x = vq_alloc_f32(n, NULL);
	size_t i;

	for (i = 0; i < n; i++)
		x[i] = (float)vq_rng_normal(r, i);
	return x;
}

/* A token's row of a head as the cache keeps it. */
static void keep(enum vq_kv_type type, const float *row, uint32_t dim, double *out)
{
	float most = 0;
	uint32_t i;

	for (i = 0; i < dim; i++)
		most = fmaxf(most, fabsf(row[i]));
	for (i = 0; i < dim; i++)
		out[i] = type == VQ_KV_F32 ? row[i]
			 : type == VQ_KV_F16
				 ? vq_f16_to_f32(vq_f32_to_f16(row[i]))
				 : (double)(most / 127.0f) * rintf(row[i] * (127.0f / most));
}

static double *keep_all(const struct shape *s, const float *x)
{
	size_t rows = (size_t)(s->past + s->n) * s->kv_heads, i;
	double *out = vq_alloc(rows * s->dim, sizeof(*out), NULL);

	for (i = 0; i < rows; i++)
		keep(s->type, x + i * s->dim, s->dim, out + i * s->dim);
	return out;
}

static void data_new(struct data *d, const struct shape *s)
{
	uint32_t n = s->past + s->n;

	d->s = *s;
	d->c = (struct vq_layer_config){.n_heads = s->heads,
					.n_kv_heads = s->kv_heads,
					.head_dim = s->dim,
					.causal = s->causal};
	d->q_width = (size_t)s->heads * s->dim;
	d->kv_width = (size_t)s->kv_heads * s->dim;
	d->q = random_rows(n * d->q_width, "q");
	d->k = random_rows(n * d->kv_width, "k");
	d->v = random_rows(n * d->kv_width, "v");
	d->kept_k = keep_all(s, d->k);
	d->kept_v = keep_all(s, d->v);
}

static void data_free(struct data *d)
{
	vq_free(d->q);
	vq_free(d->k);
	vq_free(d->v);
	vq_free(d->kept_k);
	vq_free(d->kept_v);
}

/* Tokens first .. first + n - 1 through a cache that holds those before; out [n, q_width]. */
static void step(const struct data *d, struct vq_kv *kv, uint32_t first, uint32_t n, float *out)
{
	const uint32_t start[] = {0, n}, past[] = {first};
	const struct vq_batch b = {1, start};
	struct vq_attention a = {&d->c,
				 &b,
				 past,
				 d->q + first * d->q_width,
				 &b,
				 d->k + first * d->kv_width,
				 d->v + first * d->kv_width,
				 kv ? kv->layers : NULL,
				 out};

	assert_int_equal(vq_attention_run(&a, NULL), VQ_OK);
	if (kv)
		kv->n[0] += n;
}

/* The last n tokens of d, in one call after those before; without a cache when F32 and nothing is before. */
static float *attention(const struct data *d)
{
	const struct shape *s = &d->s;
	float *out = vq_alloc_f32((s->past + s->n) * d->q_width, NULL);
	struct vq_kv kv;

	if (s->past == 0 && s->type == VQ_KV_F32) {
		step(d, NULL, 0, s->n, out);
		return out;
	}
	assert_int_equal(vq_kv_new(&kv, 1, 1, s->past + s->n, s->kv_heads, s->dim, s->type, NULL),
			 VQ_OK);
	if (s->past)
		step(d, &kv, 0, s->past, out);
	step(d, &kv, s->past, s->n, out);
	vq_kv_free(&kv);
	return out;
}

static double distance(const struct data *d, const float *out, uint32_t t, uint32_t head)
{
	const struct shape *s = &d->s;
	uint32_t all = s->past + s->n, seen = s->causal ? s->past + t + 1 : all, u, i;
	size_t kv = (size_t)(head / (s->heads / s->kv_heads)) * s->dim;
	const float *q = d->q + (s->past + t) * d->q_width + (size_t)head * s->dim;
	const double *k = d->kept_k + kv, *v = d->kept_v + kv;
	double *p = vq_alloc(seen, sizeof(*p), NULL), sum = 0, most = -INFINITY;
	double o[512] = {0}, worst = 0;

	for (u = 0; u < seen; u++) {
		for (p[u] = 0, i = 0; i < s->dim; i++)
			p[u] += q[i] * k[u * d->kv_width + i];
		p[u] /= sqrt(s->dim);
		most = fmax(most, p[u]);
	}
	for (u = 0; u < seen; u++) {
		p[u] = exp(p[u] - most);
		sum += p[u];
		for (i = 0; i < s->dim; i++)
			o[i] += p[u] * v[u * d->kv_width + i];
	}
	for (i = 0; i < s->dim; i++)
		worst = fmax(worst, fabs(o[i] / sum - out[t * d->q_width + head * s->dim + i]));
	vq_free(p);
	return worst;
}

/* Largest distance from the definition; every set against the generic one. */
static double check(const struct shape *s)
{
	const struct vq_kernels *best = vq_kernels_get();
	struct data d;
	float *want, *got;
	double worst = 0;
	uint32_t set, t, head;

	data_new(&d, s);
	vq_kernels_use(vq_kernels_row(0));
	want = attention(&d);
	for (set = 1; vq_kernels_row(set); set++) {
		if (!vq_kernels_row(set)->runs())
			continue;
		vq_kernels_use(vq_kernels_row(set));
		got = attention(&d);
		assert_memory_equal(want, got, s->n * d.q_width * sizeof(float));
		vq_free(got);
	}
	vq_kernels_use(best);
	for (t = 0; t<s->n; t += s->n> 40 && t + 12 < s->n ? 12 : 1)
		for (head = 0; head<s->heads; head += s->heads> 20 ? 19 : 1)
			worst = fmax(worst, distance(&d, want, t, head));
	assert_true(worst < BOUND);
	vq_free(want);
	data_free(&d);
	return worst;
}

static void every_length_agrees_with_double_precision(void **state)
{
	double worst = 0;
	uint32_t n;

	(void)state;
	for (n = 0; n <= 300; n += stride(7))
		worst = fmax(worst, check(&(struct shape){0, n, 2, 1, n % 19 + 1, n % 2,
							  (enum vq_kv_type)(n % 3)}));
	print_message("# figure: attention over 0 to 300 tokens: largest error %.1e\n", worst);
}

static void every_head_width_and_group_does(void **state)
{
	static const uint32_t dims[] = {1, 64, 80, 96, 128, 256, 300};
	static const uint32_t groups[] = {1, 2, 3, 5, 8, 12, 200};
	double worst = 0;
	uint32_t i, type;

	(void)state;
	for (i = 0; i < 7; i++)
		for (type = emulated() ? i % 3 : 0; type < 3; type += stride(3)) {
			uint32_t g = groups[i];

			worst = fmax(worst,
				     check(&(struct shape){0, g > 8 ? 40 : 150, g, 1, dims[i],
							   (int)i % 2, (enum vq_kv_type)type}));
			worst = fmax(worst, check(&(struct shape){140, i + 1, 2 * g, 2, dims[6 - i],
								  1, (enum vq_kv_type)type}));
		}
	print_message("# figure: attention of all widths and groups: largest error %.1e\n", worst);
}

static void large_scores_are_no_trouble(void **state)
{
	struct data d;
	float *out;
	uint32_t i;

	(void)state;
	data_new(&d, &(struct shape){0, 200, 2, 2, 64, 1, VQ_KV_F32});
	for (i = 0; i < 200 * d.q_width; i++)
		d.q[i] *= 100;
	out = attention(&d);
	for (i = 0; i < 200; i++)
		assert_true(distance(&d, out, i, i % 2) < 1e-3);
	vq_free(out);
	/* A key that is not a number spoils those that see it, and no others. */
	d.k[150 * d.kv_width] = NAN;
	out = attention(&d);
	for (i = 0; i < 200; i++)
		assert_true(isnan(out[i * d.q_width]) == (i >= 150));
	vq_free(out);
	data_free(&d);
}

static void a_row_is_the_same_however_its_sequence_is_cut(void **state)
{
	static const uint32_t cuts[] = {1, 2, 7, 16, 100, 127, 128, 129, 200};
	const uint32_t n = 290;
	struct data d;
	float *whole, *part;
	uint32_t type, c, at;
	struct vq_kv kv;

	(void)state;
	for (type = 0; type < 3; type++) {
		data_new(&d, &(struct shape){0, n, 4, 2, 72, 1, (enum vq_kv_type)type});
		whole = attention(&d);
		part = vq_alloc_f32(n * d.q_width, NULL);
		assert_int_equal(vq_kv_new(&kv, 1, 1, n, 2, 72, d.s.type, NULL), VQ_OK);
		for (c = 0; c < sizeof(cuts) / sizeof(cuts[0]); c++) {
			vq_kv_reset(&kv);
			for (at = 0; at < n; at += cuts[c])
				step(&d, &kv, at, n - at < cuts[c] ? n - at : cuts[c],
				     part + at * d.q_width);
			assert_memory_equal(whole, part, n * d.q_width * sizeof(float));
		}
		vq_kv_free(&kv);
		vq_free(whole);
		vq_free(part);
		data_free(&d);
	}
}

/* Three sequences, two of which begin as the one before. */
static void threads_and_shared_beginnings_change_no_bit(void **state)
{
	static const uint32_t start[] = {0, 150, 210, 211}, past[] = {0, 90, 149};
	const struct vq_batch b = {3, start};
	int n = omp_get_max_threads(), threads;
	float *one, *other;
	struct data d;
	struct vq_kv kv;

	(void)state;
	data_new(&d, &(struct shape){0, 211, 4, 2, 64, 1, VQ_KV_F16});
	one = vq_alloc_f32(211 * d.q_width, NULL);
	other = vq_alloc_f32(211 * d.q_width, NULL);
	assert_int_equal(vq_kv_new(&kv, 1, 3, 150, 2, 64, VQ_KV_F16, NULL), VQ_OK);
	vq_kv_share(&kv, 1, 90);
	vq_kv_share(&kv, 2, 149);
	for (threads = 1; threads <= 4; threads++) {
		omp_set_num_threads(threads);
		assert_int_equal(
			vq_attention_run(&(struct vq_attention){&d.c, &b, past, d.q, &b, d.k, d.v,
								kv.layers,
								threads == 1 ? one : other},
					 NULL),
			VQ_OK);
		if (threads > 1)
			assert_memory_equal(one, other, 211 * d.q_width * sizeof(float));
	}
	omp_set_num_threads(n);
	/* The second sequence alone: the first 90 keys of the first, then its own 60. */
	memmove(d.k + 90 * d.kv_width, d.k + 150 * d.kv_width, 60 * d.kv_width * sizeof(float));
	memmove(d.v + 90 * d.kv_width, d.v + 150 * d.kv_width, 60 * d.kv_width * sizeof(float));
	memmove(d.q + 90 * d.q_width, d.q + 150 * d.q_width, 60 * d.q_width * sizeof(float));
	vq_kv_reset(&kv);
	step(&d, &kv, 0, 150, other);
	assert_memory_equal(one + 150 * d.q_width, other + 90 * d.q_width,
			    60 * d.q_width * sizeof(float));
	vq_kv_free(&kv);
	vq_free(one);
	vq_free(other);
	data_free(&d);
}

/* A block that ends where nothing may be read or written. */
static char *at_a_wall(size_t bytes, char **map, size_t *mapped)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (bytes + page - 1) / page * page;

	*mapped = n + page;
	*map = mmap(NULL, *mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(*map != MAP_FAILED);
	assert_int_equal(mprotect(*map + n, page, PROT_NONE), 0);
	return *map + n - bytes;
}

static void nothing_past_the_ends_is_touched(void **state)
{
	const struct vq_kernels *best = vq_kernels_get();
	static const uint32_t dims[] = {5, 64, 80};
	uint32_t i, type, set, n;

	(void)state;
	for (i = 0; i < 3; i++)
		for (type = 0; type < 3; type++)
			for (n = 1; n <= 40; n += 13) {
				size_t bytes, mapped[3], row = (size_t)n * dims[i] * sizeof(float);
				char *map[3];
				float *q = (float *)(void *)at_a_wall(row, &map[0], &mapped[0]);
				float *out = (float *)(void *)at_a_wall(row, &map[1], &mapped[1]);
				float *x = random_rows((size_t)n * dims[i], "x"), *room;
				struct vq_keys h;

				assert_int_equal(
					vq_keys_bytes((enum vq_kv_type)type, dims[i], n, &bytes),
					VQ_OK);
				h = vq_keys_at((enum vq_kv_type)type, dims[i], n,
					       at_a_wall(bytes, &map[2], &mapped[2]));
				vq_keys_store(&h, 0, n, x, x, dims[i]);
				memcpy(q, x, row);
				room = vq_alloc_f32(vq_attend_room(dims[i], n), NULL);
				for (set = 0; vq_kernels_row(set); set++) {
					if (!vq_kernels_row(set)->runs())
						continue;
					vq_kernels_use(vq_kernels_row(set));
					vq_attend(&(struct vq_attend){&h, n, 1, 1, 1, q, out,
								      dims[i], room});
				}
				vq_free(room);
				vq_free(x);
				munmap(map[0], mapped[0]);
				munmap(map[1], mapped[1]);
				munmap(map[2], mapped[2]);
			}
	vq_kernels_use(best);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_length_agrees_with_double_precision),
		cmocka_unit_test(every_head_width_and_group_does),
		cmocka_unit_test(large_scores_are_no_trouble),
		cmocka_unit_test(a_row_is_the_same_however_its_sequence_is_cut),
		cmocka_unit_test(threads_and_shared_beginnings_change_no_bit),
		cmocka_unit_test(nothing_past_the_ends_is_touched),
	};

	return cmocka_run_group_tests_name("attention", tests, NULL, NULL);
}
