#!/usr/bin/python3
"""What an exported folder computes, by numpy from the folder alone, beside vqlm-infer --logits of the packed model.

effect.py FOLDER LOGITS.vqs DATA...   awq or compressed-tensors; inputs as its quantization_config says: floating point, 8 bits
                                      by token (absmax / 127), 8 bits with input_scale.  Prints {"n", "kl_mean", "kl_max", "same_top"}
                                      over the records of LOGITS, KL of the folder's next-token distribution from theirs
effect.py LOGITS.vqs LOGITS.vqs       the same of two streams, the packed model's second"""
import json, os, sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../pipelines/demo/scripts'))
import exported, logits, ref_numpy
from make_tokenizer import Tok


class Folder(ref_numpy.Llava):
    def __init__(s, d):
        read = lambda n: json.load(open(os.path.join(d, n)))
        c, s.dt = read('config.json'), np.float32
        s.t, s.v, s.img, s.pp = c['text_config'], c['vision_config'], c['image_token_index'], read('preprocessor_config.json')
        assert c['vision_feature_layer'] == -1
        s.v['num_hidden_layers'] += 1  # the reference leaves out the last
        s.tok, s.raw, s.q = Tok(os.path.join(d, 'tokenizer.json')), exported.safetensors(d), c['quantization_config']
        s.w = {k: v.astype(np.float32) for k, v in s.raw.items() if k.endswith(('.weight', '.bias', 'embedding')) and v.dtype != np.int8}
        suffix = '.qweight' if s.q['quant_method'] == 'awq' else '.weight_scale'
        values = exported.awq if s.q['quant_method'] == 'awq' else exported.compressed
        s.coded = {k[:-len(suffix)] for k in s.raw if k.endswith(suffix)}
        for m in s.coded:
            s.w[m + '.weight'] = values(s.raw, m, s.q).astype(np.float32)

    def input(s, m, x):
        a = exported.scheme_of(s.q, m)['input_activations'] if m in s.coded and s.q['quant_method'] != 'awq' else None
        if a is None:
            return x
        if a['dynamic']:
            assert a['strategy'] == 'token' and a['symmetric']
            scale, zero = np.abs(x).max(-1, keepdims=True) / np.float32(127), 0
            scale[scale == 0] = 1
        else:
            assert a['strategy'] == 'tensor'
            scale, zero = s.raw[m + '.input_scale'], 0 if a['symmetric'] else s.raw[m + '.input_zero_point'].astype(np.int32)
        return scale * (np.clip(np.rint(x / scale) + zero, -128, 127) - zero).astype(np.float32)

    def lin(s, m, x):
        return super().lin(m, s.input(m, x))


def log_softmax(v):
    v = v.astype(np.float64) - v.max()
    return v - np.log(np.exp(v).sum())


def main():
    theirs, kls, same = logits.records(sys.argv[2]), [], 0
    if os.path.isdir(sys.argv[1]):
        net, got = Folder(sys.argv[1]), {}
        for e in json.load(open(sys.argv[3])):
            im = ref_numpy.read_png(os.path.join(os.path.dirname(sys.argv[3]), e['image'])) if 'image' in e else None
            if 'logits/' + e['id'] in theirs:
                got['logits/' + e['id']] = net.run(e['conversations'][0]['value'], im)[1]['logits']
    else:
        got = logits.records(sys.argv[1])
    assert theirs and got.keys() == theirs.keys()
    for k, v in theirs.items():
        v, w = v.ravel(), got[k].ravel()[:v.size]
        p, q = log_softmax(v), log_softmax(w)
        kls.append(float((np.exp(p) * (p - q)).sum()))
        same += int(v.argmax() == w.argmax())
    print(json.dumps(dict(n=len(kls), kl_mean=float(np.mean(kls)), kl_max=max(kls), same_top=same / len(kls))))


main()
