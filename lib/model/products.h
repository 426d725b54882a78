/* How all of a model's linears multiply. */
#ifndef VQ_MODEL_PRODUCTS_H
#define VQ_MODEL_PRODUCTS_H

#include "model/model.h"

/* From now on products with weights of 16 bits go this way (kernel/gemm16.h); a new model's are float32. */
void vq_model_products(struct vq_model *m, enum vq_gemm_way way);

/* Packed weights are from now on dequantized and multiplied in float. */
void vq_model_exact(struct vq_model *m);

#endif
