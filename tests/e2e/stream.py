#!/usr/bin/env python3
"""Writes and reads tensor streams from the text of vqlm-stream(5) alone, independently of the C code.

usage: stream.py good|two|unknown-kind|no-end|twice|huge|major   writes such a stream to stdout
       stream.py read                                            reads one from stdin, prints its records
       stream.py graft                                           copies one and puts two unknown records into it
       stream.py transform none|nan|zero|short|missing|kind|block|from
                   copies a searched one: every input is doubled ahead of its grid and every weight's scale halved, which
                   changes nothing, with that fault in decoder.layers.1.q_proj
"""
import json
import struct
import subprocess
import sys

M = (1 << 64) - 1
P1, P2, P3 = 11400714785074694791, 14029467366897019727, 1609587929392839161
P4, P5 = 9650029242287828579, 2870177450012600261


def rotl(x, r):
    return ((x << r) | (x >> (64 - r))) & M


def xxh64(b, seed=0):
    n, i = len(b), 0

    def rnd(acc, lane):
        return rotl((acc + lane * P2) & M, 31) * P1 & M

    if n >= 32:
        v = [(seed + P1 + P2) & M, (seed + P2) & M, seed, (seed - P1) & M]
        while i + 32 <= n:
            for k, lane in enumerate(struct.unpack_from("<4Q", b, i)):
                v[k] = rnd(v[k], lane)
            i += 32
        h = (rotl(v[0], 1) + rotl(v[1], 7) + rotl(v[2], 12) + rotl(v[3], 18)) & M
        for k in range(4):
            h = ((h ^ rnd(0, v[k])) * P1 + P4) & M
    else:
        h = (seed + P5) & M
    h = (h + n) & M
    while i + 8 <= n:
        h = (rotl(h ^ rnd(0, struct.unpack_from("<Q", b, i)[0]), 27) * P1 + P4) & M
        i += 8
    if i + 4 <= n:
        h = (rotl(h ^ (struct.unpack_from("<I", b, i)[0] * P1 & M), 23) * P2 + P3) & M
        i += 4
    for c in b[i:]:
        h = rotl(h ^ (c * P5 & M), 11) * P1 & M
    h = ((h ^ (h >> 33)) * P2) & M
    h = ((h ^ (h >> 29)) * P3) & M
    return h ^ (h >> 32)


def skippable(content):
    content += struct.pack("<Q", xxh64(content))
    return struct.pack("<II", 0x184D2A56, len(content)) + content


def stored(raw):
    out = struct.pack("<IBBQ", 0xFD2FB528, 0xC0, 0x38, len(raw))
    blocks = [raw[i:i + 131072] for i in range(0, len(raw), 131072)] or [b""]
    for i, b in enumerate(blocks):
        out += struct.pack("<I", len(b) << 3 | (i == len(blocks) - 1))[:3] + b
    return out


def header(meta, major=1, minor=0):
    text = json.dumps(meta, sort_keys=True, separators=(",", ":")).encode()
    return skippable(b"VQLMHEAD" + struct.pack("<HHI", major, minor, len(text)) + text)


class Segment:
    def __init__(self, meta, major=1):
        self.out, self.heads, self.n, self.raw = header(meta, major), b"", 0, 0

    def put(self, kind, name, dtype, dims, raw, attrs=None, claim=None):
        text = json.dumps(attrs, sort_keys=True, separators=(",", ":")).encode() if attrs else b""
        frame = stored(raw)
        n, m = claim or (len(raw), len(frame))
        frame = frame[:6] + struct.pack("<Q", n) + frame[14:]
        c = b"VQLMRECD" + struct.pack("<4I3Q2I", kind, dtype, len(dims), 0, n, m, xxh64(raw), len(name),
                                      len(text))
        c += struct.pack("<%dQ" % len(dims), *dims) + name.encode() + text
        f = skippable(c)
        self.heads += f[8:]
        self.out += f + frame
        self.n += 1
        self.raw += n

    def end(self):
        c = b"VQLMEND." + struct.pack("<3Q", self.n, self.raw, xxh64(self.heads))
        return self.out + skippable(c)


def sample(major=1, extra=None):
    s = Segment({"producer": "stream.py", "model": {"name": "tiny"}, "history": []}, major)
    s.put(1, "config", 0, [13], b'{"arch":"no"}')
    s.put(5, "a.weight", 1, [2, 3], struct.pack("<6f", 1, 2, 3, -1, -2, -3), {"unit": 0, "linear": True})
    s.put(5, "empty", 2, [0, 8], b"")
    if extra:
        extra(s)
    return s


def read(b):
    at, heads = 0, b""
    while at < len(b):
        magic, n = struct.unpack_from("<II", b, at)
        c = b[at + 8:at + 8 + n]
        assert magic == 0x184D2A56 and len(c) == n and struct.unpack("<Q", c[-8:])[0] == xxh64(c[:-8])
        at += 8 + n
        if c[:8] == b"VQLMHEAD":
            heads, count = b"", 0
            print("header", json.loads(c[16:-8])["producer"])
        elif c[:8] == b"VQLMEND.":
            assert struct.unpack_from("<Q", c, 8)[0] == count and struct.unpack_from("<Q", c, 24)[0] == xxh64(heads)
            print("end", count)
        else:
            heads += c
            count += 1
            kind, dtype, nd, codec, raw, sto, h, nn, na = struct.unpack_from("<4I3Q2I", c, 8)
            dims = struct.unpack_from("<%dQ" % nd, c, 56)
            name = c[56 + 8 * nd:56 + 8 * nd + nn].decode()
            data = subprocess.run(["zstd", "-d", "-q", "-c"], input=b[at:at + sto], check=True,
                                  stdout=subprocess.PIPE).stdout
            if codec == 2:
                w, out = {1: 4, 2: 2, 3: 2, 7: 2, 8: 2, 9: 4, 10: 4}[dtype], b""
                for g in range(0, len(data), 131072 * w):
                    part = data[g:g + 131072 * w]
                    m = len(part) // w
                    out += bytes(x for i in range(m) for x in part[i::m])
                data = out
            assert len(data) == raw and xxh64(data) == h
            print(kind, name, "x".join(map(str, dims)), raw)
            at += sto


def graft(b):
    """The stream of one segment b with unknown records after its first and before its end record."""
    at, heads, count, raw, out, last = 0, b"", 0, 0, b"", 0
    while at < len(b):
        n = struct.unpack_from("<I", b, at + 4)[0]
        c, start = b[at + 8:at + 8 + n], at
        at += 8 + n
        if c[:8] == b"VQLMEND.":
            break
        if c[:8] == b"VQLMRECD":
            heads += c
            count += 1
            size, sto = struct.unpack_from("<2Q", c, 24)
            raw += size
            at += sto
        out += b[start:at]
        if count == 1:
            new = Segment({})
            last = len(new.out)
            new.put(900, "grafted/1", 6, [5], b"hello", {"from": "elsewhere"})
            out, heads, count, raw = out + new.out[last:], heads + new.heads, count + 1, raw + new.raw
    new = Segment({})
    last = len(new.out)
    new.put(901, "grafted/2", 1, [2], struct.pack("<2f", 1, 2))
    heads, count, raw = heads + new.heads, count + 1, raw + new.raw
    end = b"VQLMEND." + struct.pack("<3Q", count, raw, xxh64(heads))
    sys.stdout.buffer.write(out + new.out[last:] + skippable(end))


def records(b):
    """(content of the frame, payload frame) of every record header, and of the header and the end record."""
    at = 0
    while at < len(b):
        n = struct.unpack_from("<I", b, at + 4)[0]
        c = b[at + 8:at + 8 + n - 8]
        at += 8 + n
        sto = struct.unpack_from("<Q", c, 32)[0] if c[:8] == b"VQLMRECD" else 0
        yield c, b[at:at + sto]
        at += sto


def transform(b, fault):
    """The searched stream b with a scale of 2 for the input of every quantized linear."""
    s, due = Segment({}), None
    s.out = b""

    def copy(c, frame):
        f = skippable(c)
        s.heads += f[8:]
        s.out += f + frame
        s.n += 1
        s.raw += struct.unpack_from("<Q", c, 24)[0]

    for c, frame in records(b):
        kind, dtype, nd = struct.unpack_from("<3I", c, 8) if c[:8] == b"VQLMRECD" else (0, 0, 0)
        if due and kind != 6:  # after the grids of that linear
            stem, n_in = due
            bad = fault if stem == "decoder.layers.1.q_proj" else "none"
            x = [2.0] * (n_in - (bad == "short"))
            x[3] = {"nan": float("nan"), "zero": 0.0}.get(bad, 2.0)
            if bad != "missing":
                s.put(6, stem + ".transform_scale", 1, [len(x)], struct.pack("<%df" % len(x), *x))
            due = None
        if c[:8] == b"VQLMHEAD":
            s.out += skippable(c)
            continue
        if c[:8] == b"VQLMEND.":
            break
        nn, na = struct.unpack_from("<2I", c, 48)
        at = 56 + 8 * nd
        name, attrs = c[at:at + nn].decode(), c[at + nn:]
        if kind == 5 and dtype == 6:
            stem = name[:-len(".weight")]
            bad = fault if stem == "decoder.layers.1.q_proj" else "none"
            j = json.loads(attrs)
            j["transform"] = {"block": int(bad == "block") * 96, "from": "nobody" if bad == "from" else stem,
                              "kind": {"kind": "zigzag", "block": "hadamard"}.get(bad, "scale")}
            new = json.dumps(j, sort_keys=True, separators=(",", ":")).encode()
            copy(c[:52] + struct.pack("<I", len(new)) + c[56:at + nn] + new, frame)
            due = stem, struct.unpack_from("<2Q", c, 56)[1]
        elif kind == 6 and name.endswith(".scale"):
            raw = subprocess.run(["zstd", "-d", "-q", "-c"], input=frame, check=True, stdout=subprocess.PIPE).stdout
            assert struct.unpack_from("<I", c, 20)[0] == 0
            x = struct.unpack("<%de" % (len(raw) // 2), raw)
            half = struct.pack("<%de" % len(x), *(v / 2 for v in x))
            assert [v / 2 for v in x] == list(struct.unpack("<%de" % len(x), half))
            s.put(6, name, 2, struct.unpack_from("<%dQ" % nd, c, 56), half, json.loads(attrs))
        else:
            copy(c, frame)
    sys.stdout.buffer.write(s.end())


def main():
    what = sys.argv[1]
    if what == "transform":
        return transform(sys.stdin.buffer.read(), sys.argv[2])
    if what == "graft":
        return graft(sys.stdin.buffer.read())
    if what == "read":
        return read(sys.stdin.buffer.read())
    out = {
        "good": lambda: sample().end(),
        "two": lambda: sample().end() + sample().end(),
        "unknown-kind": lambda: sample(extra=lambda s: s.put(900, "new", 6, [3], b"abc")).end(),
        "no-end": lambda: sample().out,
        "twice": lambda: sample(extra=lambda s: s.put(5, "a.weight", 6, [1], b"a")).end(),
        "huge": lambda: sample(extra=lambda s: s.put(5, "b", 6, [1 << 36], b"a", claim=(
            1 << 36, (1 << 36) + 14 + 3 * (1 << 19)))).end(),
        "major": lambda: sample(major=2).end(),
    }[what]()
    sys.stdout.buffer.write(out)


main()
