/* What this machine can do at most, and how time is taken: the benchmarks print every figure beside it. */
#ifndef VQ_BENCH_LIMITS_H
#define VQ_BENCH_LIMITS_H

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/log.h"

static inline int limits_by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts t. */
static inline double limits_median(double *t, int n)
{
	qsort(t, (size_t)n, sizeof(*t), limits_by_value);
	return t[n / 2];
}

/* One thread is timed on its processor clock, which other work on the machine does not advance; several on
 * the wall's. */
static inline double limits_now(int threads)
{
	struct timespec t;

	if (threads > 1)
		return vq_now();
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum limits_op { LIMITS_DPBUSD, LIMITS_DPBF16, LIMITS_FMA };

#if defined(__x86_64__)
/* 24 independent chains of one instruction, n times: more than its latency times its rate. */
#define LIMITS_6(op, a, b, c, d, e, f)                                                 \
	op " %%zmm0, %%zmm1, %%zmm" #a "\n\t" op " %%zmm0, %%zmm1, %%zmm" #b "\n\t" op \
	   " %%zmm0, %%zmm1, %%zmm" #c "\n\t" op " %%zmm0, %%zmm1, %%zmm" #d "\n\t" op \
	   " %%zmm0, %%zmm1, %%zmm" #e "\n\t" op " %%zmm0, %%zmm1, %%zmm" #f "\n\t"
#define LIMITS_LOOP(name, isa, op)                                                              \
	__attribute__((target(isa))) static inline void name(long n)                            \
	{                                                                                       \
		long i;                                                                         \
                                                                                                \
		for (i = 0; i < n; i++)                                                         \
			__asm__ volatile(LIMITS_6(op, 8, 9, 10, 11, 12,                         \
						  13) LIMITS_6(op, 14, 15, 16, 17, 18, 19)      \
						 LIMITS_6(op, 20, 21, 22, 23, 24, 25) LIMITS_6( \
							 op, 26, 27, 28, 29, 30, 31)::          \
							 : "xmm8", "xmm9", "xmm10", "xmm11",    \
							   "xmm12", "xmm13", "xmm14", "xmm15",  \
							   "xmm16", "xmm17", "xmm18", "xmm19",  \
							   "xmm20", "xmm21", "xmm22", "xmm23",  \
							   "xmm24", "xmm25", "xmm26", "xmm27",  \
							   "xmm28", "xmm29", "xmm30", "xmm31"); \
	}
LIMITS_LOOP(limits_dpbusd, "avx512f,avx512vnni", "vpdpbusd")
LIMITS_LOOP(limits_dpbf16, "avx512f,avx512bf16", "vdpbf16ps")
LIMITS_LOOP(limits_fma, "avx512f", "vfmadd231ps")

static inline int limits_have(enum limits_op op)
{
	return op == LIMITS_DPBUSD   ? __builtin_cpu_supports("avx512vnni")
	       : op == LIMITS_DPBF16 ? __builtin_cpu_supports("avx512bf16")
				     : __builtin_cpu_supports("avx512f");
}

static inline void limits_loop(enum limits_op op, long n)
{
	if (op == LIMITS_DPBUSD)
		limits_dpbusd(n);
	else if (op == LIMITS_DPBF16)
		limits_dpbf16(n);
	else
		limits_fma(n);
}

/* The sum of one stream a thread; bytes is a multiple of 512. */
__attribute__((target("avx512f"))) static inline int limits_sum(const char *p, size_t bytes)
{
	int sum[16] __attribute__((aligned(64)));
	__m512i s[8];
	size_t i;
	int k;

	for (k = 0; k < 8; k++)
		s[k] = _mm512_setzero_si512();
	for (i = 0; i < bytes; i += 512)
		for (k = 0; k < 8; k++)
			s[k] = _mm512_add_epi32(s[k], _mm512_load_si512(p + i + 64 * k));
	for (k = 1; k < 8; k++)
		s[0] = _mm512_add_epi32(s[0], s[k]);
	_mm512_store_si512(sum, s[0]);
	return sum[0];
}

static inline int limits_read(const char *p, size_t bytes)
{
	return __builtin_cpu_supports("avx512f") ? limits_sum(p, bytes) : 0;
}
#else
static inline int limits_have(enum limits_op op)
{
	(void)op;
	return 0;
}

static inline void limits_loop(enum limits_op op, long n)
{
	(void)op;
	(void)n;
}

static inline int limits_read(const char *p, size_t bytes)
{
	(void)p;
	(void)bytes;
	return 0;
}
#endif

/* Giga operations a second (a multiplication and an addition are two) of an instruction on all threads; NAN where this
 * CPU has it not.  The median of nine. */
static inline double limits_peak(enum limits_op op, int threads)
{
	static const double ops[] = {128, 64, 32};
	const long n =
		5000000; /* long enough for the system to spread new threads over the cores */
	double all[9];
	int r;

	if (!limits_have(op))
		return NAN;
	for (r = 0; r < 9; r++) {
		double sum = 0;

#pragma omp parallel num_threads(threads) reduction(+ : sum)
		{
			double t0 = limits_now(threads);

			limits_loop(op, n);
			sum += 24 * ops[op] * (double)n / (limits_now(threads) - t0) / 1e9;
		}
		all[r] = sum;
	}
	return limits_median(all, 9);
}

/* GB/s at which the threads read 1 GiB, each its own half from end to end, in pages of 2 MB (where the system gives
 * them) or 4 KB; NAN without memory.  The median of seven. */
static inline double limits_bandwidth(int huge, int threads)
{
	const size_t bytes = (size_t)1 << 30, page = (size_t)2 << 20;
	char *block = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);
	char *p = (char *)(((uintptr_t)block + page - 1) / page * page);
	static volatile int sink;
	double all[7];
	int r;

	if (block == MAP_FAILED || !limits_have(LIMITS_FMA))
		return NAN;
	madvise(p, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(p, 1, bytes);
	for (r = 0; r < 7; r++) {
		double t0 = vq_now();

#pragma omp parallel num_threads(threads)
		{
			size_t part = bytes / (size_t)threads / 512 * 512;

			sink += limits_read(p + part * (size_t)omp_get_thread_num(), part);
		}
		all[r] = (double)bytes / (vq_now() - t0) / 1e9;
	}
	(void)sink; /* clang: set but not used */
	munmap(block, bytes + page);
	return limits_median(all, 7);
}

#endif
