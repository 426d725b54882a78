/* Scores of blocks from a file. */
#include "task/prune_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"

#define FILE_LIMIT ((size_t)64 << 20)

struct form {
	const char *first;       /* cell of the first line; NULL: no such line, an order */
	uint32_t block;          /* column */
	uint32_t score, n_score; /* columns; 0: all that are left */
	int many;                /* rows of a block are added up */
};

static const struct form forms[] = {
	{"removed_block", 0, 1, 1, 0}, {"rank", 1, 2, 1, 0}, {"block_name", 0, 1, 0, 0},
	{"weight_name", 0, 1, 1, 1},   {NULL, 0, 0, 0, 0},
};

struct scores {
	const char *path;
	const struct form *form;
	uint32_t n, line, *seen; /* [n] rows of each block */
	double *score;           /* [n] */
};

/* Cuts the next line off *text, without its end; NULL after the last. */
static char *next_line(char **text)
{
	char *line = *text, *end = line + strcspn(line, "\n");

	if (!*line)
		return NULL;
	*text = *end ? end + 1 : end;
	*end = '\0';
	if (end > line && end[-1] == '\r')
		end[-1] = '\0';
	return line;
}

/* The next cell of a line; NULL after the last. */
static char *next_cell(char **line)
{
	char *cell = *line, *end;

	if (!cell)
		return NULL;
	end = strchr(cell, ',');
	*line = end ? end + 1 : NULL;
	if (end)
		*end = '\0';
	return cell;
}

static int parse_number(const char *s, double *v)
{
	char *end;

	*v = strtod(s, &end);
	return end != s && !*end ? VQ_OK : VQ_E_DATA;
}

static int bad_cell(const struct scores *s, const char *want, const char *got, struct vq_err *err)
{
	return vq_fail(err, VQ_E_DATA, "%s: line %u: want %s, got '%.40s'", s->path, s->line, want,
		       got ? got : "nothing");
}

/* 1 and the block of a cell, 0 when it is the name of something else, < 0 error. */
static int parse_block(const struct scores *s, const char *cell, uint32_t *block,
		       struct vq_err *err)
{
	static const char prefix[] = "model.layers.";
	char number[16];
	size_t n;
	double v;

	if (cell && strncmp(cell, prefix, sizeof(prefix) - 1) == 0) {
		cell += sizeof(prefix) - 1;
		n = strcspn(cell, ".");
	} else if (cell && *cell >= '0' && *cell <= '9') {
		n = strlen(cell);
	} else {
		return cell && *cell ? 0 : bad_cell(s, "a block", cell, err);
	}
	if (n >= sizeof(number))
		return bad_cell(s, "a block", cell, err);
	memcpy(number, cell, n);
	number[n] = '\0';
	if (parse_number(number, &v) < 0 || !(v >= 0 && v < s->n) || v != (uint32_t)v)
		return vq_fail(err, VQ_E_DATA,
			       "%s: line %u: want a block of the model's 0..%u, got "
			       "'%.40s'",
			       s->path, s->line, s->n - 1, cell);
	*block = (uint32_t)v;
	return 1;
}

static int read_row(struct scores *s, char *line, struct vq_err *err)
{
	const struct form *f = s->form;
	uint32_t column, block = 0, scores = 0;
	char *cell;
	double v;
	int rc;

	for (column = 0; (cell = next_cell(&line)); column++) {
		if (column == f->block) {
			rc = parse_block(s, cell, &block, err);
			if (rc <= 0)
				return rc;
		} else if (column >= f->score && (!f->n_score || column < f->score + f->n_score)) {
			if (parse_number(cell, &v) < 0)
				return bad_cell(s, "a score", cell, err);
			s->score[block] = scores || s->seen[block] ? s->score[block] + v : v;
			scores++;
		}
	}
	if (!scores)
		return bad_cell(s, "a score", NULL, err);
	s->seen[block]++;
	return VQ_OK;
}

/* The order itself: the first block of it has the lowest score. */
static int read_order(struct scores *s, char *line, struct vq_err *err)
{
	uint32_t at, block;
	char *cell;

	for (at = 0; (cell = next_cell(&line)); at++) {
		int rc = parse_block(s, cell, &block, err);

		if (rc <= 0)
			return rc < 0 ? rc : bad_cell(s, "a block", cell, err);
		s->score[block] = at;
		s->seen[block]++;
	}
	return VQ_OK;
}

static int check_all(const struct scores *s, struct vq_err *err)
{
	uint32_t i;

	for (i = 0; i < s->n; i++)
		if (!s->seen[i] || (s->form->many ? s->seen[i] != s->seen[0] : s->seen[i] != 1))
			return vq_fail(err, VQ_E_DATA,
				       "%s: block %u comes %u times; want each of the model's %u "
				       "blocks %s",
				       s->path, i, s->seen[i], s->n,
				       s->form->many ? "as often as the first" : "once");
	return VQ_OK;
}

static int read_lines(struct scores *s, char *text, struct vq_err *err)
{
	char *line = next_line(&text);
	size_t n = line ? strcspn(line, ",") : 0;
	int rc = VQ_OK;

	s->line = 1;
	for (s->form = forms; s->form->first; s->form++)
		if (strlen(s->form->first) == n && strncmp(line, s->form->first, n) == 0)
			break;
	if (!s->form->first) {
		if (!line || *line < '0' || *line > '9' || strchr(text, ','))
			return bad_cell(s,
					"the columns of --table or of a published file, or one "
					"line with an order of blocks",
					line, err);
		rc = read_order(s, line, err);
	}
	while (rc >= 0 && s->form->first && (line = next_line(&text))) {
		s->line++;
		if (*line)
			rc = read_row(s, line, err);
	}
	return rc < 0 ? rc : check_all(s, err);
}

int vq_prune_file(const char *path, uint32_t n, double *score, struct vq_err *err)
{
	struct scores s = {.path = path, .n = n, .score = score};
	char *data = NULL;
	size_t bytes;
	int rc = vq_file_read(path, FILE_LIMIT, VQ_E_SYS, &data, &bytes, err);

	if (rc == VQ_OK && strlen(data) != bytes)
		rc = vq_fail(err, VQ_E_DATA, "%s: want CSV, got bytes that are no text", path);
	s.seen = vq_calloc(n, sizeof(*s.seen), err);
	if (rc == VQ_OK)
		rc = s.seen ? read_lines(&s, data, err) : VQ_E_SYS;
	vq_free(s.seen);
	vq_free(data);
	return rc;
}
