#!/usr/bin/python3
"""gguf_bad.py DIR: damaged GGUF files of one good LLaMA (gguf_file.py model), DIR/NAME.gguf each, and a line for each on standard
output: the name, a tab, and what a reader must say of it after the file's name."""
import os, struct, sys
import numpy as np
import gguf_file as g

out = sys.argv[1]
folder = os.path.join(out, 'm')
os.makedirs(out)
g.model(folder)
TENSORS = g.text_tensors(folder)
ROWS = 1024


def parts(b):
    """Where things are: 'key NAME' -> (start, type, value, end), 'tensor NAME' -> (start, dims count, type, offset, end)."""
    at, where = 24, {}
    n_tensors, n_keys = struct.unpack('<QQ', b[8:24])

    def skip(t, at):
        if t == 8:
            return at + 8 + struct.unpack_from('<Q', b, at)[0]
        if t == 9:
            item, n = struct.unpack_from('<IQ', b, at)
            at += 12
            for _ in range(n):
                at = skip(item, at)
            return at
        return at + {0: 1, 1: 1, 2: 2, 3: 2, 7: 1, 10: 8, 11: 8, 12: 8}.get(t, 4)

    for _ in range(n_keys):
        start, n = at, struct.unpack_from('<Q', b, at)[0]
        name = b[at + 8:at + 8 + n].decode()
        t = struct.unpack_from('<I', b, at + 8 + n)[0]
        value = at + 12 + n
        at = skip(t, value)
        where['key ' + name] = start, value - 4, value, at
    for _ in range(n_tensors):
        start, n = at, struct.unpack_from('<Q', b, at)[0]
        name = b[at + 8:at + 8 + n].decode()
        dims = at + 8 + n
        n_dims = struct.unpack_from('<I', b, dims)[0]
        t = dims + 4 + 8 * n_dims
        at = t + 12
        where['tensor ' + name] = start, dims, t, t + 4, at
    where['data'] = -(-at // 32) * 32
    return where


def make(changes=(), edit=None, tensors=None):
    """A file with keys changed as by gguf_file.py, other tensors, and other bytes: edit is a list of (offset, bytes)."""
    t = {k: g.plain(w, 'F16') for k, (w, _, _) in TENSORS.items()}
    keys = g.change(g.text_keys(folder, g.config(folder), ROWS), t, changes)
    for k, v in (tensors or {}).items():
        t[k] = v
    path = os.path.join(out, 'tmp')
    g.write(path, keys, t)
    b = bytearray(open(path, 'rb').read())
    for at, v in (edit(parts(b)) if edit else []):
        b[at:at + len(v)] = v
    return bytes(b)


u32, u64 = (lambda v: struct.pack('<I', v)), (lambda v: struct.pack('<Q', v))
GOOD = make()
W = parts(GOOD)
cut = lambda n: GOOD[:n]
patch = lambda at, v: GOOD[:at] + v + GOOD[at + len(v):]
key = lambda name, i: W['key ' + name][i]
ten = lambda name, i: W['tensor ' + name][i]
EMBED, NORM, TOP = 'token_embd.weight', 'output_norm.weight', 'output.weight'
Q, LAST = 'blk.0.attn_q.weight', list(TENSORS)[-1]
V = 'tokenizer.ggml.'
CUT = 'it is cut or damaged: get it again'
fp = lambda *s: ('F32', s, np.ones(s, np.float32).tobytes())
blocks = lambda kind, shape, byte: (kind, shape, bytes([byte]) * (int(np.prod(shape)) // g.TYPES[kind][1] * g.TYPES[kind][2]))

CASES = {
    # the head
    'magic-alone': (cut(4), ': head: want 4 bytes at byte 4, the file has 4; ' + CUT),
    'head-cut': (cut(20), ': head: want 8 bytes at byte 16, the file has 20; ' + CUT),
    'version-0': (patch(4, u32(0)), ': GGUF version 0; want 2 or 3'),
    'version-1': (patch(4, u32(1)), ': GGUF version 1; want 2 or 3: convert the model again'),
    'version-4': (patch(4, u32(4)), ': GGUF version 4; want 2 or 3'),
    'big-endian': (patch(4, b'\0\0\0\3'), ': a GGUF file of a big-endian machine; want little-endian: gguf_convert_endian.py converts it'),
    'no-tensors': (patch(8, u64(0)), ': no tensors; want a model, not a vocabulary alone'),
    'tensors-2-63': (patch(8, u64(1 << 63)), ': 23 keys and 9223372036854775808 tensors are too many for its %d bytes; ' % len(GOOD) + CUT),
    'keys-2-63': (patch(16, u64(1 << 63)), ': 9223372036854775808 keys and 21 tensors are too many for its'),
    'keys-2-64': (patch(16, u64((1 << 64) - 1)), ': 18446744073709551615 keys and 21 tensors are too many for its'),
    # keys
    'key-name-2-63': (patch(24, u64(1 << 63)), ': key 0: want 9223372036854775808 bytes at byte 32'),
    'key-name-0': (patch(24, u64(0)), ': key 0: want a name of 1..65535 bytes, got 0'),
    'key-name-70000': (patch(24, u64(70000)), ': key 0: want a name of 1..65535 bytes, got 70000'),
    'key-name-zero-byte': (patch(34, b'\0'), ': key 0: want a name of 1..65535 bytes, got 20 with a zero byte'),
    'counts-cut': (cut(500), ': 23 keys and 21 tensors are too many for its 500 bytes; ' + CUT),
    'key-cut': (cut(key(V + 'eos_token_id', 0) + 10), ': want 27 bytes at byte %d, the file has %d; ' % (key(V + 'eos_token_id', 0) + 8, key(V + 'eos_token_id', 0) + 10) + CUT),
    'value-cut': (cut(key(V + 'scores', 2) + 100), ": key 'tokenizer.ggml.scores': 1024 elements of f32 do not fit the file's"),
    'strings-cut': (cut(key(V + 'tokens', 2) + 100), ": key 'tokenizer.ggml.tokens': 1024 strings do not fit the file's"),
    'type-13': (patch(key('llama.block_count', 1), u32(13)), ": key 'llama.block_count': want a value of type 0..12, got 13"),
    'type-99': (patch(key(V + 'scores', 2), u32(99)), ": key 'tokenizer.ggml.scores': want a value of type 0..12, got 99"),
    'array-of-arrays': (patch(key(V + 'scores', 2), u32(9)), ": key 'tokenizer.ggml.scores': an array of arrays, which no model has"),
    'array-2-31': (patch(key(V + 'scores', 2) + 4, u64(1 << 31)), ": key 'tokenizer.ggml.scores': 2147483648 elements of f32 do not fit"),
    'array-2-62': (patch(key(V + 'scores', 2) + 4, u64(1 << 62)), ": key 'tokenizer.ggml.scores': 4611686018427387904 elements of f32 do not fit"),
    'strings-2-61': (patch(key(V + 'tokens', 2) + 4, u64(1 << 61)), ": key 'tokenizer.ggml.tokens': 2305843009213693952 strings do not fit"),
    'string-2-40': (patch(key(V + 'model', 2), u64(1 << 40)), ": key 'tokenizer.ggml.model': want 1099511627776 bytes at byte"),
    'key-twice': (patch(key(V + 'scores', 0), g.string('tokenizer.ggml.tokens')), ": key 'tokenizer.ggml.tokens' is there twice"),
    'align-12': (make(['general.alignment=12']), ": key 'general.alignment': want a power of two from 8, got 12"),
    'align-4': (make(['general.alignment=4']), ": key 'general.alignment': want a power of two from 8, got 4"),
    'align-2-31': (make(['general.alignment=64'], lambda w: [(w['key general.alignment'][2], u32(1 << 31))]),
                   ": key 'general.alignment': want a whole number of 1..1048576, got 2147483648"),
    # tensors
    'name-70': (patch(ten(EMBED, 0), u64(70)), "': want a name of 1..63 bytes, got 70"),
    'name-2-63': (patch(ten(EMBED, 0), u64(1 << 63)), ': tensor 0: want 9223372036854775808 bytes'),
    'dims-0': (patch(ten(EMBED, 1), u32(0)), ": tensor 'token_embd.weight': want 1..4 dimensions, got 0"),
    'dims-5': (patch(ten(EMBED, 1), u32(5)), ": tensor 'token_embd.weight': want 1..4 dimensions, got 5"),
    'dim-0': (patch(ten(EMBED, 1) + 4, u64(0)), ": tensor 'token_embd.weight': dimension 0 of 0: want at least 1, and fewer than 2^63 elements"),
    'dim-negative': (patch(ten(EMBED, 1) + 12, u64(1 << 63)), ": tensor 'token_embd.weight': dimension 1 of 9223372036854775808: want"),
    'dims-overflow': (patch(ten(EMBED, 1) + 4, u64(1 << 40) + u64(1 << 40)), ": tensor 'token_embd.weight': dimension 1 of 1099511627776: want"),
    'dims-huge': (patch(ten(EMBED, 1) + 4, u64(256) + u64(1 << 53)), ": tensor 'token_embd.weight': want 4611686018427387904 bytes at offset 0 of the data"),
    'tensor-type-99': (patch(ten(EMBED, 2), u32(99)), ": tensor 'token_embd.weight': type 99 is unknown; convert the model"),
    'tensor-type-4': (patch(ten(EMBED, 2), u32(4)), ": tensor 'token_embd.weight': type 4 is unknown; convert the model"),
    'row-not-of-blocks': (make(tensors={EMBED: ('F16', (1024, 250), b'\0' * 512000)}, edit=lambda w: [(w['tensor ' + EMBED][2], u32(2))]),
                          ": tensor 'token_embd.weight': want rows of a multiple of 32 for Q4_0, got 250"),
    'hole': (patch(ten(TOP, 3), u64(1024 * 256 * 2 + 32)), ": tensor 'output.weight': want its data at offset 524288, behind those before it, got 524320"),
    'overlap': (patch(ten(TOP, 3), u64(0)), ": tensor 'output.weight': want its data at offset 524288, behind those before it, got 0"),
    'offset-2-63': (patch(ten(TOP, 3), u64(1 << 63)), ": tensor 'output.weight': want its data at offset 524288, behind those before it, got 9223372036854775808"),
    'tensor-twice': (patch(ten('blk.1.attn_q.weight', 0), g.string('blk.0.attn_q.weight')), ": tensor 'blk.0.attn_q.weight' is there twice"),
    'tensors-cut': (cut(ten(LAST, 2)), ": tensor '" + LAST + "': want 4 bytes at byte"),
    'no-data': (cut(W['data'] - 8), ": tensor 'token_embd.weight': want 524288 bytes at offset 0 of the data, the file has 0; it is cut: get it again"),
    'data-cut': (cut(len(GOOD) - 100), ": tensor '" + LAST + "': want 1024 bytes at offset"),
    # what the model is
    'no-architecture': (make(['general.architecture=']), ": key 'general.architecture' is missing"),
    'gemma': (make(['general.architecture="gemma"']), ": key 'general.architecture': want llama or clip, got 'gemma'"),
    'architecture-7': (make(['general.architecture=7']), ": key 'general.architecture': want a string, got u32"),
    'no-layers': (make(['llama.block_count=']), ": key 'llama.block_count' is missing"),
    'layers-0': (make(['llama.block_count=0']), ": key 'llama.block_count': want a whole number of 1..1024, got 0"),
    'layers-2-31': (make(['llama.block_count=2147483648']), ": key 'llama.block_count': want a whole number of 1..1024, got 2147483648"),
    'layers-1': (make(['llama.block_count=1']), ": tensor 'blk.1.attn_q.weight': a layer beyond 'llama.block_count'"),
    'layers-text': (make(['llama.block_count="2"']), ": key 'llama.block_count': want a whole number of 1..1024, got string"),
    'heads-by-layer': (make(['llama.attention.head_count_kv=[2,2]']), ": key 'llama.attention.head_count_kv': want a whole number of 1..4096, got array (numbers that differ by layer are not supported)"),
    'vocab-size': (make(['llama.vocab_size=32000']), ": key 'llama.vocab_size': want a whole number of 1024..1024, got 32000"),
    'eps-nan': (make(['llama.attention.layer_norm_rms_epsilon=NaN']), ": key 'llama.attention.layer_norm_rms_epsilon': want a finite number, got NaN or infinity"),
    'eps-whole': (make(['llama.attention.layer_norm_rms_epsilon=1']), ": key 'llama.attention.layer_norm_rms_epsilon': want a number of type f32 or f64, got u32"),
    'partly-rotary': (make(['llama.rope.dimension_count=32']), ": key 'llama.rope.dimension_count': want 64, the width of a head, got 32"),
    'rope-yarn': (make(['llama.rope.scaling.type="yarn"']), ": key 'llama.rope.scaling.type': 'yarn': scaled rotary embedding is not supported"),
    'rope-factor': (make(['llama.rope.scaling.type="linear"', 'llama.rope.scaling.factor=4.0']), ": key 'llama.rope.scaling.factor': 4: scaled rotary embedding is not supported"),
    'rope-freqs': (make(tensors={'rope_freqs.weight': ('F32', (32,), np.linspace(1, 8, 32, dtype=np.float32).tobytes())}),
                   ": tensor 'rope_freqs.weight': scaled rotary embedding (as Llama 3.1's) is not supported"),
    'experts': (make(['llama.expert_count=8']), ": key 'llama.expert_count': a mixture of 8 experts is not supported"),
    'other-tensor': (make(tensors={'blk.0.attn_q_norm.weight': fp(64)}), ": tensor 'blk.0.attn_q_norm.weight': no part of a LLaMA model; its kind is not supported"),
    'tensor-missing': (make(['drop:' + Q + '=']), "tensor 'decoder.layers.0.q_proj.weight' is missing"),
    'embedding-missing': (make(['drop:' + EMBED + '=']), ": tensor 'token_embd.weight' is missing"),
    'wrong-shape': (make(tensors={'blk.0.ffn_up.weight': fp(500, 256)}), "want shape [512, 256]"),
    'heads-do-not-divide': (make(tensors={Q: fp(254, 256)}), ": tensor 'blk.0.attn_q.weight': want rows of 4 heads, got 254"),
    'iq4-nl': (make(tensors={Q: blocks('IQ4_NL', (256, 256), 1)}), ": tensor 'blk.0.attn_q.weight': type IQ4_NL is not supported; want a model in F32, F16, BF16, Q4_0 to Q8_0 or Q2_K to Q6_K"),
    'infinite-scale': (make(tensors={Q: blocks('Q8_0', (256, 256), 0x7c)}), ": tensor 'blk.0.attn_q.weight': a weight is beyond float16 (65504), or no number"),
    'shard-2': (make(['split.no=1', 'split.count=2']), ': shard 2 of a model; want the first, which has the keys (its name has -00001-of-)'),
    'shard-name': (make(['split.no=0', 'split.count=2']), ": the first of 2 shards; want a name that ends in '-00001-of-00002.gguf', by which the others are found"),
    # the tokenizer
    'no-tokenizer': (make([V + 'model=']), ": key 'tokenizer.ggml.model' is missing; want a file with a tokenizer"),
    'tokenizer-t5': (make([V + 'model="t5"']), ": key 'tokenizer.ggml.model': want llama (SentencePiece) or gpt2 (byte-level BPE), got 't5'"),
    'no-tokens': (make([V + 'tokens=']), ": key 'tokenizer.ggml.tokens' is missing"),
    'tokens-numbers': (make([V + 'tokens=[1,2]']), ": key 'tokenizer.ggml.tokens': want an array of string, got one of u32"),
    'scores-few': (make([V + 'scores=[1.0,2.0]']), ": key 'tokenizer.ggml.scores': want one for each of the 1024 tokens, got 2"),
    'score-nan': (patch(key(V + 'scores', 2) + 12 + 4 * 300, struct.pack('<f', float('nan'))), ": key 'tokenizer.ggml.scores': token 300: want a finite score"),
    'type-7': (patch(key(V + 'token_type', 2) + 12 + 4 * 300, u32(7)), ": key 'tokenizer.ggml.token_type': token 300: want a type of 1..6, got 7"),
    # Tokens 3 and 4 are <0x00> and <0x01>.
    'token-twice': (patch(key(V + 'tokens', 2) + 12 + 13 + 11 + 12 + 14 + 8, b'<0x00>'), "/tokenizer.model: token '<0x00>' has two ids, 3 and 4"),
    'bos-text': (make([V + 'bos_token_id="x"']), ": key 'tokenizer.ggml.bos_token_id': want a whole number of 0..4294967295, got string"),
}
for name, (data, text) in CASES.items():
    open(os.path.join(out, name + '.gguf'), 'wb').write(data)
    print(name + '\t' + text)
