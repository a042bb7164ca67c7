#!/usr/bin/env python3
"""Compares what `tuner run` makes of images with Pillow and numpy.

    python tests/images/compare.py --tuner target/release/tuner [--keep FOLDER]

Makes small files of every kind in a temporary folder and has the tuner preprocess them (`--write-input`):

- decoded pixels must be Pillow's `convert("RGB")`, to LEVELS of 255;
- every preset must be what Pillow's filters give in float32 (mode F), to FILTER_LEVELS; of a JPEG to what
  the filter makes of LEVELS;
- a file that Pillow refuses must be refused, with exit status 2 and one line.

Needs pillow and numpy (tests/trained/requirements.txt). Exit status 1 if anything differs.
"""
import argparse
import io
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib

import numpy as np
from PIL import Image, ImageOps

LEVELS = 3
# Halved chroma is rounded twice by the decoder of JPEGs: of so many samples one may be one level more off.
ONE_IN = 5000
FILTER_LEVELS = 0.02
# The size that the network takes: an image of this size is not resized by the preset `keras`.
SIDE = 299


def picture(height=SIDE, width=SIDE):
    """Gradients, waves and a block of one colour."""
    y, x = np.mgrid[0:height, 0:width]
    wave = 128 + 100 * np.sin(x / 9) * np.cos(y / 7)
    a = np.dstack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), wave]).astype(np.uint8)
    a[height // 4 : height // 2, width // 4 : width // 2] = (230, 30, 40)
    return a


def encode(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(width, height, depth, color, rows, palette=b""):
    """A PNG of packed rows, of depths that Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    palette = chunk(b"PLTE", palette) if palette else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + palette + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def packed(samples, bits):
    """Rows of samples of less than a byte."""
    planes = [(samples >> bit & 1).astype(np.uint8) for bit in reversed(range(bits))]
    return [np.packbits(row).tobytes() for row in np.stack(planes, -1).reshape(len(samples), -1)]


def cmyk(planes):
    return Image.merge("CMYK", [Image.fromarray(np.ascontiguousarray(planes[..., c])) for c in range(4)])


def ycck(levels, black):
    """The file stores YCbCr of inverted colours, and black; Pillow inverts what it writes."""
    stored = np.asarray(Image.fromarray(255 - levels).convert("YCbCr"))
    stored = np.dstack([stored, np.full(levels.shape[:2], black, np.uint8)])
    data = bytearray(encode(cmyk(255 - stored), "JPEG", quality=95, subsampling=0))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def without_adobe(data):
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def jpegs(a):
    image = Image.fromarray(a)
    grey = image.convert("L")

    def jpeg(image, **options):
        return encode(image, "JPEG", quality=95, **options)

    rgb = jpeg(image, keep_rgb=True)
    yield "base.jpg", jpeg(image)
    yield "optimized.jpg", jpeg(image, optimize=True)
    yield "low.jpg", encode(image, "JPEG", quality=30)
    yield "grey.jpg", jpeg(grey)
    yield "grey_progressive.jpg", jpeg(grey, progressive=True)
    yield "cmyk.jpg", jpeg(image.convert("CMYK"), subsampling=0)
    yield "cmyk_dark.jpg", jpeg(cmyk(np.dstack([a, a[..., 0] // 2])), subsampling=0)
    yield "cmyk_progressive.jpg", jpeg(image.convert("CMYK"), subsampling=0, progressive=True)
    for black in (255, 150):
        yield f"ycck_{black}.jpg", ycck(a, black)
    yield "rgb_adobe.jpg", rgb
    yield "rgb_ids.jpg", without_adobe(rgb)
    yield "progressive.jpg", jpeg(image, progressive=True)
    for blocks in (1, 4, 20):
        yield f"restart{blocks}.jpg", jpeg(image, restart_marker_blocks=blocks)
        yield f"progressive_restart{blocks}.jpg", jpeg(image, progressive=True, restart_marker_blocks=blocks)
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        yield f"s{name}.jpg", jpeg(image, subsampling=subsampling)
        yield f"s{name}_progressive.jpg", jpeg(image, subsampling=subsampling, progressive=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "lying.jpg", jpeg(image, exif=exif)


def pngs(a):
    image = Image.fromarray(a)
    rgba = np.dstack([a, a[..., 0]])
    yield "rgb.png", encode(image, "PNG")
    yield "rgba.png", encode(Image.fromarray(rgba), "PNG")
    yield "palette.png", encode(image.convert("P"), "PNG")
    yield "palette_transparent.png", encode(image.convert("P"), "PNG", transparency=3)
    yield "grey.png", encode(image.convert("L"), "PNG")
    yield "grey_alpha.png", encode(image.convert("LA"), "PNG")
    yield "one_bit.png", encode(image.convert("1"), "PNG")
    yield "grey16.png", encode(Image.fromarray(a[..., 0].astype(np.uint16) * 257), "PNG")
    wide = (a.astype(np.uint16) * 257).astype(">u2")
    yield "rgb16.png", png(SIDE, SIDE, 16, 2, [row.tobytes() for row in wide])
    wide = (rgba.astype(np.uint16) * 257).astype(">u2")
    yield "rgba16.png", png(SIDE, SIDE, 16, 6, [row.tobytes() for row in wide])
    for bits in (1, 2, 4):
        samples = a[..., 0] >> (8 - bits)
        yield f"grey{bits}.png", png(SIDE, SIDE, bits, 0, packed(samples, bits))
        colors = np.random.default_rng(bits).integers(0, 256, 3 << bits, dtype=np.uint8).tobytes()
        yield f"palette{bits}.png", png(SIDE, SIDE, bits, 3, packed(samples, bits), colors)
    yield "really_png.jpg", encode(image, "PNG")


def others(a):
    image = Image.fromarray(a)
    rgba = Image.fromarray(np.dstack([a, a[..., 0]]))
    palette, grey, one = image.convert("P"), image.convert("L"), image.convert("1")
    yield "lossy.webp", encode(image, "WEBP", quality=90)
    yield "lossless.webp", encode(image, "WEBP", lossless=True)
    yield "alpha.webp", encode(rgba, "WEBP", quality=90, exact=True)
    yield "alpha_lossless.webp", encode(rgba, "WEBP", lossless=True, exact=True)
    yield "really_webp.jpg", encode(image, "WEBP", quality=90)
    yield "rgb.bmp", encode(image, "BMP")
    yield "palette.bmp", encode(palette, "BMP")
    yield "grey.bmp", encode(grey, "BMP")
    yield "one_bit.bmp", encode(one, "BMP")
    yield "rgba.bmp", encode(rgba, "BMP")
    yield "palette.gif", encode(palette, "GIF")
    yield "grey.gif", encode(grey, "GIF", interlace=0)
    yield "transparent.gif", encode(palette, "GIF", transparency=5)
    yield "animated.gif", encode(palette, "GIF", save_all=True, append_images=[image.rotate(90).convert("P")])
    for name, compression in (("raw", None), ("lzw", "tiff_lzw"), ("deflate", "tiff_adobe_deflate"),
                              ("packbits", "packbits")):
        yield f"rgb_{name}.tif", encode(image, "TIFF", compression=compression)
        yield f"grey_{name}.tif", encode(grey, "TIFF", compression=compression)
    yield "palette.tif", encode(palette, "TIFF")
    yield "rgba.tif", encode(rgba, "TIFF")
    yield "cmyk.tif", encode(cmyk(np.dstack([a, a[..., 0] // 2])), "TIFF")
    yield "one_bit.tif", encode(one, "TIFF")
    yield "fax.tif", encode(one, "TIFF", compression="group4")
    yield "grey16.tif", encode(Image.fromarray(a[..., 0].astype(np.uint16) * 257), "TIFF")
    yield "jpeg.tif", encode(image, "TIFF", compression="jpeg", quality=95)
    yield "lying.tif", encode(image, "TIFF", tiffinfo={274: 6})


def sizes():
    """Images that are resized, and that have chroma at odd sizes."""
    for height, width in ((1, 1), (1, 2000), (2000, 1), (2, 3), (239, 321), (801, 600), (450, 1203)):
        image = Image.fromarray(picture(height, width))
        yield f"size_{width}x{height}.png", encode(image, "PNG")
        for subsampling in (0, 1, 2):
            if min(height, width) > 2:
                data = encode(image, "JPEG", quality=95, subsampling=subsampling)
                yield f"size_{width}x{height}_{subsampling}.jpg", data


def levels(image):
    """Pillow's RGB levels. 16 bits keep their upper half, which Pillow clips in some versions."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(image.convert("RGB"))


def by_pillow(a, size, how):
    """The middle of the resized image, each channel in float32 by Pillow's filter; size is height and width."""
    # The part of the image that the middle comes from: the whole can be a thousand times as wide.
    start = [int(round((whole - SIDE) / 2.0)) for whole in size]
    scale = [have / whole for have, whole in zip(a.shape, size)]
    box = [(start[axis] + end) * scale[axis] for end in (0, SIDE) for axis in (1, 0)]
    channels = [Image.fromarray(a[..., c].astype(np.float32)) for c in range(3)]
    resized = [channel.resize((SIDE, SIDE), how, box) for channel in channels]
    return np.clip(np.dstack([np.asarray(channel) for channel in resized]), 0, 255)


def short_side(size, short):
    """As torchvision computes it."""
    height, width = size
    return (short, int(short * width / height)) if height <= width else (int(short * height / width), short)


def no_antialias(a, first=0.5):
    """Bilinear interpolation with align_corners=False: torch's, or TensorFlow 1's where the first pixels are in one
    place."""
    for axis in (0, 1):
        size = a.shape[axis]
        at = np.maximum((np.arange(SIDE) + first) * np.float64(np.float32(size / SIDE)) - first, 0)
        low = np.floor(at).astype(int)
        part = (at - low).reshape(-1, *[1] * (2 - axis))
        high = np.minimum(low + 1, size - 1)
        a = np.take(a, low, axis) * (1 - part) + np.take(a, high, axis) * part
    return a


BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
# By how much a filter may magnify an error of its input: the sum of its weights' absolute values, at most 1 where
# none is negative; halfway between samples, 1/16 + 9/16 + 9/16 + 1/16 of the cubic with a = -1/2, along both axes.
AVERAGE, CUBIC = 1.0, 1.25**2
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
# Resized levels, what they make of an error at most, and the mean and standard deviation that follow.
PRESETS = {
    "keras": (lambda a: by_pillow(a, (SIDE, SIDE), BILINEAR), AVERAGE, 0.5, 0.5),
    "torchvision": (lambda a: by_pillow(a, short_side(a.shape[:2], 342), BILINEAR), AVERAGE, MEAN, STD),
    "torchvision-transform-input": (lambda a: by_pillow(a, short_side(a.shape[:2], 342), BILINEAR), AVERAGE, 0.5, 0.5),
    "timm": (lambda a: by_pillow(a, short_side(a.shape[:2], 341), BICUBIC), CUBIC, 0.5, 0.5),
    "fid": (lambda a: no_antialias(a.astype(np.float64)), AVERAGE, 0.5, 0.5),
    "fid-clean": (lambda a: by_pillow(a, (SIDE, SIDE), BICUBIC), CUBIC, 128 / 255, 128 / 255),
    "fid-torch-fidelity": (lambda a: no_antialias(a.astype(np.float64), 0.0), AVERAGE, 128 / 255, 128 / 255),
}


class Comparison:
    def __init__(self, tuner, folder):
        self.tuner, self.folder, self.failures = tuner, folder, 0

    def report(self, fine, text):
        self.failures += not fine
        if not fine:
            print(f"WRONG {text}")

    def run(self, files, *options):
        out = self.folder / "input.npy"
        out.unlink(missing_ok=True)
        command = [self.tuner, "run", "--model", "stem", "--results", str(self.folder), *options]
        command += ["--write-input", str(out), "--image", *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True)
        return done, np.load(out) if done.returncode == 0 else None

    def values(self, files, *options):
        done, values = self.run(files, *options)
        if done.returncode == 0:
            return list(values)
        # One by one, to find those that are refused.
        results = []
        for file in files:
            done, values = self.run([file], *options)
            self.report(done.returncode == 0, f"{file.name} {options}: {done.stderr.strip().splitlines()[-1:]}")
            results.append(values[0] if done.returncode == 0 else None)
        return results

    def compare(self, files, expected, mean, std, bound, one_more, *options):
        worst = 0.0
        for file, values, levels in zip(files, self.values(files, *options), expected):
            if values is not None:
                errors = np.abs((values * std + mean) * 255 - levels)
                error = float(errors.max())
                worst = max(worst, error)
                fine = error <= bound + one_more * (file.suffix == ".jpg") and (errors > bound).mean() * ONE_IN <= 1
                self.report(fine, f"{file.name} {options}: {error:.3f} levels from Pillow")
        print(f"{len(files)} files {' '.join(options)}: at most {worst:.4f} levels from Pillow")

    def refusals(self, files):
        refused = 0
        for name, data in files:
            for length in sorted({1, 30, len(data) // 2, len(data) * 9 // 10, len(data) - 40, len(data) - 2}):
                path = self.folder / f"cut_{name}"
                path.write_bytes(data[:length])
                try:
                    Image.open(path).convert("RGB")
                except Exception:
                    done, _ = self.run([path])
                    last = done.stderr.strip().splitlines()[-1:]
                    fine = done.returncode == 2 and last and path.name in last[0]
                    self.report(fine, f"{name} cut to {length}: exit {done.returncode}, {last}")
                    refused += 1
        print(f"{refused} truncated files that Pillow refuses are refused")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tuner", required=True, help="the program")
    parser.add_argument("--keep", type=pathlib.Path, help="make the files here and keep them")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or pathlib.Path(temporary)
        folder.mkdir(exist_ok=True)
        comparison = Comparison(args.tuner, folder)
        a = picture()
        whole = [*jpegs(a), *pngs(a), *others(a)]
        resized = list(sizes())
        for name, data in whole + resized:
            (folder / name).write_bytes(data)
        files = [folder / name for name, _ in whole]
        pillow = [levels(Image.open(file)) for file in files]
        comparison.compare(files, pillow, 0.5, 0.5, LEVELS, 1, "--preprocess", "keras")
        lying = [file for file in files if file.stem == "lying"]
        upright = [levels(ImageOps.exif_transpose(Image.open(file))) for file in lying]
        comparison.compare(lying, upright, 0.5, 0.5, LEVELS, 1, "--preprocess", "keras", "--exif")
        files = [folder / name for name, _ in resized]
        pillow = [levels(Image.open(file)) for file in files]
        for name, (resize, gain, mean, std) in PRESETS.items():
            # What a lossy file is decoded to differs by up to LEVELS before it is resized.
            for bound, suffix in ((FILTER_LEVELS, ".png"), (LEVELS * gain, ".jpg")):
                some = [(file, levels) for file, levels in zip(files, pillow) if file.suffix == suffix]
                expected = [resize(levels) for _, levels in some]
                comparison.compare([file for file, _ in some], expected, mean, std, bound, gain, "--preprocess",
                                   name)
        cut = ("base.jpg", "progressive.jpg", "rgb.png", "lossy.webp", "lossless.webp", "rgb.bmp", "palette.gif",
               "rgb_raw.tif", "rgb_lzw.tif", "jpeg.tif")
        # Samples of Y, Cb and Cr that are not in a JPEG are no RGB.
        path = folder / "ycc.tif"
        path.write_bytes(encode(Image.fromarray(a).convert("YCbCr"), "TIFF"))
        done, _ = comparison.run([path])
        comparison.report(done.returncode == 2 and "YCbCr" in done.stderr, f"ycc.tif: exit {done.returncode}")
        comparison.refusals([(name, data) for name, data in whole if name in cut])
    sys.exit(comparison.failures > 0)


if __name__ == "__main__":
    main()
