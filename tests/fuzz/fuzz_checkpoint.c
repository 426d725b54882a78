/* Files as checkpoints (model streams, llama2.c's export): every byte of every tensor that is accepted can be read. */
#include "fuzz.h"
#include "repair.h"
#include "tensors.h"

static int fuzz_checkpoint_once(const uint8_t *data, size_t n)
{
	return fuzz_tensors(data, n, NULL);
}

int vq_fuzz(const uint8_t *data, size_t n)
{
	return fuzz_both(fuzz_checkpoint_once, fuzz_fix_stream, data, n);
}
