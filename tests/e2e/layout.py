#!/usr/bin/env python3
"""layout.py SRC DST [options]: the llava-hf checkpoint SRC (one safetensors file) in the other ways that checkpoints are kept.

--weights safetensors|bin|torch|old   safetensors; PyTorch files made here, byte by byte; by torch.save; in its format before 1.6
--shards N                            with an index
--flat DIR                            the layout of the LLaVA authors: flat config.json, the tower in the CLIP folder DIR beside
--tower beside|inside                 where the tower's weights are
--linear                              a projector of one matrix (the first): weights differ from SRC's
--aspect pad                          image_aspect_ratio
--set KEY=JSON, --drop KEY            of config.json; --random SEED: random weights of the same shapes"""
import argparse, io, json, os, pickle, random, shutil, struct, sys, types, zipfile

TYPES = {'F16': ('HalfStorage', 2), 'BF16': ('BFloat16Storage', 2), 'F32': ('FloatStorage', 4), 'I64': ('LongStorage', 8)}


def read_safetensors(path):
    """Name to (type, shape, bytes)."""
    data = open(path, 'rb').read()
    n = struct.unpack('<Q', data[:8])[0]
    head = json.loads(data[8:8 + n])
    head.pop('__metadata__', None)
    return {k: (v['dtype'], v['shape'], data[8 + n + v['data_offsets'][0]:8 + n + v['data_offsets'][1]]) for k, v in head.items()}


def write_safetensors(path, tensors):
    head, at = {}, 0
    for k, (t, shape, b) in tensors.items():
        head[k] = {'dtype': t, 'shape': shape, 'data_offsets': [at, at + len(b)]}
        at += len(b)
    text = json.dumps(head).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(text)) + text + b''.join(b for _, _, b in tensors.values()))


class Storage:
    def __init__(self, kind, key, n):
        self.kind, self.key, self.n = kind, key, n


class Tensor:
    """Pickles as a call of torch._utils._rebuild_tensor_v2."""

    def __init__(self, storage, offset, shape, strides):
        self.args = (storage, offset, tuple(shape), tuple(strides), False, __import__('collections').OrderedDict())

    def __reduce__(self):
        return sys.modules['torch._utils']._rebuild_tensor_v2, self.args


def fake_torch():
    """Modules of the names that pickle writes down; nothing in them works."""
    torch, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
    for name, _ in TYPES.values():
        setattr(torch, name, type(name, (), {'__module__': 'torch'}))

    def _rebuild_tensor_v2(*_):
        raise RuntimeError
    _rebuild_tensor_v2.__module__ = 'torch._utils'
    _rebuild_tensor_v2.__qualname__ = '_rebuild_tensor_v2'
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    sys.modules['torch'], sys.modules['torch._utils'] = torch, utils


class Pickler(pickle.Pickler):
    def persistent_id(self, o):
        if isinstance(o, Storage):
            return ('storage', getattr(sys.modules['torch'], o.kind), o.key, 'cpu', o.n)


def strides_of(shape):
    s = [1]
    for d in reversed(shape[1:]):
        s.insert(0, s[0] * max(d, 1))
    return s[:len(shape)]


def write_bin(path, tensors, zip64=True):
    """Every second storage has a few numbers before its tensor, as a view would."""
    state, members = __import__('collections').OrderedDict(), []
    for i, (name, (t, shape, b)) in enumerate(tensors.items()):
        kind, size = TYPES[t]
        skip = i % 2 * 3
        members.append(b'\xff' * (skip * size) + b)
        state[name] = Tensor(Storage(kind, str(i), len(members[-1]) // size), skip, shape, strides_of(shape))
    out = io.BytesIO()
    Pickler(out, 2).dump(state)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as z:
        z.writestr('pytorch_model/data.pkl', out.getvalue())
        for i, b in enumerate(members):
            with z.open('pytorch_model/data/%d' % i, 'w', force_zip64=zip64) as f:
                f.write(b)
        z.writestr('pytorch_model/version', '3\n')


def write_torch(path, tensors, zipped=True):
    import torch
    kinds = {'F16': torch.float16, 'BF16': torch.bfloat16, 'F32': torch.float32, 'I64': torch.int64}
    state = {k: torch.frombuffer(bytearray(b), dtype=kinds[t]).reshape(shape) for k, (t, shape, b) in tensors.items()}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)


WRITERS = {'safetensors': ('model', 'safetensors', write_safetensors), 'bin': ('pytorch_model', 'bin', write_bin),
           'torch': ('pytorch_model', 'bin', write_torch), 'old': ('pytorch_model', 'bin', lambda p, t: write_torch(p, t, False))}


def write_weights(folder, tensors, kind, shards):
    stem, ext, write = WRITERS[kind]
    names = list(tensors)
    if shards == 1:
        write('%s/%s.%s' % (folder, stem, ext), tensors)
        return
    where = {}
    for s in range(shards):
        file = '%s-%05d-of-%05d.%s' % (stem, s + 1, shards, ext)
        part = names[s * len(names) // shards:(s + 1) * len(names) // shards]
        write(folder + '/' + file, {k: tensors[k] for k in part})
        where.update(dict.fromkeys(part, file))
    json.dump({'metadata': {}, 'weight_map': where}, open('%s/%s.%s.index.json' % (folder, stem, ext), 'w'))


def copy_sides(src, dst, files):
    for f in files:
        if os.path.exists(src + '/' + f):
            shutil.copyfile(src + '/' + f, dst + '/' + f)


def flat_name(k):
    for ours, theirs in (('language_model.lm_head.', 'lm_head.'), ('language_model.model.', 'model.'),
                         ('multi_modal_projector.linear_1.', 'model.mm_projector.0.'),
                         ('multi_modal_projector.linear_2.', 'model.mm_projector.2.')):
        if k.startswith(ours):
            return theirs + k[len(ours):]
    return None


def flat(a, config, tensors):
    """config.json and weights as the LLaVA authors have them; makes the CLIP folder."""
    out, tower, prefix = {}, {}, 'vision_tower.'
    for k, v in tensors.items():
        if k.startswith(prefix):
            tower[k[len(prefix):]] = v
        else:
            out[flat_name(k)] = v
    half = config['text_config']['head_dim'] // 2
    for i in range(config['text_config']['num_hidden_layers']):
        out['model.layers.%d.self_attn.rotary_emb.inv_freq' % i] = ('F32', [half], b'\0' * 4 * half)
    c = dict(config['text_config'], architectures=['LlavaLlamaForCausalLM'], model_type='llava', mm_vision_tower='openai/' + os.path.basename(a.flat),
             mm_hidden_size=config['vision_config']['hidden_size'], mm_vision_select_layer=config['vision_feature_layer'],
             mm_vision_select_feature='patch', mm_projector_type='mlp2x_gelu', mm_use_im_start_end=False, mm_use_im_patch_token=False,
             use_mm_proj=True, tune_mm_mlp_adapter=False, image_grid_pinpoints=None)
    if a.linear:
        t = 'model.mm_projector.'
        for leaf in ('weight', 'bias'):
            out[t + leaf] = out.pop(t + '0.' + leaf)
            del out[t + '2.' + leaf]
        del c['mm_projector_type']
    if a.tower == 'inside':
        out.update(('model.vision_tower.vision_tower.' + k, v) for k, v in tower.items())
    else:
        clip = os.path.join(os.path.dirname(os.path.abspath(a.dst)), a.flat)
        os.makedirs(clip, exist_ok=True)
        width = config['vision_config']['hidden_size']
        junk = {'logit_scale': ('F32', [], b'\0\0\0\0'), 'text_model.final_layer_norm.weight': ('F16', [width], b'\0\0' * width),
                'vision_model.embeddings.position_ids': ('I64', [1, 2], b'\0' * 16)}
        write_weights(clip, dict(tower, **junk), a.weights, 1)
        json.dump({'architectures': ['CLIPModel'], 'model_type': 'clip', 'vision_config': config['vision_config'], 'text_config': {}},
                  open(clip + '/config.json', 'w'))
        copy_sides(a.src, clip, ['preprocessor_config.json'])
    return c, out


def main():
    p = argparse.ArgumentParser()
    p.add_argument('src')
    p.add_argument('dst')
    p.add_argument('--weights', choices=WRITERS, default='bin')
    p.add_argument('--shards', type=int, default=1)
    p.add_argument('--flat')
    p.add_argument('--tower', choices=['beside', 'inside'], default='beside')
    p.add_argument('--linear', action='store_true')
    p.add_argument('--aspect')
    p.add_argument('--random', type=int)
    p.add_argument('--set', action='append', default=[])
    p.add_argument('--drop', action='append', default=[])
    a = p.parse_args()
    tensors = read_safetensors(a.src + '/model.safetensors')
    config = json.load(open(a.src + '/config.json'))
    if a.random is not None:
        r = random.Random(a.random)
        half = lambda n: struct.pack('<%de' % n, *(r.gauss(0, .05) for _ in range(n)))
        tensors = {k: (t, s, half(len(b) // 2) if t == 'F16' else b) for k, (t, s, b) in tensors.items()}
    os.makedirs(a.dst)
    if a.weights == 'bin':
        fake_torch()
    if a.flat:
        config, tensors = flat(a, config, tensors)
        copy_sides(a.src, a.dst, ['tokenizer.model', 'special_tokens_map.json', 'generation_config.json'])
    else:
        copy_sides(a.src, a.dst, [f for f in os.listdir(a.src) if f != 'model.safetensors'])
    if a.aspect:
        config['image_aspect_ratio'] = a.aspect
    for s in a.set:
        key, value = s.split('=', 1)
        config[key] = json.loads(value)
    for key in a.drop:
        config.pop(key, None)
    json.dump(config, open(a.dst + '/config.json', 'w'))
    write_weights(a.dst, tensors, a.weights, a.shards)


if __name__ == '__main__':
    main()
