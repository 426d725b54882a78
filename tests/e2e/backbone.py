#!/usr/bin/python3
"""Decoders other than LLaMA's, small and with random weights, and what PyTorch computes with them in float64.  The forward
passes are written from the models' papers and published formulas.

backbone.py make FAMILY DIR [--seed N] [--layers N] [--set KEY=JSON] [--drop KEY]
    FAMILY: stablelm, stablelm_epoch, phi, qwen.  A checkpoint with the tokenizer of the demo.
    --flat inside|DIR  in MoE-LLaVA's layout, behind the demo's tower, which is in the checkpoint or the CLIP folder DIR
    --experts 0,2      layers of --flat with four experts
backbone.py msft SRC DST          a Phi checkpoint in the spelling of Microsoft's own code, before transformers had the model
backbone.py beside COUNT DIR...   prompts DIR.q/0.tokens (int32; 0.pixels, float32, of a picture) and so on, the last logits as our
                                  tools find them in 0.got: prints DIR, number of prompts, largest difference relative to the
                                  largest logit; COUNT tokens that follow each prompt, or those before the end, to DIR.q/answers
backbone.py prune DIR...          how far DIR.q/ppl.csv and taylor.csv, vqlm-prune's tables of --criterion ppl and taylor (one batch)
                                  of those prompts with the answers DIR.q/letters, are from PyTorch's: a line of JSON each"""
import argparse
import functools
import json
import math
import os
import shutil
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../pipelines/demo/scripts'))
import layout

TOWER = 'vision_tower.vision_model.'
DEMO = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'pipelines', 'demo', 'mini-llava')
COMMON = {'vocab_size': 1024, 'num_attention_heads': 4, 'max_position_embeddings': 1024, 'bos_token_id': 1,
          'eos_token_id': 2, 'tie_word_embeddings': False, 'torch_dtype': 'float16'}
CONFIGS = {
    'stablelm': {'model_type': 'stablelm', 'architectures': ['StableLmForCausalLM'], 'hidden_size': 128,
                 'intermediate_size': 192, 'num_key_value_heads': 2, 'hidden_act': 'silu', 'layer_norm_eps': 1e-5,
                 'rope_theta': 10000, 'partial_rotary_factor': 0.25, 'use_qkv_bias': True},
    'stablelm_epoch': {'model_type': 'stablelm_epoch', 'architectures': ['StableLMEpochForCausalLM'], 'hidden_size': 128,
                       'intermediate_size': 192, 'num_key_value_heads': 4, 'hidden_act': 'silu', 'norm_eps': 1e-5,
                       'rope_theta': 10000, 'rope_pct': 0.25},
    'phi': {'model_type': 'phi', 'architectures': ['PhiForCausalLM'], 'hidden_size': 160, 'intermediate_size': 320,
            'hidden_act': 'gelu_new', 'layer_norm_eps': 1e-5, 'rope_theta': 10000, 'partial_rotary_factor': 0.4,
            'qk_layernorm': False},
    'qwen': {'model_type': 'qwen', 'architectures': ['QWenLMHeadModel'], 'hidden_size': 128, 'intermediate_size': 384,
             'kv_channels': 32, 'layer_norm_epsilon': 1e-6, 'rotary_emb_base': 10000, 'rotary_pct': 1.0, 'no_bias': True,
             'seq_length': 1024, 'use_dynamic_ntk': True, 'use_logn_attn': True},
}


# --- what a configuration says ---

class Shape:
    """The numbers of config.json that shapes and the forward pass need."""

    def __init__(self, c):
        old = 'norm_eps' in c or 'rope_pct' in c
        c = dict(c, **c.get('rope_parameters', {}))
        self.family = 'stablelm' if 'stablelm' in c['model_type'] else 'phi' if 'phi' in c['model_type'] else 'qwen'
        self.d, self.layers, self.heads, self.vocab = (c[k] for k in ('hidden_size', 'num_hidden_layers',
                                                                      'num_attention_heads', 'vocab_size'))
        self.kv = c.get('num_key_value_heads') or self.heads
        self.dim = c.get('kv_channels') or self.d // self.heads
        self.inter = c['intermediate_size'] // (2 if self.family == 'qwen' else 1)
        self.eps = c.get('layer_norm_eps') or c.get('norm_eps') or c.get('layer_norm_epsilon') or 1e-5
        part = c.get('partial_rotary_factor', c.get('rope_pct', c.get('rotary_pct', 0.25)))
        self.turn = int(part * self.dim)
        self.theta = c.get('rope_theta') or c.get('rotary_emb_base') or 10000
        self.parallel = self.family == 'phi' or bool(c.get('use_parallel_residual'))
        self.qkv_bias = self.family != 'stablelm' or c.get('use_qkv_bias', old)
        self.bias = self.family == 'phi' or (self.family == 'qwen' and not c['no_bias'])
        self.tied = c.get('tie_word_embeddings', False)
        self.eos = c['eos_token_id']
        self.sparse = (c.get('moe') or {}).get('moe_layers_idx') or []
        self.flat, self.tower_width = 'mm_image_tower' in c, c.get('mm_hidden_size')

    def tensors(self):
        """Names and shapes, as the checkpoint has them."""
        q, kv, d, f = self.heads * self.dim, self.kv * self.dim, self.d, self.inter
        top, out = ('transformer.', {}) if self.family == 'qwen' else ('model.', {})

        def mlp(p):
            if self.family == 'phi':
                linear(p + 'fc1', f, d, True)
                linear(p + 'fc2', d, f, True)
            else:
                names = ('w2', 'w1', 'c_proj') if self.family == 'qwen' else ('gate_proj', 'up_proj', 'down_proj')
                for w, n, m in zip(names, (f, f, d), (d, d, f)):
                    linear(p + w, n, m, self.bias)

        def mlps(p, i):
            if i not in self.sparse:
                return mlp(p + 'mlp.')
            out[p + 'mlp.deepspeed_moe.gate.wg.weight'] = [4, d]
            for e in range(4):
                mlp('%smlp.deepspeed_moe.experts.deepspeed_experts.%d.' % (p, e))

        def linear(name, n_out, n_in, bias):
            out[name + '.weight'] = [n_out, n_in]
            if bias:
                out[name + '.bias'] = [n_out]

        def norm(name):
            out[name + '.weight'] = [d]
            if self.family != 'qwen':
                out[name + '.bias'] = [d]

        out[top + {'qwen': 'wte'}.get(self.family, 'embed_tokens') + '.weight'] = [self.vocab, d]
        for i in range(self.layers):
            p = '%s%s.%d.' % (top, 'h' if self.family == 'qwen' else 'layers', i)
            if self.family == 'qwen':
                norm(p + 'ln_1')
                linear(p + 'attn.c_attn', q + 2 * kv, d, True)
                linear(p + 'attn.c_proj', d, q, self.bias)
                norm(p + 'ln_2')
                mlps(p, i)
                continue
            norm(p + 'input_layernorm')
            for w, n in (('q', q), ('k', kv), ('v', kv)):
                linear('%sself_attn.%s_proj' % (p, w), n, d, self.qkv_bias)
            linear(p + ('self_attn.dense' if self.family == 'phi' else 'self_attn.o_proj'), d, q, self.bias)
            if not self.parallel:
                norm(p + 'post_attention_layernorm')
            mlps(p, i)
        norm(top + {'qwen': 'ln_f', 'phi': 'final_layernorm'}.get(self.family, 'norm'))
        if not self.tied:
            linear('lm_head', self.vocab, d, self.family == 'phi' and not self.flat)
        if self.flat:
            linear(top + 'mm_projector.image_spatial_proj.0', d, self.tower_width, True)
            linear(top + 'mm_projector.image_spatial_proj.2', d, d, True)
        return out


def random_weights(shapes, seed):
    rng = np.random.RandomState(seed)
    out = {}
    for name, shape in shapes.items():
        x = rng.randn(*shape)
        if len(shape) > 1:
            x *= 1 if 'embed' in name or 'wte' in name else 1.5 / math.sqrt(shape[1])
        else:
            x = x * 0.2 + (0 if name.endswith('.bias') else 1)
        kind = np.float32 if name.endswith('wg.weight') else np.float16  # routers stay as they were trained
        out[name] = ('F32' if kind is np.float32 else 'F16', shape, x.astype(kind).tobytes())
    return out


def add_tower(a, c, tensors):
    """The demo's tower, in MoE-LLaVA's names or as a CLIP folder."""
    old = json.load(open(os.path.join(DEMO, 'config.json')))['vision_config']
    inside = a.flat == 'inside'
    top = ('transformer' if 'qwen' in a.family else 'model') + '.image_tower.image_tower.vision_model.'
    part = {(top if inside else 'vision_model.') + k[len(TOWER):]: v
            for k, v in layout.read_safetensors(os.path.join(DEMO, 'model.safetensors')).items() if k.startswith(TOWER)}
    if inside:
        tensors.update(part)
        return
    os.makedirs(a.flat)
    json.dump({'model_type': 'clip_vision_model', **old}, open(os.path.join(a.flat, 'config.json'), 'w'))
    shutil.copy(os.path.join(DEMO, 'preprocessor_config.json'), a.flat)
    layout.write_safetensors(os.path.join(a.flat, 'model.safetensors'), part)


def make(a):
    os.mkdir(a.dir)
    shutil.copy(os.path.join(DEMO, 'tokenizer.json'), a.dir)
    side = json.load(open(os.path.join(DEMO, 'tokenizer_config.json')))
    side.pop('chat_template', None)
    json.dump(side, open(os.path.join(a.dir, 'tokenizer_config.json'), 'w'))
    c = dict(COMMON, num_hidden_layers=a.layers, **CONFIGS[a.family])
    if a.flat:
        kind = a.family.split('_')[0]
        big = {'stablelm': 'Stablelm', 'phi': 'Phi', 'qwen': 'QWen'}[kind]
        c.update(model_type='llava_' + kind, architectures=['Llava%sForCausalLM' % big], mm_image_tower='openai/clip-mini',
                 image_projector_type='mlp2x_gelu', mm_hidden_size=128, mm_vision_select_layer=-2,
                 mm_vision_select_feature='patch', use_mm_proj=True, mm_video_tower=None)
    if a.experts:
        layers = [int(i) for i in a.experts.split(',')]
        c.update(model_type='moe_' + c['model_type'], architectures=['MoE' + c['architectures'][0].replace('Llava', 'LLaVA')],
                 moe={'moe_enable': True, 'moe_mode': 'sparse', 'moe_layers_idx': layers, 'num_experts': [4] * len(layers),
                      'top_k_experts': 2, 'capacity_factor': 1.5, 'eval_capacity_factor': 2.0, 'min_capacity': 0,
                      'use_residual': False, 'router_aux_loss_coef': .01, 'ep_size': 1})
    for pair in a.set:
        key, value = pair.split('=', 1)
        c[key] = json.loads(value)
    for key in a.drop:
        del c[key]
    with open(os.path.join(a.dir, 'config.json'), 'w') as f:
        json.dump(c, f, indent=1)
    tensors = random_weights(Shape(c).tensors(), a.seed)
    if a.flat:
        add_tower(a, c, tensors)
    layout.write_safetensors(os.path.join(a.dir, 'model.safetensors'), tensors)


def msft(src, dst):
    """The Phi checkpoint SRC as Microsoft's own code had it: keys, names, and q, k and v in one tensor."""
    c = json.load(open(os.path.join(src, 'config.json')))
    w = layout.read_safetensors(os.path.join(src, 'model.safetensors'))
    shutil.copytree(src, dst)
    keys = {'n_embd': 'hidden_size', 'n_layer': 'num_hidden_layers', 'n_head': 'num_attention_heads', 'n_inner': 'intermediate_size',
            'n_positions': 'max_position_embeddings', 'activation_function': 'hidden_act', 'layer_norm_epsilon': 'layer_norm_eps'}
    same = ('vocab_size', 'tie_word_embeddings', 'torch_dtype', 'bos_token_id', 'eos_token_id', 'architectures')
    old = dict({k: c[v] for k, v in keys.items()}, **{k: c[k] for k in same}, model_type='phi-msft', n_head_kv=None,
               rotary_dim=int(c['partial_rotary_factor'] * (c['hidden_size'] // c['num_attention_heads'])))
    json.dump(old, open(os.path.join(dst, 'config.json'), 'w'))
    out = {}
    for end in ('weight', 'bias'):
        for i in range(c['num_hidden_layers']):
            p, q = 'model.layers.%d.' % i, 'transformer.h.%d.' % i
            parts = [w['%sself_attn.%s_proj.%s' % (p, k, end)] for k in 'qkv']
            out[q + 'mixer.Wqkv.' + end] = ('F16', [sum(t[1][0] for t in parts)] + parts[0][1][1:], b''.join(t[2] for t in parts))
            for a, b in (('self_attn.dense', 'mixer.out_proj'), ('mlp.fc1', 'mlp.fc1'), ('mlp.fc2', 'mlp.fc2'), ('input_layernorm', 'ln')):
                out[q + b + '.' + end] = w[p + a + '.' + end]
        out['lm_head.ln.' + end] = w['model.final_layernorm.' + end]
        out['lm_head.linear.' + end] = w['lm_head.' + end]
    out['transformer.embd.wte.weight'] = w['model.embed_tokens.weight']
    assert sum(len(t[2]) for t in out.values()) == sum(len(t[2]) for t in w.values())
    layout.write_safetensors(os.path.join(dst, 'model.safetensors'), out)


# --- the forward pass ---

@functools.lru_cache
def tower():
    import ref_numpy
    return ref_numpy.Llava(DEMO, np.float64)


def tower_rows(pixels):
    side = tower().v['image_size']
    return tower().vision(pixels.astype(np.float64).reshape(1, 3, side, side))


class Net:
    def __init__(self, folder):
        self.c = Shape(json.load(open(os.path.join(folder, 'config.json'))))
        types = {'F16': np.float16, 'F32': np.float32}
        raw = layout.read_safetensors(os.path.join(folder, 'model.safetensors'))
        self.w = {k: torch.tensor(np.frombuffer(b, types[t]).astype(np.float64).reshape(shape))
                  for k, (t, shape, b) in raw.items()}

    def norm(self, name, x):
        if self.c.family == 'qwen':
            return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.c.eps) * self.w[name + '.weight']
        return torch.nn.functional.layer_norm(x, (self.c.d,), self.w[name + '.weight'], self.w[name + '.bias'], self.c.eps)

    def linear(self, name, x):
        return torch.nn.functional.linear(x, self.w[name + '.weight'], self.w.get(name + '.bias'))

    def rotate(self, z):
        """z [heads, n, dim]: pairs i and i + turn / 2 of the first turn numbers."""
        half = self.c.turn // 2
        angle = torch.arange(z.shape[1], dtype=torch.float64)[:, None] * \
            float(self.c.theta) ** (-2 * torch.arange(half, dtype=torch.float64) / self.c.turn)[None]
        a, b, rest = z[..., :half], z[..., half:2 * half], z[..., 2 * half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin(), rest], -1)

    def attention(self, p, x):
        c, n = self.c, len(x)
        if c.family == 'qwen':
            q, k, v = self.linear(p + 'attn.c_attn', x).split([c.heads * c.dim, c.kv * c.dim, c.kv * c.dim], -1)
        else:
            q, k, v = (self.linear('%sself_attn.%s_proj' % (p, w), x) for w in 'qkv')
        q, k, v = (z.reshape(n, -1, c.dim).transpose(0, 1) for z in (q, k, v))
        q, k = self.rotate(q), self.rotate(k)
        k, v = (z.repeat_interleave(c.heads // c.kv, 0) for z in (k, v))
        mask = torch.full((n, n), float('-inf'), dtype=torch.float64).triu(1)
        y = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(c.dim) + mask, -1) @ v
        name = {'qwen': 'attn.c_proj', 'phi': 'self_attn.dense'}.get(c.family, 'self_attn.o_proj')
        return self.linear(p + name, y.transpose(0, 1).reshape(n, -1))

    def experts(self, p, x):
        """The two likeliest experts of each row, by their probabilities among the two."""
        chances = torch.softmax(x @ self.w[p + 'gate.wg.weight'].T, -1)
        best, which = chances.topk(2, -1)
        best = best / best.sum(-1, keepdim=True)
        y = torch.zeros_like(x)
        for e in range(4):
            gate = (best * (which == e)).sum(-1, keepdim=True)
            y += gate * self.mlp('%sexperts.deepspeed_experts.%d.' % (p, e), x)
        return y

    def mlp(self, p, x):
        if self.c.family == 'phi':
            u = self.linear(p + 'fc1', x)
            u = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u ** 3)))
            return self.linear(p + 'fc2', u)
        up, gate, down = ('w1', 'w2', 'c_proj') if self.c.family == 'qwen' else ('up_proj', 'gate_proj', 'down_proj')
        y = self.linear(p + gate, x)
        return self.linear(p + down, self.linear(p + up, x) * y * torch.sigmoid(y))

    def layer(self, i, h):
        qwen = self.c.family == 'qwen'
        p = ('transformer.h.%d.' if qwen else 'model.layers.%d.') % i
        x = self.norm(p + ('ln_1' if qwen else 'input_layernorm'), h)

        def mlp(y):
            return self.experts(p + 'mlp.deepspeed_moe.', y) if i in self.c.sparse else self.mlp(p + 'mlp.', y)
        if self.c.parallel:
            return h + self.attention(p, x) + mlp(x)
        h = h + self.attention(p, x)
        return h + mlp(self.norm(p + ('ln_2' if qwen else 'post_attention_layernorm'), h))

    def picture(self, pixels):
        """Rows that stand for it; the tower is that of the demo, and so is its numpy reference."""
        p = ('transformer' if self.c.family == 'qwen' else 'model') + '.mm_projector.image_spatial_proj.'
        x = self.linear(p + '0', torch.tensor(tower_rows(pixels)))
        return self.linear(p + '2', 0.5 * x * (1 + torch.erf(x / math.sqrt(2))))

    def embed(self, tokens):
        return self.w['transformer.wte.weight' if self.c.family == 'qwen' else 'model.embed_tokens.weight'][tokens]

    def head(self, h):
        top = {'qwen': 'transformer.ln_f', 'phi': 'model.final_layernorm'}.get(self.c.family, 'model.norm')
        x = self.norm(top, h)
        return x @ self.embed(slice(None)).T if self.c.tied else self.linear('lm_head', x)

    def logits(self, tokens, pixels=None):
        tokens = torch.tensor(tokens)
        seen = tokens == self.c.vocab  # "<image>" in the flat layout
        h = self.embed(tokens * ~seen)
        if pixels is not None:
            h[seen] = self.picture(pixels)
        for i in range(self.c.layers):
            h = self.layer(i, h)
        return self.head(h)


# --- beside our tools ---

def prompts(folder):
    """Token lists and pictures (or None) of folder.q, in order."""
    out, path = [], folder + '.q/%d.%s'
    while os.path.exists(path % (len(out), 'tokens')):
        pixels = path % (len(out), 'pixels')
        out.append((np.fromfile(path % (len(out), 'tokens'), np.int32).tolist(),
                    np.fromfile(pixels, np.float32) if os.path.exists(pixels) else None))
    return out


def greedy(net, tokens, n):
    out = []
    while len(out) < n:
        best = int(net.logits(tokens + out)[-1].argmax())
        if best == net.c.eos:
            break
        out.append(best)
    return out


def beside(folder, count):
    net, worst, asked = Net(folder), 0, prompts(folder)
    for i, (tokens, pixels) in enumerate(asked):
        want = net.logits(tokens, pixels)[-1].numpy()
        got = np.fromfile('%s.q/%d.got' % (folder, i), np.float32)
        assert want.size == got.size == net.c.vocab and want.std() > .3
        off = np.abs(got - want).max() / np.abs(want).max()
        worst = off if not off <= worst else worst  # also what is no number
        assert worst < 1
    print(folder, len(asked), '%.1e' % worst)
    if count:
        with open(folder + '.q/answers', 'w') as f:
            f.writelines(json.dumps(greedy(net, tokens, count), separators=(',', ':')) + '\n' for tokens, _ in asked)


# --- what vqlm-prune scores blocks by ---

def columns(net, i):
    """Weights of block i in the order of the published tables, each as (tensor, rows or None)."""
    c = net.c
    q, kv = c.heads * c.dim, c.kv * c.dim
    if c.family == 'qwen':
        p, fused = 'transformer.h.%d.' % i, 'attn.c_attn'
        parts = [(fused, slice(0, q)), (fused, slice(q, q + kv)), (fused, slice(q + kv, q + 2 * kv)), ('attn.c_proj', None),
                 ('mlp.w2', None), ('mlp.w1', None), ('mlp.c_proj', None), ('ln_1', None), ('ln_2', None)]
    else:
        p, phi = 'model.layers.%d.' % i, c.family == 'phi'
        parts = [('self_attn.%s_proj' % w, None) for w in 'qkv'] + [('self_attn.dense' if phi else 'self_attn.o_proj', None)]
        parts += [(None, None), ('mlp.fc1', None), ('mlp.fc2', None)] if phi else \
            [('mlp.%s_proj' % w, None) for w in ('gate', 'up', 'down')]
        parts += [('input_layernorm', None), (None if c.parallel else 'post_attention_layernorm', None)]
    return [(net.w[p + n + '.weight'], rows) if n else (None, None) for n, rows in parts]


def mean_loss(net, samples):
    nll = count = 0
    for tokens in samples:
        logp = torch.log_softmax(net.logits(tokens), -1)[:-1]
        nll = nll - logp.gather(1, torch.tensor(tokens)[1:, None]).sum()
        count += len(tokens) - 1
    return nll / count


def prune(folder):
    net, ppl, taylor = Net(folder), folder + '.q/ppl.csv', folder + '.q/taylor.csv'
    vocab = json.load(open(os.path.join(folder, 'tokenizer.json')))['model']['vocab']
    letters = open(folder + '.q/letters').read().split()
    samples = [tokens + [vocab['\u2581' + letter], net.c.eos] for (tokens, _), letter in zip(prompts(folder), letters, strict=True)]
    rows = {f: [line.split(',') for line in open(f).read().split('\n')[1:-1]] for f in (ppl, taylor)}
    assert len(rows[ppl]) == len(rows[taylor]) == net.c.layers
    whole, worst = net.layer, {'samples': len(samples), 'ppl': 0, 'taylor': 0}
    for i, row in enumerate(rows[ppl]):
        net.layer = lambda k, h: h if k == i else whole(k, h)
        with torch.no_grad():
            want = math.exp(mean_loss(net, samples))
        worst['ppl'] = max(worst['ppl'], abs(float(row[1]) - want) / want)
    net.layer = whole
    for w in net.w.values():
        w.requires_grad_()
    mean_loss(net, samples).backward()
    for i, row in enumerate(rows[taylor]):
        want = [0 if w is None else float((w * w.grad)[rows or slice(None)].abs().sum()) for w, rows in columns(net, i)]
        assert len(row) == 10
        worst['taylor'] = max([worst['taylor']] + [abs(float(g) - x) / x if x else float(g) for g, x in zip(row[1:], want)])
    print(json.dumps(worst))


def main():
    global torch
    p = argparse.ArgumentParser()
    p.add_argument('what', choices=['make', 'msft', 'beside', 'prune'])
    p.add_argument('args', nargs='+')
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--layers', type=int, default=3)
    p.add_argument('--flat')
    p.add_argument('--experts')
    p.add_argument('--set', action='append', default=[])
    p.add_argument('--drop', action='append', default=[])
    a = p.parse_args()
    if a.what == 'make':
        a.family, a.dir = a.args
        return make(a)
    if a.what == 'msft':
        return msft(*a.args)
    import torch  # here, since making a checkpoint does without and it takes a while
    for folder in a.args[a.what == 'beside':]:
        if a.what == 'prune':
            prune(folder)
        else:
            beside(folder, int(a.args[0]))


if __name__ == '__main__':
    main()
