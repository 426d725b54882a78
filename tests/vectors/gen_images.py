#!/usr/bin/python3
# Writes the picture corpus of tests/data/image: every PNG colour type, depth and interlace by hand (so that
# nothing but this file decides the bytes), JPEGs by Pillow, and damaged files.  Run once; the files are kept.
import io, random, struct, sys, zlib
from pathlib import Path
from PIL import Image

out = Path(sys.argv[1])
W, H = 13, 11
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
NAMES = {0: "grey", 2: "rgb", 3: "palette", 4: "greyalpha", 6: "rgba"}


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack(rows, depth):
    """Rows of samples to bytes, each with filter type 0."""
    raw = b""
    for row in rows:
        bits = "".join(format(v, f"0{depth}b") for v in row)
        bits += "0" * (-len(bits) % 8)
        raw += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    return raw


def png(kind, depth, interlace, palette=None, trns=None, size=(W, H), top=None):
    w, h = size
    n = CHANNELS[kind]
    top = top or (1 << depth) - 1
    rnd = random.Random(f"{kind} {depth} {w} {h}")
    pixel = [[[rnd.randint(0, top) for _ in range(n)] for _ in range(w)] for _ in range(h)]
    raw = b""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    for x0, y0, dx, dy in passes if interlace else [(0, 0, 1, 1)]:
        rows = [[s for x in range(x0, w, dx) for s in pixel[y][x]] for y in range(y0, h, dy)]
        if rows and rows[0]:
            raw += pack(rows, depth)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, kind, 0, 0, interlace))
    if palette is not None:
        data += chunk(b"PLTE", palette)
    if trns is not None:
        data += chunk(b"tRNS", trns)
    return data + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def colours(n):
    rnd = random.Random(n)
    return bytes(rnd.randint(0, 255) for _ in range(3 * n))


def write(name, data):
    (out / name).write_bytes(data)


for kind, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
    for depth in depths:
        for interlace in (0, 1):
            pal = colours(1 << depth) if kind == 3 else None
            write(f"good-{NAMES[kind]}{depth}{'-interlaced' if interlace else ''}.png", png(kind, depth, interlace, pal))
write("good-grey8-trns.png", png(0, 8, 0, None, struct.pack(">H", 77)))
write("good-grey16-trns.png", png(0, 16, 0, None, struct.pack(">H", 77)))
write("good-grey16-dark.png", png(0, 16, 0, top=300))
write("good-rgb8-trns.png", png(2, 8, 0, None, struct.pack(">3H", 1, 2, 3)))
write("good-rgb8-plte.png", png(2, 8, 0, colours(7)))
write("good-palette8-trns.png", png(3, 8, 0, colours(256), bytes(range(256))))
write("good-palette8-short.png", png(3, 8, 0, colours(9)))
write("good-palette4-short-interlaced.png", png(3, 4, 1, colours(5)))
write("good-palette2-short.png", png(3, 2, 0, colours(2), b"\0"))
write("good-one-pixel.png", png(6, 8, 1, size=(1, 1)))
write("good-narrow.png", png(2, 8, 0, size=(1, 40)))

rnd = random.Random(5)
im = Image.new("RGB", (37, 29))
im.putdata([(x * 7 & 255, y * 9 & 255, (x * y + rnd.randint(0, 60)) & 255) for y in range(29) for x in range(37)])


def jpeg(image, **kw):
    b = io.BytesIO()
    image.save(b, "JPEG", **kw)
    return b.getvalue()


write("good-444.jpg", jpeg(im, quality=90, subsampling=0))
write("good-422.jpg", jpeg(im, quality=70, subsampling=1))
write("good-420.jpg", jpeg(im, quality=50, subsampling=2))
write("good-progressive.jpg", jpeg(im, quality=80, progressive=True))
write("good-grey.jpg", jpeg(im.convert("L"), quality=80))
exif = Image.Exif()
exif[0x0112] = 6
write("good-rotated-exif.jpg", jpeg(im, quality=80, exif=exif))
write("unsupported-cmyk.jpg", jpeg(im.convert("CMYK"), quality=80))
b = io.BytesIO()
im.save(b, "BMP")
write("unsupported.bmp", b.getvalue()[:200])

good = png(2, 8, 0)
write("bad-cut-in-header.png", good[:20])
write("bad-cut-in-data.png", good[: len(good) // 2])
write("bad-cut-before-end.png", good[:-12])
write("bad-no-pixels.png", png(2, 8, 0, size=(0, 0)))
write("bad-checksum.png", good[:-20] + bytes([good[-20] ^ 1]) + good[-19:])
write("bad-missing-palette.png", png(3, 8, 0))
write("bad-too-few-rows.png", good[:16] + struct.pack(">II", W, H + 5)
      + good[24:29] + struct.pack(">I", zlib.crc32(b"IHDR" + struct.pack(">II", W, H + 5) + good[24:29])) + good[33:])
for name, size in {"bad-gigantic.png": (0x7FFFFFFF, 0x7FFFFFFF), "bad-wide.png": (70000, 1),
                   "bad-too-many-pixels.png": (60000, 60000)}.items():
    ihdr = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    write(name, good[:8] + chunk(b"IHDR", ihdr) + good[33:])
j = jpeg(im, quality=90, subsampling=0)
write("bad-cut-in-header.jpg", j[:100])
write("bad-cut-in-data.jpg", j[: len(j) * 3 // 4])
write("bad-cut-before-end.jpg", j[:-2])
at = j.index(b"\xff\xc0")
write("bad-no-pixels.jpg", j[: at + 5] + b"\0\0\0\0" + j[at + 9:])
write("bad-too-many-pixels.jpg", j[: at + 5] + b"\xff\xdc\xff\xdc" + j[at + 9:])
write("bad-empty.png", b"")
