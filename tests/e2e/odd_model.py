#!/usr/bin/python3
"""odd_model.py DIR N: a LLaMA checkpoint of one layer and N inputs everywhere, with the tokenizer of the demo."""
import json, os, shutil, struct, sys

folder, n = sys.argv[1], int(sys.argv[2])
demo = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'pipelines', 'demo', 'mini-llava')
os.mkdir(folder)
for f in ('tokenizer.json', 'tokenizer_config.json', 'generation_config.json'):
    shutil.copy(os.path.join(demo, f), folder)
json.dump({'architectures': ['LlamaForCausalLM'], 'model_type': 'llama', 'vocab_size': 1024, 'hidden_size': n,
           'intermediate_size': n, 'num_hidden_layers': 1, 'num_attention_heads': 1, 'num_key_value_heads': 1,
           'max_position_embeddings': 512, 'rms_norm_eps': 1e-5, 'tie_word_embeddings': False},
          open(os.path.join(folder, 'config.json'), 'w'))
layer = 'model.layers.0.'
shapes = {'model.embed_tokens.weight': [1024, n], 'lm_head.weight': [1024, n], 'model.norm.weight': [n],
          layer + 'input_layernorm.weight': [n], layer + 'post_attention_layernorm.weight': [n]}
for p in ('self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj', 'self_attn.o_proj', 'mlp.gate_proj', 'mlp.up_proj',
          'mlp.down_proj'):
    shapes[layer + p + '.weight'] = [n, n]
head, data, seed = {}, b'', 1
for name, shape in shapes.items():
    count = shape[0] * (shape[1] if len(shape) > 1 else 1)
    values = []
    for _ in range(count):  # a linear congruence: any weights will do
        seed = seed * 1103515245 + 12345 & 0x7fffffff
        values.append(seed / 0x7fffffff - 0.5)
    part = struct.pack('<%de' % count, *values)
    head[name] = {'dtype': 'F16', 'shape': shape, 'data_offsets': [len(data), len(data) + len(part)]}
    data += part
text = json.dumps(head).encode()
with open(os.path.join(folder, 'model.safetensors'), 'wb') as f:
    f.write(struct.pack('<Q', len(text)) + text + data)
