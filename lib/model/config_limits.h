/* How large a model may say it is.  Every size in a configuration is held to these before any product of
 * sizes is formed; they are generous against models that exist, and small against what breaks arithmetic. */
#ifndef VQ_MODEL_CONFIG_LIMITS_H
#define VQ_MODEL_CONFIG_LIMITS_H

#define VQ_LIMIT_DIM      (1u << 20) /* hidden and intermediate widths */
#define VQ_LIMIT_LAYERS   1024u
#define VQ_LIMIT_HEADS    4096u
#define VQ_LIMIT_HEAD_DIM 4096u
#define VQ_LIMIT_VOCAB    (1u << 22)
#define VQ_LIMIT_POSITION (1u << 24)
#define VQ_LIMIT_IMAGE    8192u /* pixels a side */
#define VQ_LIMIT_PATCHES  65536u
#define VQ_LIMIT_SHUFFLE  16u /* side of a square of patches */
#define VQ_LIMIT_EPS_LO   1e-30
#define VQ_LIMIT_THETA    1e12
#define VQ_LIMIT_EXPERTS  64u /* of a layer */
#define VQ_LIMIT_CAPACITY 1e6

#endif
