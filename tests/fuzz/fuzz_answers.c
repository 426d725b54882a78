/* What vqlm-eval and vqlm-infer --choices read beside models: answers, right answers (problems.json or conversations), scored
 * windows and choices, questions with choices.  Each reader gets the bytes: most refuse most of them. */
#include "fuzz.h"

#include "format/answers.h"
#include "format/choices.h"
#include "format/scienceqa.h"
#include "format/scores.h"

static int fuzz_right(const char *path)
{
	struct vq_err err = {0};
	struct vq_sqa s;
	int rc = vq_sqa_open(&s, path, NULL, &err), bad = fuzz_outcome(rc, &err);
	uint32_t i;

	for (i = 0; rc == VQ_OK && i < s.n; i++)
		bad |= vq_sqa_find(&s, s.refs[i].id) != (int64_t)i ||
		       (s.refs[i].n_choices && s.refs[i].answer >= s.refs[i].n_choices);
	if (rc == VQ_OK)
		vq_sqa_close(&s);
	return bad;
}

static int fuzz_choices(const char *path)
{
	struct vq_err err = {0};
	struct vq_choices c = {0};
	int rc = vq_choices_open(&c, path, &err), bad = fuzz_outcome(rc, &err);
	uint32_t i;

	for (i = 0; rc == VQ_OK && i < c.n; i++)
		bad |= c.items[i].answer >= c.items[i].n || c.items[i].n > VQ_MAX_CONTINUATIONS;
	if (rc == VQ_OK)
		vq_choices_close(&c);
	return bad;
}

static int fuzz_scores(const char *path, const char *kind)
{
	struct vq_err err = {0};
	struct vq_scores s = {0};
	int rc = vq_scores_open(&s, path, kind, &err), bad = fuzz_outcome(rc, &err);
	double x;
	uint32_t i;

	for (i = 0; rc == VQ_OK && i < s.n; i++)
		bad |= fuzz_outcome(vq_scores_number(&s, i, "nll", &x, &err), &err);
	if (rc == VQ_OK)
		vq_scores_close(&s);
	return bad;
}

int vq_fuzz(const uint8_t *data, size_t n)
{
	struct vq_answers a;
	struct vq_err err = {0};
	char path[64];
	const char *paths[1] = {path};
	int fd = fuzz_file(data, n, path, sizeof(path)), rc, bad;
	uint32_t i;

	if (fd < 0)
		return 1;
	rc = vq_answers_open(&a, paths, 1, &err);
	bad = fuzz_outcome(rc, &err);
	for (i = 0; rc == VQ_OK && i < a.n; i++)
		bad |= !a.items[i].id || (!a.items[i].text && a.items[i].choice < 0);
	if (rc == VQ_OK)
		vq_answers_close(&a);
	bad |= fuzz_right(path) || fuzz_choices(path) || fuzz_scores(path, "perplexity") ||
	       fuzz_scores(path, "choices");
	close(fd);
	return bad;
}
