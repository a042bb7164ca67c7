#!/usr/bin/env python3
"""Write small valid files of every format that is read to corpus/<target>/, for fuzzing.

    python tests/fuzz/make_corpus.py [--plan PLAN.json --log measurements.jsonl]

needs h5py, numpy, pillow and safetensors.  PyTorch's files are those of tests/fixtures/weights, which
make_torch.py there writes.  A plan and a log are of any tuning of
`--model conv2d_bn --shape n1h200w200c64k64r3s3 --batch 4`; of long ones the first parts are taken.
"""

import argparse
import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from safetensors.numpy import save

FUZZ = Path(__file__).parent
TESTS = FUZZ.parent
CORPUS = FUZZ / "corpus"

# The tensors of the convolution n1h3w3c2k3r1s1.
random = np.random.default_rng(7)
KERNEL = random.uniform(-1, 1, (1, 1, 2, 3)).astype(np.float32)
GAMMA, BETA, MEAN, VARIANCE = random.uniform(0.1, 1, (4, 3)).astype(np.float32)


def put(target: str, name: str, content: bytes | str) -> None:
    """Write a file of a corpus."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def torch_tensors(dtype: str) -> dict[str, np.ndarray]:
    """By torchvision's names."""
    tensors = {
        "conv.weight": KERNEL.transpose(3, 2, 0, 1),
        "bn.weight": GAMMA,
        "bn.bias": BETA,
        "bn.running_mean": MEAN,
        "bn.running_var": VARIANCE,
    }
    named = {f"conv2d_bn.{name}": np.ascontiguousarray(value, dtype) for name, value in tensors.items()}
    return {**named, "conv2d_bn.bn.num_batches_tracked": np.array(3, np.int64)}


def safetensors() -> None:
    """One file a type, and an index of the file that the tests put beside it."""
    put("safetensors", "conv2d_bn", save(torch_tensors("f4")))
    put("safetensors", "f16", save(torch_tensors("f2"), metadata={"format": "pt"}))
    put("safetensors", "f64", save(torch_tensors("f8")))
    names = torch_tensors("f4")
    index = {"metadata": {"total_size": 100}, "weight_map": dict.fromkeys(names, "part.safetensors")}
    put("safetensors_index", "index", json.dumps(index))
    put("safetensors_index", "absent", json.dumps({"weight_map": {"a": "none.safetensors"}}))
    put("safetensors_index", "outside", json.dumps({"weight_map": {"a": "../part.safetensors"}}))


def keras3(file: h5py.File, **options: object) -> None:
    """The groups of Keras 3."""
    for layer, values in ("conv2d", [KERNEL]), ("batch_normalization", [GAMMA, BETA, MEAN, VARIANCE]):
        group = file.create_group(f"layers/{layer}/vars")
        group.attrs["name"] = layer
        for number, value in enumerate(values):
            group.create_dataset(str(number), data=value, **options)


def hdf5_bytes(fill, **options: object) -> bytes:
    """An HDF5 file in memory."""
    memory = io.BytesIO()
    with h5py.File(memory, "w", **options) as file:
        fill(file)
    return memory.getvalue()


def legacy(file: h5py.File) -> None:
    """The groups of earlier versions of Keras, with what a saved model says of itself."""
    file.attrs["model_config"] = json.dumps(config())
    file.attrs["layer_names"] = [b"conv2d", b"batch_normalization"]
    variables = {"gamma:0": GAMMA, "beta:0": BETA, "moving_mean:0": MEAN, "moving_variance:0": VARIANCE}
    for layer, values in ("conv2d", {"kernel:0": KERNEL}), ("batch_normalization", variables):
        group = file.create_group(f"model_weights/{layer}/{layer}")
        for name, value in values.items():
            group[name] = value
    file["soft"] = h5py.SoftLink("/model_weights")


def odd(file: h5py.File) -> None:
    """Layouts and types that Keras does not write."""
    file.create_dataset("big", data=KERNEL.astype(">f4"))
    file.create_dataset("f64", data=KERNEL.astype("f8"), chunks=(1, 1, 1, 3), compression="gzip", shuffle=True)
    file.create_dataset("checked", data=GAMMA, chunks=(2,), fletcher32=True, maxshape=(None,))
    file.create_dataset("empty", shape=(0, 3), dtype="f4")
    file.create_dataset("half", data=GAMMA.astype("f2"))
    file.create_dataset("whole", data=np.arange(3))
    file.create_dataset("filled", shape=(3,), dtype="f4", fillvalue=2.5)
    file.create_dataset("text", data="text")
    compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    compact.set_layout(h5py.h5d.COMPACT)
    space, kind = h5py.h5s.create_simple((3,)), h5py.h5t.IEEE_F32LE
    h5py.h5d.create(file.id, b"compact", kind, space, compact).write(h5py.h5s.ALL, h5py.h5s.ALL, GAMMA)


def hdf5() -> None:
    """Both generations of HDF5's own format."""
    put("hdf5", "keras3", hdf5_bytes(keras3))
    put("hdf5", "latest", hdf5_bytes(keras3, libver="latest"))
    put("hdf5", "gzip", hdf5_bytes(lambda file: keras3(file, chunks=True, compression="gzip"), libver="latest"))
    put("hdf5", "legacy", hdf5_bytes(legacy))
    put("hdf5", "odd", hdf5_bytes(odd))
    put("hdf5", "odd_latest", hdf5_bytes(odd, libver="latest"))


def layer(kind: str, name: str, inbound: str | None, **values: object) -> dict:
    """A layer of a functional model's description, as Keras 3 saves it."""
    tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": [inbound, 0, 0]}}
    nodes = [{"args": [tensor], "kwargs": {}}] if inbound else []
    return {"class_name": kind, "name": name, "config": {"name": name, **values}, "inbound_nodes": nodes}


def config() -> dict:
    """A convolution, its BatchNorm, and a head."""
    layers = [
        layer("InputLayer", "input", None, batch_shape=[None, 3, 3, 2]),
        layer("Conv2D", "conv2d", "input", filters=3, kernel_size=[1, 1], use_bias=False, activation="linear"),
        layer("BatchNormalization", "batch_normalization", "conv2d", epsilon=0.001, scale=True),
        layer("Activation", "activation", "batch_normalization", activation="relu"),
        layer("GlobalAveragePooling2D", "avg_pool", "activation"),
        layer("Dense", "predictions", "avg_pool", units=2, activation="softmax"),
    ]
    ends = {"input_layers": [["input", 0, 0]], "output_layers": [["predictions", 0, 0]]}
    return {"class_name": "Functional", "config": {"name": "model", "layers": layers, **ends}}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive; the same bytes whenever it is made."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", compression) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            archive.writestr(info, content)
    return memory.getvalue()


def archives() -> None:
    """Keras's archives, and both formats of PyTorch."""
    description = json.dumps(config()).encode()
    members = {"metadata.json": b"{}", "config.json": description, "model.weights.h5": hdf5_bytes(keras3)}
    put("keras", "stored", zipped(members))
    put("keras", "deflated", zipped(members, zipfile.ZIP_DEFLATED))
    put("keras", "latest", zipped({**members, "model.weights.h5": hdf5_bytes(keras3, libver="latest")}))
    for name in "torch.pt", "torch_legacy.pth":
        put("torch", name, (TESTS / "fixtures/weights" / name).read_bytes())


def npy_bytes(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    """A file of numpy."""
    memory = io.BytesIO()
    np.lib.format.write_array(memory, array, version=version)
    return memory.getvalue()


def arrays() -> None:
    """Images [n, 2, 3, 2], matrices [2, 3], and statistics of three features."""
    images = random.uniform(-1, 1, (2, 2, 3, 2)).astype(np.float32)
    put("npy", "images", npy_bytes(images))
    put("npy", "fortran", npy_bytes(np.asfortranarray(images)))
    put("npy", "version2", npy_bytes(images, (2, 0)))
    put("npy", "f64", npy_bytes(images[0, 0, :, :].T.astype("f8")))
    put("npy", "f32", npy_bytes(images[0, 0, :, :].T.copy()))
    put("npy", "record", npy_bytes(np.zeros(2, [("a", "f4"), ("b", "i8")])))
    for name in "deflated.npz", "stored_f32.npz":
        put("npz", name, (TESTS / "fid" / name).read_bytes())
    covariance = np.eye(3) + 0.1
    members = {"mu": np.zeros(3), "sigma": covariance, "count": np.array(20)}
    put("npz", "count", zipped({f"{name}.npy": npy_bytes(value) for name, value in members.items()}))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image as Pillow writes it."""
    memory = io.BytesIO()
    image.save(memory, kind, **options)
    return memory.getvalue()


def photographs() -> None:
    """Images of 12x9 pixels in the variants of each format."""
    y, x = np.mgrid[0:9, 0:12]
    rgb = Image.fromarray(np.stack([x * 20, y * 25, (x + y) * 12], -1).astype(np.uint8))
    grey, palette, alpha = rgb.convert("L"), rgb.quantize(16), rgb.convert("RGBA")
    deep = Image.fromarray((x * 5000).astype(np.uint16))
    exif = Image.Exif()
    exif[274] = 6
    put("jpeg", "baseline", saved(rgb, "JPEG", exif=exif))
    put("jpeg", "progressive", saved(rgb, "JPEG", progressive=True, quality=30))
    put("jpeg", "grey", saved(grey, "JPEG"))
    put("jpeg", "cmyk", saved(rgb.convert("CMYK"), "JPEG", subsampling=0))
    put("jpeg", "restart", saved(rgb.resize((40, 24)), "JPEG", restart_marker_rows=1))
    for name, image in dict(rgb=rgb, grey=grey, palette=palette, alpha=alpha, deep=deep, bits=grey.convert("1")).items():
        put("png", name, saved(image, "PNG"))
    put("png", "exif", saved(rgb, "PNG", exif=exif))
    put("webp", "lossy", saved(rgb, "WEBP", quality=50))
    put("webp", "lossless", saved(rgb, "WEBP", lossless=True))
    put("webp", "alpha", saved(alpha, "WEBP", quality=50, exif=exif))
    put("webp", "animated", saved(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)]))
    for name, image in dict(rgb=rgb, grey=grey, palette=palette, alpha=alpha, bits=grey.convert("1")).items():
        put("bmp", name, saved(image, "BMP"))
    for name in None, "tiff_deflate", "tiff_lzw", "packbits", "jpeg":
        put("tiff", name or "raw", saved(rgb, "TIFF", compression=name))
    for name, image in dict(palette=palette, deep=deep, cmyk=rgb.convert("CMYK"), bits=grey.convert("1")).items():
        put("tiff", name, saved(image, "TIFF"))
    put("tiff", "fax", saved(grey.convert("1"), "TIFF", compression="group4"))
    put("gif", "palette", saved(palette, "GIF"))
    put("gif", "interlaced", saved(palette, "GIF", interlace=1, transparency=3))
    put("gif", "animated", saved(palette, "GIF", save_all=True, append_images=[palette.rotate(90)]))


def texts() -> None:
    """Labels, shapes and words."""
    put("labels", "lines", "cat\ndog\nhorse\n")
    put("labels", "two", "\ufeffcat\r\ndog\r\n")
    put("labels", "list", json.dumps(["cat", "dog", "horse"]))
    put("labels", "index", json.dumps({"0": ["n01", "cat"], "1": ["n02", "dog"]}))
    put("labels", "indices", json.dumps({"cat": 0, "dog": 1, "horse": 2}))
    put("shape_list", "list", "# a list\nn1h9w9c16k24r3s3 *4  # twice two\n\nn2h9w9c16k24r3s3u2same*2\n")
    put("shape_list", "segments", "n1h35w35c192k64+48+64r1s1\nn1h17w17c768k192r1s7p0q3\n")
    for name, text in dict(
        plain="n1h17w17c768k192r1s7", stride="n2h9w9c4k8r3s3u2-1p0-1q1", same="n1h9w9c4k8r3s3u2same",
        segments="n1h35w35c192k64+48r1s1", norms="n1h9w9c16k24r3s3bn2", size="299x150x1", tier="avx512bf16",
    ).items():
        put("shape", name, text)
    lines = dict(
        tune="--model inception_v3 --threads 2 --batch 8 --precision bf16 --budget 20 --fresh",
        run="run --model conv2d_bn --shape n1h9w9c16k24r3s3 --image a.jpg b.png --weights w.h5 --features --output y.npy",
        preprocess="run --model inception_v3 --image a --preprocess torchvision --resize 256 --crop 224 --mean 0.5,0.5,0.5",
        fid="fid real fake --kid --save-stats s.npz", check="check --shape n1h9w9c16k24r3s3 --kernel direct_f32_avx2",
        explain="explain mixed4.branch7x7_2 --plan p.json", report="report --out report --plan p.json",
        compare="compare a.json b.json --live", merge="merge a.jsonl b.jsonl --out c.jsonl",
        bench="bench --shape n1h9w9c16k24r3s3 --json", shapes="tune --shapes - --isa avx2", size="shapes --model inception_v3 --size 150x200",
    )
    for name, words in lines.items():
        put("command_line", name, words.replace(" ", "\n"))


def plans(plan: Path) -> None:
    """A plan with its measurements cut, without them, and of a list."""
    whole = json.loads(plan.read_text())
    for problem in whole["measurements"]:
        problem["candidates"] = problem["candidates"][:2]
    put("plan", "measured", json.dumps(whole))
    put("plan", "steps", json.dumps({**whole, "measurements": []}))


def log(path: Path) -> None:
    """A line of each kind, of one problem."""
    kept: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        values = json.loads(line)
        if "list" in values:
            values["list"] = values["list"][:2]
        kept.setdefault(values["line"], []).append(json.dumps(values))
    put("log", "lines", "".join(line + "\n" for lines in kept.values() for line in lines[:2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    for step in safetensors, hdf5, archives, arrays, photographs, texts:
        step()
    if given.plan:
        plans(given.plan)
    if given.log:
        log(given.log)


if __name__ == "__main__":
    main()
