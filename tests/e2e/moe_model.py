#!/usr/bin/python3
"""moe_model.py SRC DST [options]: the llava-hf checkpoint SRC as a MoE-LLaVA checkpoint in the layout of its authors.

Dense layers keep SRC's weights.  A sparse layer gets a random router, and experts that are SRC's MLP and noise, so that the
model still says something; their names are those of DeepSpeed's modules.

--flat DIR          the tower goes to the CLIP folder DIR beside DST
--layers 0,2        sparse layers (moe_layers_idx); without: every second from 0, and moe_layers_idx is null
--experts 4         or a list, one number a sparse layer
--tensors 3         the weights have this many experts, whatever the configuration says
--top-k 2, --factor 2.0, --min-capacity 0
--starve            the last expert's router row is 0 and the others come in opposite pairs: no row ever chooses it
--noise 0.02        of the experts' weights
--set KEY=JSON      of the moe dictionary"""
import argparse, json, os, struct, sys, types
import numpy as np
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import layout

MLP = ('gate_proj', 'up_proj', 'down_proj')


def f16(x):
    x = np.asarray(x, np.float16)
    return ('F16', list(x.shape), x.tobytes())


def experts_of(tensors, layer, n, a, r):
    """The tensors of a sparse layer in the place of its MLP; the router is float32, as the authors keep it."""
    p = 'model.layers.%d.mlp.' % layer
    dense = {k: np.frombuffer(tensors[p + k + '.weight'][2], np.float16).reshape(tensors[p + k + '.weight'][1]) for k in MLP}
    for k in MLP:
        del tensors[p + k + '.weight']
    width = dense['up_proj'].shape[1]
    router = r.normal(0, .6 / width ** .5, [n, width])
    if a.starve:
        router[1:n - 1:2] = -router[0:n - 2:2]
        router[n - 1] = 0
    router = router.astype(np.float32)
    tensors[p + 'deepspeed_moe.gate.wg.weight'] = ('F32', list(router.shape), router.tobytes())
    for e in range(n):
        for k in MLP:
            w = dense[k] + r.normal(0, a.noise, dense[k].shape)
            tensors[p + 'deepspeed_moe.experts.deepspeed_experts.%d.%s.weight' % (e, k)] = f16(w)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('src')
    p.add_argument('dst')
    p.add_argument('--flat', default='clip-mini')
    p.add_argument('--layers')
    p.add_argument('--experts', default='4')
    p.add_argument('--tensors', type=int)
    p.add_argument('--top-k', type=int, default=2)
    p.add_argument('--factor', type=float, default=2.0)
    p.add_argument('--min-capacity', type=int, default=0)
    p.add_argument('--starve', action='store_true')
    p.add_argument('--noise', type=float, default=.02)
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--set', action='append', default=[])
    a = p.parse_args()
    r = np.random.RandomState(a.seed)
    tensors = layout.read_safetensors(a.src + '/model.safetensors')
    config = json.load(open(a.src + '/config.json'))
    os.makedirs(a.dst)
    c, out = layout.flat(types.SimpleNamespace(flat=a.flat, linear=False, tower='beside', dst=a.dst, src=a.src, weights='safetensors'),
                         config, tensors)
    n_layers = c['num_hidden_layers']
    layers = [int(i) for i in a.layers.split(',')] if a.layers else list(range(n_layers))[::2]
    experts = [int(e) for e in a.experts.split(',')]
    if len(experts) == 1:
        experts *= len(layers)
    for i, n in zip(layers, experts):
        experts_of(out, i, a.tensors or n, a, r)
    c.update(model_type='moe_llava_llama', architectures=['MoELLaVALlamaForCausalLM'], moe=dict(
        moe_enable=True, moe_mode='sparse', moe_layers_idx=layers if a.layers else None, num_experts=experts, top_k_experts=a.top_k,
        capacity_factor=1.5, eval_capacity_factor=a.factor, min_capacity=a.min_capacity, use_residual=False,
        router_aux_loss_coef=.01, ep_size=1, train_modules=list(MLP) + ['wg']))
    for s in a.set:
        key, value = s.split('=', 1)
        c['moe'][key] = json.loads(value)
    json.dump(c, open(a.dst + '/config.json', 'w'))
    layout.copy_sides(a.src, a.dst, ['tokenizer.model', 'special_tokens_map.json', 'generation_config.json'])
    layout.write_weights(a.dst, out, 'safetensors', 1)


if __name__ == '__main__':
    main()
