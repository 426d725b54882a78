#!/usr/bin/python3
# Reference of decoding, resizing and preprocessing with Pillow and numpy, as transformers' image processors do
# it.  Prints one line a result: file, operation, SHA-256 of the bytes (8-bit RGB, or float32 CHW).
#   image_ref.py ROOT FILE...      the files are relative to ROOT
# tests/vectors/images.tsv is its output for tests/data/image (ROOT .) and, as images-data.tsv, for the
# photographs under VQLM_DATA/images; Pillow 9.4.0, numpy 1.24.2.
import hashlib, os, sys
import numpy as np
from PIL import Image

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def shortest_edge(im, s):
    w, h = im.size
    short, long = min(w, h), max(w, h)
    other = int(s * long / short)
    return im.resize((s, other) if w <= h else (other, s), Image.BICUBIC)


def center_crop(a, s):
    h, w = a.shape[:2]
    top, left = (h - s) // 2, (w - s) // 2
    if top >= 0 and left >= 0:
        return a[top : top + s, left : left + s]
    nh, nw = max(s, h), max(s, w)
    big = np.zeros((nh, nw, 3), a.dtype)
    tp, lp = -((h - nh) // 2), -((w - nw) // 2)
    big[tp : tp + h, lp : lp + w] = a
    return big[max(0, top + tp) : min(nh, top + tp + s), max(0, left + lp) : min(nw, left + lp + s)]


def expand_to_square(im):
    w, h = im.size
    if w == h:
        return im
    big = Image.new("RGB", (max(w, h),) * 2, tuple(int(x * 255) for x in MEAN))
    big.paste(im, (0, (w - h) // 2) if w > h else ((h - w) // 2, 0))
    return big


def normalise(a):
    x = (a * (1 / 255)).astype(np.float32)
    x = (x - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(x.transpose(2, 0, 1))


def run(im, op):
    kind, *arg = op.split(":")
    if kind == "rgb":
        return np.asarray(im)
    if kind == "resize":
        return np.asarray(im.resize((int(arg[1]), int(arg[2])), int(arg[0])))
    if kind == "pad":
        im = expand_to_square(im)
    if kind == "small":  # crop wider than what comes out of resizing
        im = shortest_edge(im, int(arg[0]) - 7)
    else:
        im = shortest_edge(im, int(arg[0]))
    return normalise(center_crop(np.asarray(im), int(arg[0])))


OPS = ["rgb", "resize:3:336:224", "resize:2:50:61", "resize:1:100:300", "resize:3:700:13", "crop:336", "pad:336",
       "crop:56", "pad:30", "small:48"]
FEW = ["rgb", "resize:3:336:224", "pad:30", "small:48"]  # for the many small files of the corpus
root = sys.argv[1]
for name in sys.argv[2:]:
    im = Image.open(os.path.join(root, name)).convert("RGB")
    for op in OPS if "tests/data" not in name else FEW:
        print(name, op, hashlib.sha256(np.ascontiguousarray(run(im, op)).tobytes()).hexdigest(), sep="\t")
