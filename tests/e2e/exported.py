#!/usr/bin/python3
"""Exported folders beside the packed model, value by value, each from its description alone.

exported.py MODEL.vqm DIR    prints "N matrices, N halves, N floats, largest difference X" and fails where a half is
                             further than half a step of float16; X is of the matrices.  Of GGUF, how many tensors have which
                             type; blocks of Q4_1 may be off by half a step of float16 of their minimum

The packed model is read as vqlm-model(5) has it, words as the engines' own packers lay them out, GGUF as ggml's docs."""
import json, os, struct, sys, tarfile
import numpy as np

TYPES = {'F32': np.float32, 'F16': np.float16, 'I8': np.int8, 'U8': np.uint8, 'I32': np.int32, 'I64': np.int64}
PLAIN = {'f32': lambda b: np.frombuffer(b, np.float32), 'f16': lambda b: np.frombuffer(b, np.float16),
         'bf16': lambda b: (np.frombuffer(b, np.uint16).astype(np.uint32) << 16).view(np.float32)}
NF4 = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
                0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0],
               np.float32)


# --- vqlm-model(5) ---

def planes(data, bits, n_out, n_in):
    """Codes of layout r32k4."""
    widths = [8] if bits == 8 else [f for f in (4, 2, 1) if bits & f]
    panels, steps = -(-n_out // 32), -(-n_in // 4)
    raw = np.frombuffer(data, np.uint8, panels * steps * 16 * bits).reshape(panels, steps, 16 * bits)
    e, at, low = np.zeros((panels, steps, 128), np.uint32), 0, 0
    for f in widths:
        part = raw[..., at:at + 16 * f]
        fields = [(part >> (f * j) & ((1 << f) - 1)).astype(np.uint32) for j in range(8 // f)]
        e |= np.concatenate(fields, -1) << low
        at, low = at + 16 * f, low + f
    e = e.reshape(panels, steps, 32, 4).transpose(0, 2, 1, 3).reshape(panels * 32, steps * 4)
    return e[:n_out, :n_in].astype(np.int64)


def dynamic_map():
    """bitsandbytes' signed dynamic map of 8 bits: for each power of ten, means of linear steps, both signs; 0 and 1."""
    v = [0.0, 1.0]
    for i in range(7):
        b = np.linspace(0.1, 1, 2 ** i + 1, dtype=np.float32)
        means = ((b[:-1].astype(np.float64) + b[1:]) / 2).astype(np.float32)
        for s in (1, -1):
            v += list(s * 10.0 ** (i - 6) * means.astype(np.float64))
    return np.sort(np.array(v, np.float32))


def fold(out, scales):
    """Each layer's norms times the scales of what reads them, q and gate (or up) for all: W (s x) = W (s norm)."""
    for name in [n for n in out if '.norm1.' in n or '.norm2.' in n]:
        stem, which = name.split('.norm')[0], name.split('.norm')[1][0]
        readers = [s for s in ([stem + '.%s_proj.weight' % k for k in (('q', 'k', 'v') if which == '1' else ('gate', 'up'))]) if s in out]
        if any(r in scales for r in readers):
            assert all((scales[r] == scales[readers[0]]).all() for r in readers)
            out[name] = (out[name][0].astype(np.float32) * scales[readers[0]]).astype(np.float64), False


def packed_model(path):
    """name -> float64 array, and whether it is quantized."""
    t = tarfile.open(path)
    files = {m.name: t.extractfile(m).read() for m in t.getmembers()}
    out, scales = {}, {}
    for name in files:
        if name + '.json' not in files or name.endswith(('.range', '.transform_scale')):
            continue
        d, data = json.loads(files[name + '.json']), files[name]
        if 'transform' in d.get('attrs', {}):
            scales[name] = np.frombuffer(files[d['attrs']['transform']['from'] + '.transform_scale'], np.float32)
        if d['layout'] == 'plain':
            out[name] = PLAIN[d['dtype']](data).reshape(d['shape']).astype(np.float64), False
            continue
        n_out, n_in = d['shape']
        g = d['attrs']['grid']
        u = planes(data, g['bits'], n_out, n_in)
        part = lambda k, t: np.frombuffer(data[d['parts'][k][0]:sum(d['parts'][k])], t)
        if g.get('type') == 'nf':
            q, scale = part('absmax', np.uint8), np.repeat(part('absmax_scale', np.float32), 256)
            absmax = dynamic_map()[q] * scale[:q.size] + part('absmax_offset', np.float32)[0]
            w = NF4[u.reshape(-1)] * np.repeat(absmax, 64)[:n_out * n_in]
            out[name] = w.reshape(n_out, n_in).astype(np.float64), True
            continue
        group = g['group'] or n_in
        n = -(-n_in // group)
        grid = lambda k, t: part(k, t).reshape(-1, n, 32).transpose(0, 2, 1).reshape(-1, n)[:n_out].astype(np.float64)
        s = grid('scale', np.float16)
        z = 2 ** (g['bits'] - 1) if g['sym'] else np.repeat(grid('zero', np.uint8), group, 1)[:, :n_in]
        out[name] = (u - z) * np.repeat(s, group, 1)[:, :n_in], True
    fold(out, scales)
    return out, json.loads(files['model.json'])['config']


# --- safetensors ---

def safetensors(folder):
    index = os.path.join(folder, 'model.safetensors.index.json')
    names = sorted(set(json.load(open(index))['weight_map'].values())) if os.path.exists(index) else ['model.safetensors']
    out = {}
    for name in names:
        data = open(os.path.join(folder, name), 'rb').read()
        n = struct.unpack('<Q', data[:8])[0]
        head = json.loads(data[8:8 + n])
        assert head.pop('__metadata__')['format'] == 'pt'
        for k, v in head.items():
            a, b = v['data_offsets']
            out[k] = np.frombuffer(data[8 + n + a:8 + n + b], TYPES[v['dtype']]).reshape(v['shape'])
    if os.path.exists(index):
        assert json.load(open(index))['metadata']['total_size'] == sum(v.nbytes for v in out.values())
        assert set(json.load(open(index))['weight_map']) == set(out)
    return out


def bits(words, b, axis):
    """Unsigned numbers of b bits from int32 words, as one bit string along an axis."""
    w = np.moveaxis(words.view(np.uint32), axis, -1)
    one = (w[..., None] >> np.arange(32, dtype=np.uint32) & 1).reshape(*w.shape[:-1], -1)
    v = (one.reshape(*one.shape[:-1], -1, b) << np.arange(b, dtype=np.uint32)).sum(-1)
    return np.moveaxis(v, -1, axis).astype(np.int64)


def awq(t, m, q):
    order = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    unpack = lambda w: bits(w, 4, 1).reshape(w.shape[0], -1, 8)[..., order].reshape(w.shape[0], -1)
    s = t[m + '.scales'].astype(np.float64)
    assert q['bits'] == 4 and q['zero_point']
    r = t[m + '.qweight'].shape[0] // s.shape[0]
    assert r == q['group_size']
    return ((unpack(t[m + '.qweight']) - np.repeat(unpack(t[m + '.qzeros']), r, 0)) * np.repeat(s, r, 0)).T


def gptq(t, m, q):
    w, g, b = bits(t[m + '.qweight'], q['bits'], 0), t[m + '.g_idx'], q['bits']
    z = bits(t[m + '.qzeros'], b, 1) + (q['checkpoint_format'] == 'gptq')
    assert (z < 2 ** b).all() and g.max() + 1 == t[m + '.scales'].shape[0]
    assert q['group_size'] == (-1 if g.max() == 0 else (g == 0).sum())
    assert not q['sym'] or (z == 2 ** (b - 1)).all()
    return ((w - z[g]) * t[m + '.scales'].astype(np.float64)[g]).T


def scheme_of(q, m):
    for g in q['config_groups'].values():
        if g['targets'] == ['Linear'] or m in g['targets']:
            return g
    raise KeyError(m)


def compressed(t, m, q):
    g = scheme_of(q, m)
    a = g['weights']
    b, s, sym = a['num_bits'], t[m + '.weight_scale'].astype(np.float64), a['symmetric']
    if m + '.weight_packed' in t:
        assert g['input_activations'] is None
        n_out, n_in = t[m + '.weight_shape']
        w = bits(t[m + '.weight_packed'], b, 1)[:, :n_in] - 2 ** (b - 1)
        z = 0 if sym else bits(t[m + '.weight_zero_point'], b, 0)[:n_out] - 2 ** (b - 1)
    else:
        assert g['input_activations']['num_bits'] == 8
        assert g['input_activations']['dynamic'] != (m + '.input_scale' in t)
        w = t[m + '.weight'].astype(np.int64)
        z = 0 if sym else t[m + '.weight_zero_point'].astype(np.int64)
    n_in = w.shape[1]
    assert (a['strategy'], a['group_size']) == (('channel', None) if s.shape[1] == 1 and a['group_size'] is None else ('group', n_in // s.shape[1]))
    wide = lambda v: np.repeat(v, n_in // s.shape[1], 1)
    return (w - (wide(z) if not sym else 0)) * wide(s)


def bnb(t, m, q):
    assert q['bnb_4bit_quant_type'] == 'nf4' and q['bnb_4bit_use_double_quant']
    w = m + '.weight'
    st = json.loads(bytes(t[w + '.quant_state.bitsandbytes__nf4']))
    assert (st['quant_type'], st['blocksize'], st['nested_blocksize']) == ('nf4', 64, 256)
    n = int(np.prod(st['shape']))
    assert (t[w + '.quant_map'] == NF4).all() and (t[w + '.nested_quant_map'] == dynamic_map()).all()
    u = np.stack([t[w][:, 0] >> 4, t[w][:, 0] & 15], 1).reshape(-1)[:n]
    q8 = t[w + '.absmax']
    absmax = t[w + '.nested_quant_map'][q8] * np.repeat(t[w + '.nested_absmax'], 256)[:q8.size] + np.float32(st['nested_offset'])
    return (NF4[u] * np.repeat(absmax, 64)[:n]).reshape(st['shape']).astype(np.float64)


# --- GGUF ---

def gguf(path):
    """Keys, and tensors as (type, float64 array, what an element may be off)."""
    b, at = open(path, 'rb').read(), 24
    assert b[:4] == b'GGUF'
    version, n_tensors, n_keys = struct.unpack('<IQQ', b[4:24])
    assert version == 3

    def take(f):
        nonlocal at
        v = struct.unpack_from('<' + f, b, at)
        at += struct.calcsize('<' + f)
        return v[0]

    def text():
        nonlocal at
        n = take('Q')
        at += n
        return b[at - n:at].decode('utf-8', 'surrogateescape')

    def value(t):
        if t == 8:
            return text()
        if t == 9:
            t, n = take('I'), take('Q')
            return [value(t) for _ in range(n)]
        return take({0: 'B', 1: 'b', 2: 'H', 3: 'h', 4: 'I', 5: 'i', 6: 'f', 7: '?', 10: 'Q', 11: 'q', 12: 'd'}[t])

    keys = {}
    for _ in range(n_keys):
        k = text()
        assert k not in keys and len(k) < 65536
        keys[k] = value(take('I'))
    infos, end = [], 0
    for _ in range(n_tensors):
        name, n = text(), take('I')
        assert len(name) < 64
        shape = [take('Q') for _ in range(n)][::-1]
        infos.append((name, shape, take('I'), take('Q')))
    start, out = -(-at // 32) * 32, {}
    for name, shape, kind, offset in infos:
        count = int(np.prod(shape))
        per, size = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 30: (1, 2)}[kind]
        assert shape[-1] % per == 0 and offset == -(-end // 32) * 32
        end = offset + count // per * size
        raw = np.frombuffer(b, np.uint8, count // per * size, start + offset)
        off = np.zeros(shape)
        if kind == 0:
            v = raw.view(np.float32).astype(np.float64)
        elif kind == 1:
            v = raw.view(np.float16).astype(np.float64)
        elif kind == 30:
            v = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        else:
            blocks = raw.reshape(-1, size)
            d = blocks[:, :2].copy().view(np.float16).astype(np.float64)
            if kind == 8:
                v = blocks[:, 2:].view(np.int8) * d
            else:
                nibbles = np.concatenate([blocks[:, -16:] & 15, blocks[:, -16:] >> 4], 1).astype(np.float64)
                m = blocks[:, 2:4].copy().view(np.float16).astype(np.float64) if kind == 3 else None
                v = nibbles * d + m if kind == 3 else (nibbles - 8) * d
                if kind == 3:
                    off = np.repeat(np.maximum(np.abs(m) * 2.0 ** -11, 2.0 ** -25), 32, 1).reshape(shape)
        out[name] = kind, v.reshape(shape), off
    assert -(-end // 32) * 32 == len(b) - start
    return keys, out


GGUF_TOP = {'decoder.embed': 'token_embd', 'decoder.norm': 'output_norm', 'decoder.head': 'output', 'vision.class_embed': 'v.class_embd',
            'vision.patch_embed': 'v.patch_embd', 'vision.position_embed': 'v.position_embd.weight', 'vision.pre_norm': 'v.pre_ln', 'vision.post_norm': 'v.post_ln',
            'projector.0': 'mm.0', 'projector.1': 'mm.2'}
GGUF_LEAF = {'q_proj': 'attn_q', 'k_proj': 'attn_k', 'v_proj': 'attn_v', 'up_proj': 'ffn_up', 'gate_proj': 'ffn_gate',
             'down_proj': 'ffn_down'}
GGUF_TEXT = {'norm1': 'attn_norm', 'norm2': 'ffn_norm', 'o_proj': 'attn_output'}
GGUF_VISION = {'norm1': 'ln1', 'norm2': 'ln2', 'o_proj': 'attn_out'}


def gguf_name(name, config):
    p = name.split('.')
    if p[0] == 'projector' and 'shuffle' in config['projector']:
        return 'mm.model.fc.' + p[2]
    if p[1] == 'layers':
        leaf = dict(GGUF_LEAF, **(GGUF_VISION if p[0] == 'vision' else GGUF_TEXT))[p[3]]
        return '.'.join((['v'] if p[0] == 'vision' else []) + ['blk', p[2], leaf] + p[4:])
    return '.'.join([GGUF_TOP['.'.join(p[:2])]] + p[2:])


def permute(w, heads):
    """As the converters for LLaMA have it."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def family(config):
    """Whose decoder it is: "llava_phi" has Phi's."""
    return {'llava': 'llama', 'idefics3': 'llama'}.get(config['arch'].split('_')[-1], config['arch'].split('_')[-1])


def near(a, b):
    return np.abs(np.subtract(a, b)).max() <= 1e-6 * np.abs(b).max()


def check_text(keys, config):
    d, layer = config['decoder'], config['decoder']['layer']
    arch = {'qwen': 'qwen2', 'phi': 'phi2'}.get(family(config), family(config))
    own = {k[len(arch) + 1:]: v for k, v in keys.items() if k.startswith(arch + '.')}
    eps = own.pop('attention.layer_norm_%sepsilon' % ('rms_' if layer['norm'] == 'rms' else ''))
    assert keys['general.architecture'] == arch and near(eps, layer['eps']) and near(own.pop('rope.freq_base'), layer['rope_theta'])
    if arch == 'stablelm':
        assert own.pop('use_parallel_residual') == layer.get('parallel', False)
    assert own == {'vocab_size': d['vocab'], 'context_length': d['max_position'], 'embedding_length': layer['hidden'],
                   'block_count': d['n_layers'], 'feed_forward_length': layer['inter'], 'attention.head_count': layer['n_heads'],
                   'attention.head_count_kv': layer['n_kv_heads'], 'attention.key_length': layer['head_dim'],
                   'attention.value_length': layer['head_dim'], 'rope.dimension_count': layer.get('rotary_dim') or layer['head_dim']}
    assert len(keys['tokenizer.ggml.tokens']) == len(set(keys['tokenizer.ggml.tokens'])) == len(keys['tokenizer.ggml.token_type']) == d['vocab']
    kind = {'llama': 'scores', 'gpt2': 'merges'}[keys['tokenizer.ggml.model']]
    assert kind != 'scores' or len(keys['tokenizer.ggml.scores']) == d['vocab']
    assert keys['tokenizer.ggml.eos_token_id'] == config['eos']


def check_vision(keys, config):
    v, layer = config['vision'], config['vision']['layer']
    own = {k[5:]: w for k, w in keys.items() if k.startswith('clip.')}
    assert own.pop('has_vision_encoder') is True and near(own.pop('vision.attention.layer_norm_epsilon'), layer['eps'])
    assert near(own.pop('vision.image_mean'), config['preproc']['image_mean']) and near(own.pop('vision.image_std'), config['preproc']['image_std'])
    want = {'use_gelu': layer['act'].startswith('gelu'), 'use_silu': False, 'vision.image_size': v['image_size'],
            'vision.patch_size': v['patch_size'], 'vision.embedding_length': layer['hidden'], 'vision.feed_forward_length': layer['inter'],
            'vision.projection_dim': config['projector']['out'], 'vision.block_count': v['n_layers'],
            'vision.attention.head_count': layer['n_heads']}
    if config['arch'] == 'idefics3':
        want.update({'projector_type': 'idefics3', 'vision.projector.scale_factor': config['projector']['shuffle'],
                     'vision.preproc_image_size': config['preproc']['size']['longest_edge']})
    else:
        want.update({'projector_type': 'mlp', 'has_llava_projector': True, 'vision.feature_layer': [v['n_layers']]})
    assert own == want, (own, want)


def main_gguf(want, config, folder):
    keys, t = gguf(os.path.join(folder, 'model.gguf'))
    d = config['decoder']
    check_text(keys, config)
    n = len(t)
    if 'vision' in config:
        vkeys, vt = gguf(os.path.join(folder, 'mmproj.gguf'))
        check_vision(vkeys, config)
        n += len(vt)
        t.update(vt)
    assert n == len(t) == len(want)
    count, worst, over = {}, 0.0, 0.0
    for name, (w, quantized) in want.items():
        kind, got, off = t[gguf_name(name, config)]
        heads = {'q_proj': 'n_heads', 'k_proj': 'n_kv_heads'}.get(name.split('.')[-2]) if name.startswith('decoder.layers') else None
        w = permute(w, d['layer'][heads]) if heads and family(config) == 'llama' else w
        if quantized and kind == 1:
            off = np.maximum(np.abs(w) * 2.0 ** -11, 2.0 ** -25)
        difference = np.abs(got - w)
        assert got.shape == w.shape and (difference <= off).all(), name
        count[kind] = count.get(kind, 0) + 1
        if quantized and kind != 1:
            worst = max(worst, float(difference.max()))
    kinds = {0: 'F32', 1: 'F16', 2: 'Q4_0', 3: 'Q4_1', 8: 'Q8_0', 30: 'BF16'}
    print(', '.join('%d %s' % (count[k], kinds[k]) for k in sorted(count, reverse=True)) + ', largest difference %g' % worst)


# --- names ---

TOP = {'class_embed': 'embeddings.class_embedding', 'patch_embed': 'embeddings.patch_embedding',
       'position_embed': 'embeddings.position_embedding.weight', 'pre_norm': 'pre_layrnorm', 'post_norm': 'post_layernorm',
       'norm': 'norm', 'embed': 'embed_tokens',
       '0': 'linear_1', '1': 'linear_2'}
CLIP = {'norm1': 'layer_norm1', 'norm2': 'layer_norm2', 'o_proj': 'self_attn.out_proj', 'up_proj': 'mlp.fc1', 'down_proj': 'mlp.fc2'}
LLAMA = {'norm1': 'input_layernorm', 'norm2': 'post_attention_layernorm', 'o_proj': 'self_attn.o_proj', 'up_proj': 'mlp.up_proj',
         'down_proj': 'mlp.down_proj', 'gate_proj': 'mlp.gate_proj'}
PHI = {'norm1': 'input_layernorm', 'o_proj': 'self_attn.dense', 'up_proj': 'mlp.fc1', 'down_proj': 'mlp.fc2'}


def hf(name, config):
    p, phi = name.split('.'), family(config) == 'phi'
    stems = {'vision': 'vision_tower.vision_model', 'projector': 'multi_modal_projector', 'decoder': 'language_model.model',
             'head': 'language_model.lm_head'}
    if config['arch'] == 'idefics3':
        stems = {'vision': 'model.vision_model', 'projector': 'model.connector.modality_projection', 'decoder': 'model.text_model',
                 'head': 'lm_head'}
    elif 'vision' not in config:
        stems = {'decoder': 'model', 'head': 'lm_head'}
    if p[:2] == ['decoder', 'head']:
        return '.'.join([stems['head'], p[2]])
    stem = stems[p[0]]
    if p[1] == 'layers':
        table = dict(CLIP if p[0] == 'vision' else PHI if phi else LLAMA, **{k: 'self_attn.' + k for k in ('q_proj', 'k_proj', 'v_proj')})
        return '.'.join([stem, 'encoder.layers' if p[0] == 'vision' else 'layers', p[2], table[p[3]]] + p[4:])
    top = TOP[p[1]]
    if config['arch'] == 'idefics3' and p[0] == 'projector':
        top = 'proj'
    if phi and p[:2] == ['decoder', 'norm']:
        top = 'final_layernorm'
    return '.'.join([stem, top] + p[2:])


def main(model, folder):
    want, config = packed_model(model)
    if os.path.exists(os.path.join(folder, 'model.gguf')):
        return main_gguf(want, config, folder)
    q = json.load(open(os.path.join(folder, 'config.json')))['quantization_config']
    read = {'awq': awq, 'gptq': gptq, 'compressed-tensors': compressed, 'bitsandbytes': bnb}[q['quant_method']]
    t = safetensors(folder)
    n, worst = {'codes': 0, 'half': 0, 'float': 0}, 0.0
    for name, (w, quantized) in want.items():
        key = hf(name, config)
        stem = key[:-7] if key.endswith('.weight') else key
        if quantized and any(k.startswith(stem + '.') and k != key for k in t if not k.endswith('.bias')):
            got, kind = read(t, stem, q), 'codes'
            worst = max(worst, float(np.abs(got - w).max()))
        else:
            got, kind = t[key].astype(np.float64), 'half' if quantized else 'float'
            bound = np.maximum(np.abs(w) * 2.0 ** -11, 2.0 ** -25) if quantized else 0
            assert (np.abs(got - w) <= bound).all(), key
        assert got.shape == w.shape, key
        n[kind] += 1
    print('%d matrices, %d halves, %d floats, largest difference %g' % (n['codes'], n['half'], n['float'], worst))


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2])
