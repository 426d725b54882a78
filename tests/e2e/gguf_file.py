#!/usr/bin/python3
"""GGUF files by a writer of their own, from ggml's description (docs/gguf.md, ggml-common.h) and numpy alone.

gguf_file.py model DIR                     a LLaMA of 2 layers and random weights in float32, with the demo's tokenizer
gguf_file.py convert DIR FILE TYPE [K=V..] a folder's language model; every matrix in TYPE: F32, F16 or BF16
gguf_file.py vision DIR FILE TYPE [K=V..]  a LLaVA folder's tower up to the feature layer, and projector, as mmproj; legacy=1: with
                                           the feed-forward's names exchanged, as the first converters had it; all=1: with
                                           every layer
gguf_file.py shards DIR STEM N              in float32, in N files STEM-0000I-of-0000N.gguf
gguf_file.py blocks DIR FILE TYPE REF      the same with matrices of random blocks of TYPE, and REF, a new folder: their values by
                                           numpy, in float16; or of F32, F16, BF16, and REF has the same
K=V sets a key to a value in JSON (whole numbers are u32), K= takes it away, drop:NAME= takes a tensor away"""
import json, os, shutil, struct, sys
import numpy as np

DEMO = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'pipelines', 'demo', 'mini-llava')
ST = {'F32': np.float32, 'F16': np.float16, 'BF16': np.uint16}
# type: number, elements and bytes of a block
TYPES = {'F32': (0, 1, 4), 'F16': (1, 1, 2), 'Q4_0': (2, 32, 18), 'Q4_1': (3, 32, 20), 'Q5_0': (6, 32, 22),
         'Q5_1': (7, 32, 24), 'Q8_0': (8, 32, 34), 'Q2_K': (10, 256, 84), 'Q3_K': (11, 256, 110), 'Q4_K': (12, 256, 144),
         'Q5_K': (13, 256, 176), 'Q6_K': (14, 256, 210), 'IQ4_NL': (20, 32, 18), 'IQ4_XS': (23, 256, 136), 'BF16': (30, 1, 2)}


# --- safetensors ---

def load(folder):
    data = open(os.path.join(folder, 'model.safetensors'), 'rb').read()
    n = struct.unpack('<Q', data[:8])[0]
    head, out = json.loads(data[8:8 + n]), {}
    head.pop('__metadata__', None)
    for k, v in head.items():
        a, b = v['data_offsets']
        w = np.frombuffer(data[8 + n + a:8 + n + b], ST[v['dtype']]).reshape(v['shape'])
        out[k] = (w.astype(np.uint32) << 16).view(np.float32) if v['dtype'] == 'BF16' else w
    return out


def save(folder, tensors):
    head, data = {}, []
    at = 0
    for k, w in tensors.items():
        b = np.ascontiguousarray(w).tobytes()
        head[k] = {'dtype': {'float32': 'F32', 'float16': 'F16', 'uint16': 'BF16'}[str(w.dtype)], 'shape': list(w.shape), 'data_offsets': [at, at + len(b)]}
        data.append(b)
        at += len(b)
    text = json.dumps(head).encode()
    open(os.path.join(folder, 'model.safetensors'), 'wb').write(struct.pack('<Q', len(text)) + text + b''.join(data))


# --- GGUF ---

def string(s):
    s = s if isinstance(s, bytes) else s.encode()
    return struct.pack('<Q', len(s)) + s


def value(v):
    """A value with its type: (type number, bytes)."""
    if isinstance(v, bool):
        return 7, struct.pack('<B', v)
    if isinstance(v, int):
        return 4, struct.pack('<I', v)
    if isinstance(v, float):
        return 6, struct.pack('<f', v)
    if isinstance(v, (str, bytes)):
        return 8, string(v)
    if isinstance(v, np.ndarray):
        kind = {'float32': 6, 'int32': 5}[str(v.dtype)]
        return 9, struct.pack('<IQ', kind, v.size) + v.tobytes()
    return 9, struct.pack('<IQ', 8 if not v or isinstance(v[0], (str, bytes)) else value(v[0])[0], len(v)) + b''.join(value(x)[1] for x in v)


def pad(n, align):
    return -n % align


def write(path, keys, tensors, version=3):
    """tensors: name -> (type, shape slowest first, bytes)."""
    align = keys.get('general.alignment', 32)
    out = [b'GGUF', struct.pack('<IQQ', version, len(tensors), len(keys))]
    for k, v in keys.items():
        t, b = value(v)
        out += [string(k), struct.pack('<I', t), b]
    at = 0
    for name, (kind, shape, data) in tensors.items():
        out += [string(name), struct.pack('<I', len(shape)), struct.pack('<%dQ' % len(shape), *shape[::-1]),
                struct.pack('<IQ', TYPES[kind][0], at)]
        at += len(data) + pad(len(data), align)
    out.append(b'\0' * pad(sum(map(len, out)), align))
    for kind, shape, data in tensors.values():
        out += [data, b'\0' * pad(len(data), align)]
    open(path, 'wb').write(b''.join(out))


# --- a LLaMA ---

def permute(w, heads):
    """As the converters for LLaMA have it."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def halves(w, heads):
    """The way back."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(w.shape) if heads else w


LEAF = {'input_layernorm': 'attn_norm', 'self_attn.q_proj': 'attn_q', 'self_attn.k_proj': 'attn_k', 'self_attn.v_proj': 'attn_v',
        'self_attn.o_proj': 'attn_output', 'post_attention_layernorm': 'ffn_norm', 'mlp.gate_proj': 'ffn_gate', 'mlp.up_proj': 'ffn_up',
        'mlp.down_proj': 'ffn_down'}
TOP = {'model.embed_tokens.weight': 'token_embd.weight', 'model.norm.weight': 'output_norm.weight', 'lm_head.weight': 'output.weight'}


def text_name(name):
    """The name in GGUF, and which number of heads its rows are permuted by."""
    name = name[len('language_model.'):] if name.startswith('language_model.') else name
    if name in TOP:
        return TOP[name], None
    p = name.split('.')
    if p[:2] != ['model', 'layers']:
        return None, None
    leaf = LEAF['.'.join(p[3:-1])]
    heads = {'attn_q': 'num_attention_heads', 'attn_k': 'num_key_value_heads'}.get(leaf)
    return 'blk.%s.%s.%s' % (p[2], leaf, p[-1]), heads


def varint(b, at):
    v = shift = 0
    while True:
        v |= (b[at] & 127) << shift
        shift += 7
        at += 1
        if b[at - 1] < 128:
            return v, at


def fields(b):
    at = 0
    while at < len(b):
        tag, at = varint(b, at)
        if tag & 7 == 0:
            v, at = varint(b, at)
        elif tag & 7 == 5:
            v, at = struct.unpack('<f', b[at:at + 4])[0], at + 4
        else:
            n, at = varint(b, at)
            v, at = b[at:at + n], at + n
        yield tag >> 3, v


def pieces(folder):
    """[text, score, type] of tokenizer.model."""
    out = []
    for number, v in fields(open(os.path.join(folder, 'tokenizer.model'), 'rb').read()):
        if number == 1:
            f = dict(fields(v))
            out.append([f[1], f.get(2, 0.0), f.get(3, 1)])
    return out


def spm_keys(folder, rows):
    p = pieces(folder)
    for text, id in json.load(open(os.path.join(folder, 'added_tokens.json'))).items():
        while len(p) <= id:
            p.append([b'[PAD%d]' % len(p), -1000.0, 5])
        p[id] = [text.encode(), -1000.0, 3]
    while len(p) < rows:
        p.append([b'[PAD%d]' % len(p), -1000.0, 5])
    return {'tokenizer.ggml.model': 'llama', 'tokenizer.ggml.pre': 'default', 'tokenizer.ggml.tokens': [x[0] for x in p],
            'tokenizer.ggml.scores': np.array([x[1] for x in p], np.float32),
            'tokenizer.ggml.token_type': np.array([x[2] for x in p], np.int32), 'tokenizer.ggml.bos_token_id': 1,
            'tokenizer.ggml.eos_token_id': 2, 'tokenizer.ggml.unknown_token_id': 0, 'tokenizer.ggml.add_bos_token': True,
            'tokenizer.ggml.add_eos_token': False}


def bpe_keys(t, rows):
    """Of a byte-level tokenizer.json; tokenizer.ggml.pre is the caller's."""
    text, kind = ['[PAD%d]' % i for i in range(rows)], [5] * rows
    for s, i in t['model']['vocab'].items():
        text[i], kind[i] = s, 1
    for e in t['added_tokens']:
        text[e['id']], kind[e['id']] = e['content'], 3 if e['special'] else 4
    merges = [m if isinstance(m, str) else ' '.join(m) for m in t['model']['merges']]
    k = {'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.tokens': text, 'tokenizer.ggml.token_type': np.array(kind, np.int32),
         'tokenizer.ggml.merges': merges, 'tokenizer.ggml.eos_token_id': 0}
    if t['post_processor']:
        k['tokenizer.ggml.bos_token_id'] = text.index(t['post_processor']['single'][0]['SpecialToken']['id'])
        k['tokenizer.ggml.add_bos_token'] = True
    return k


def text_keys(folder, c, rows):
    t = os.path.join(folder, 'tokenizer.json')
    t = json.load(open(t)) if os.path.exists(t) else {'decoder': {'type': ''}}
    vocab = bpe_keys(t, rows) if t['decoder']['type'] == 'ByteLevel' else spm_keys(folder, rows)
    d = c['hidden_size'] // c['num_attention_heads']
    k = {'general.architecture': 'llama', 'general.name': 'test', 'llama.context_length': c['max_position_embeddings'],
         'llama.embedding_length': c['hidden_size'], 'llama.block_count': c['num_hidden_layers'],
         'llama.feed_forward_length': c['intermediate_size'], 'llama.attention.head_count': c['num_attention_heads'],
         'llama.attention.head_count_kv': c['num_key_value_heads'], 'llama.attention.layer_norm_rms_epsilon': c['rms_norm_eps'],
         'llama.rope.dimension_count': c.get('head_dim', d), 'llama.rope.freq_base': float(c.get('rope_theta', 10000)),
         'llama.vocab_size': rows}
    k.update(vocab)
    template = json.load(open(os.path.join(folder, 'tokenizer_config.json'))).get('chat_template')
    return dict(k, **{'tokenizer.chat_template': template}) if template else k


def config(folder):
    c = json.load(open(os.path.join(folder, 'config.json')))
    return c.get('text_config', c)


def bf16(w):
    u = np.ascontiguousarray(w, np.float32).view(np.uint32)
    return ((u + 0x7fff + (u >> 16 & 1)) >> 16).astype(np.uint16)


def plain(w, kind):
    """As converters have it: vectors are float32."""
    if w.ndim == 1 or kind == 'F32':
        return 'F32', w.shape, np.ascontiguousarray(w, np.float32).tobytes()
    return kind, w.shape, (bf16(w) if kind == 'BF16' else w.astype(np.float16)).tobytes()


def text_tensors(folder):
    """name -> weight in the file's order of rows, and the folder's name and number of heads."""
    c, out = config(folder), {}
    for name, w in load(folder).items():
        theirs, heads = text_name(name)
        if theirs:
            out[theirs] = (permute(w, c[heads]) if heads else w), name, heads and c[heads]
    return out


def change(keys, tensors, changes):
    for k, v in (x.split('=', 1) for x in changes):
        if k.startswith('drop:'):
            del tensors[k[5:]]
            continue
        keys.pop(k, None)
        if v:
            keys[k] = json.loads(v)
    return keys


def convert(folder, path, kind, *changes):
    t = text_tensors(folder)
    keys = change(text_keys(folder, config(folder), t['token_embd.weight'][0].shape[0]), t, changes)
    write(path, keys, {k: plain(w, kind) for k, (w, _, _) in t.items()})


CLIP = {'layer_norm1': 'ln1', 'layer_norm2': 'ln2', 'self_attn.q_proj': 'attn_q', 'self_attn.k_proj': 'attn_k', 'self_attn.v_proj': 'attn_v',
        'self_attn.out_proj': 'attn_out', 'mlp.fc1': 'ffn_up', 'mlp.fc2': 'ffn_down'}
CLIP_TOP = {'embeddings.class_embedding': 'v.class_embd', 'embeddings.patch_embedding.weight': 'v.patch_embd.weight',
            'embeddings.position_embedding.weight': 'v.position_embd.weight', 'pre_layrnorm.weight': 'v.pre_ln.weight',
            'pre_layrnorm.bias': 'v.pre_ln.bias'}
MM = {'linear_1': 'mm.0', 'linear_2': 'mm.2'}


def vision_name(name, legacy):
    p = name.split('.')
    if p[0] == 'multi_modal_projector':
        return MM[p[1]] + '.' + p[2]
    if p[0] != 'vision_tower':
        return None
    rest = '.'.join(p[2:])
    if p[2] != 'encoder':
        return CLIP_TOP.get(rest)
    leaf = CLIP['.'.join(p[5:-1])]
    if legacy and leaf.startswith('ffn'):
        leaf = {'ffn_up': 'ffn_down', 'ffn_down': 'ffn_up'}[leaf]
    return 'v.blk.%s.%s.%s' % (p[4], leaf, p[-1])


def vision(folder, path, kind, *changes):
    c = json.load(open(os.path.join(folder, 'config.json')))
    v, pre = c['vision_config'], json.load(open(os.path.join(folder, 'preprocessor_config.json')))
    run = v['num_hidden_layers'] + 1 + c['vision_feature_layer']
    k = {'general.architecture': 'clip', 'clip.has_vision_encoder': True, 'clip.has_llava_projector': True, 'clip.projector_type': 'mlp',
         'clip.use_gelu': False, 'clip.vision.image_size': v['image_size'], 'clip.vision.patch_size': v['patch_size'],
         'clip.vision.embedding_length': v['hidden_size'], 'clip.vision.feed_forward_length': v['intermediate_size'],
         'clip.vision.projection_dim': v['projection_dim'], 'clip.vision.block_count': run,
         'clip.vision.attention.head_count': v['num_attention_heads'], 'clip.vision.attention.layer_norm_epsilon': v['layer_norm_eps'],
         'clip.vision.image_mean': np.array(pre['image_mean'], np.float32), 'clip.vision.image_std': np.array(pre['image_std'], np.float32)}
    legacy, t = 'legacy=1' in changes, {}
    if 'all=1' in changes:
        run = k['clip.vision.block_count'] = v['num_hidden_layers']
    for name, w in load(folder).items():
        p, theirs = name.split('.'), vision_name(name, legacy)
        if theirs and not (p[2] == 'encoder' and int(p[4]) >= run):
            t[theirs] = plain(w, 'F32' if theirs == 'v.position_embd.weight' else kind)
    write(path, change(k, t, [x for x in changes if x not in ('legacy=1', 'all=1')]), t)


def shards(folder, stem, count):
    """As llama-gguf-split has them: the keys in the first, and split.* in each."""
    t, n = text_tensors(folder), int(count)
    keys = text_keys(folder, config(folder), t['token_embd.weight'][0].shape[0])
    names = list(t)
    for i in range(n):
        part = {k: plain(t[k][0], 'F32') for k in names[len(names) * i // n:len(names) * (i + 1) // n]}
        own = dict(keys if i == 0 else {}, **{'split.no': i, 'split.count': n, 'split.tensors.count': len(names)})
        write('%s-%05d-of-%05d.gguf' % (stem, i + 1, n), own, part)


# --- blocks ---

def f16(b, at):
    return b[:, at:at + 2].copy().view(np.float16).astype(np.float32)


def bits(b, width):
    """Fields of a few bits, the lowest first: [..., n] -> [..., n, 8 / width]."""
    return b[..., None] >> np.arange(0, 8, width, dtype=np.uint8) & (1 << width) - 1


def low_high(b):
    return np.concatenate([b & 15, b >> 4], 1).astype(np.int32)


def one_bit(b):
    """32 bits of 4 bytes: element j is bit j."""
    return np.unpackbits(b, axis=1, bitorder='little').astype(np.int32)


def values(kind, b):
    """[n, bytes] -> [n, elements] in float32."""
    n, F = len(b), np.float32
    if kind == 'Q8_0':
        return b[:, 2:].view(np.int8).astype(F) * f16(b, 0)
    if kind == 'Q4_0':
        return (low_high(b[:, 2:]) - 8).astype(F) * f16(b, 0)
    if kind == 'Q4_1':
        return low_high(b[:, 4:]).astype(F) * f16(b, 0) + f16(b, 2)
    if kind == 'Q5_0':
        return (low_high(b[:, 6:]) + 16 * one_bit(b[:, 2:6]) - 16).astype(F) * f16(b, 0)
    if kind == 'Q5_1':
        return (low_high(b[:, 8:]) + 16 * one_bit(b[:, 4:8])).astype(F) * f16(b, 0) + f16(b, 2)
    wide = lambda v, k: np.repeat(v.astype(F), k, 1)
    # Bytes of 32 elements, of which the lowest fields come first.
    spread = lambda q, width: bits(q.reshape(n, -1, 32), width).swapaxes(2, 3).reshape(n, -1).astype(np.int32)
    if kind == 'Q2_K':
        s, q = b[:, :16], spread(b[:, 16:80], 2)
        return f16(b, 80) * wide(s & 15, 16) * q - f16(b, 82) * wide(s >> 4, 16)
    if kind == 'Q3_K':
        q, high = spread(b[:, 32:96], 2), spread(b[:, :32], 1)
        low = np.concatenate([b[:, 96:104] & 15, b[:, 96:104] >> 4], 1).astype(np.int32)
        up = bits(b[:, 104:108], 2).swapaxes(1, 2).reshape(n, 16).astype(np.int32)
        return f16(b, 108) * wide((low | up << 4) - 32, 16) * (q + 4 * high - 4)
    if kind in ('Q4_K', 'Q5_K'):
        p, q = b[:, 4:16], spread(b[:, -128:], 4)
        s = np.concatenate([p[:, :4] & 63, p[:, 8:] & 15 | p[:, :4] >> 6 << 4], 1)
        m = np.concatenate([p[:, 4:8] & 63, p[:, 8:] >> 4 | p[:, 4:8] >> 6 << 4], 1)
        if kind == 'Q5_K':
            q = q + 16 * spread(b[:, 16:48], 1)
        return f16(b, 0) * wide(s, 32) * q - f16(b, 2) * wide(m, 32)
    assert kind == 'Q6_K'
    low = bits(b[:, :128].reshape(n, 2, 64), 4).swapaxes(2, 3).reshape(n, -1).astype(np.int32)
    q = low + 16 * spread(b[:, 128:192], 2) - 32
    return f16(b, 208) * wide(b[:, 192:208].view(np.int8), 16) * q


SCALES = {'Q4_0': (0,), 'Q4_1': (0, 2), 'Q5_0': (0,), 'Q5_1': (0, 2), 'Q8_0': (0,), 'Q2_K': (80, 82), 'Q3_K': (108,),
          'Q4_K': (0, 2), 'Q5_K': (0, 2), 'Q6_K': (208,)}


def random_blocks(kind, shape, rng):
    """Random bits but for the float16 scales, which make weights of about 0.05."""
    n = int(np.prod(shape)) // TYPES[kind][1]
    b = rng.integers(0, 256, (n, TYPES[kind][2]), dtype=np.uint8)
    at = SCALES.get(kind, (0,))
    for i in at:
        b[:, i:i + 2] = rng.uniform(0.5e-3, 1e-3, (n, 1)).astype(np.float16).view(np.uint8)
    if kind in SCALES:
        scale = np.float16(0.05 / np.abs(values(kind, b[:64])).mean())
        for i in at:
            b[:, i:i + 2] = (f16(b, i) * np.float32(scale)).astype(np.float16).view(np.uint8)
    return b


def blocks(folder, path, kind, ref):
    rng, t, out, want = np.random.default_rng(1), text_tensors(folder), {}, {}
    for k, (w, name, heads) in t.items():
        if w.ndim == 1:
            out[k], want[name] = plain(w, 'F32'), w
            continue
        if kind in ST:
            out[k], back = plain(w, kind), halves(w, heads)
            want[name] = bf16(back) if kind == 'BF16' else back.astype(ST[kind])
            continue
        b = random_blocks(kind, w.shape, rng)
        out[k] = kind, w.shape, b.tobytes()
        if kind not in SCALES:
            continue
        v = values(kind, b).astype(np.float16).reshape(w.shape)
        want[name] = halves(v, heads)
    write(path, text_keys(folder, config(folder), t['token_embd.weight'][0].shape[0]), out)
    if kind in SCALES or kind in ST:
        shutil.copytree(folder, ref)
        save(ref, want)


def model(folder):
    c = {'architectures': ['LlamaForCausalLM'], 'model_type': 'llama', 'vocab_size': 1024, 'hidden_size': 256, 'intermediate_size': 512,
         'num_hidden_layers': 2, 'num_attention_heads': 4, 'num_key_value_heads': 2, 'max_position_embeddings': 512,
         'rms_norm_eps': 1e-5, 'tie_word_embeddings': False, 'bos_token_id': 1, 'eos_token_id': 2}
    os.mkdir(folder)
    for f in ('tokenizer.json', 'tokenizer.model', 'tokenizer_config.json', 'added_tokens.json'):
        shutil.copy(os.path.join(DEMO, f), folder)
    json.dump(c, open(os.path.join(folder, 'config.json'), 'w'))
    rng, t = np.random.default_rng(7), {}
    random = lambda *s: (rng.standard_normal(s) * s[-1] ** -0.5).astype(np.float32)
    t['model.embed_tokens.weight'], t['lm_head.weight'] = random(1024, 256), random(1024, 256)
    t['model.norm.weight'] = 1 + random(256)
    for i in range(2):
        p = 'model.layers.%d.' % i
        for k, s in {'self_attn.q_proj': (256, 256), 'self_attn.k_proj': (128, 256), 'self_attn.v_proj': (128, 256),
                     'self_attn.o_proj': (256, 256), 'mlp.gate_proj': (512, 256), 'mlp.up_proj': (512, 256), 'mlp.down_proj': (256, 512)}.items():
            t[p + k + '.weight'] = random(*s)
        t[p + 'input_layernorm.weight'] = 1 + random(256)
        t[p + 'post_attention_layernorm.weight'] = 1 + random(256)
    save(folder, t)


if __name__ == '__main__':
    {'model': model, 'convert': convert, 'vision': vision, 'shards': shards, 'blocks': blocks}[sys.argv[1]](*sys.argv[2:])
