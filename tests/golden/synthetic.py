#!/usr/bin/env python3
"""Golden values of InceptionV3 with synthetic weights and a synthetic image.

    python tests/golden/synthetic.py [--out tests/golden/synthetic.json]

needs tensorflow-cpu and keras (made with tensorflow-cpu 2.21.0, keras 3.15.1,
numpy 2.4.6); everything is computed in float64.  The numpy-only functions
(`unit`, `uniform`, `conv_weights`, `dense_weights`, `image`) may be imported
without TensorFlow.

Contract of the synthetic data.  With SEED = 1 and all integers mod 2^64:

    z = SEED + stream*0xD1B54A32D192ED03 + (i+1)*0x9E3779B97F4A7C15
    z ^= z>>30; z *= 0xBF58476D1CE4E5B9; z ^= z>>27; z *= 0x94D049BB133111EB; z ^= z>>31
    unit(stream, i) = ((z>>40) + 0.5) / 2^24
    uniform(stream, i, lo, hi) = f32(lo + (hi-lo)*unit(stream, i))

Convolution j (0..93, in Keras creation order) draws kernel, beta, moving mean and
moving variance from streams 8j, 8j+1, 8j+2, 8j+3; the dense layer its kernel and
bias from 1_000_000 and 1_000_001; image n of a batch from 2_000_000+n; the sampled
positions of checkpoint m from 3_000_000+m.

Contract of the file: `checkpoints` (Keras average pooling: the border is not counted)
and `torchvision` (the border is counted) are lists of

    {"name", "number", "shape": [h,w,c], "mean", "rms", "samples": [[flat_index, value], ...]}

with flat_index = floor(unit(3_000_000 + number, i) * h*w*c), i in 0..200; an index
may repeat.  "features" and "probabilities" hold all their "values" instead.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

import numpy as np

SEED = 1
CONVS = 94
CLASSES = 1000
SAMPLES = 200
DENSE_STREAM, IMAGE_STREAM, SAMPLE_STREAM = 1_000_000, 2_000_000, 3_000_000
MASK = (1 << 64) - 1

STEM = ["stem.conv1a", "stem.conv2a", "stem.conv2b", "stem.pool1", "stem.conv3b", "stem.conv4a", "stem.pool2"]
MIXED = [f"mixed{i}" for i in range(11)]
CHECKPOINTS = STEM + MIXED + ["features", "probabilities"]


# --- synthetic data (numpy only) -------------------------------------------------------


def unit(stream: int, count: int) -> np.ndarray:
    """unit(stream, i) for i in 0..count, as float64 in (0, 1), exact."""
    start = (SEED + stream * 0xD1B54A32D192ED03) & MASK
    z = np.arange(1, count + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z *= np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(start)
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float64) + 0.5) / 2.0**24


def uniform(stream: int, shape: tuple[int, ...], lo: float, hi: float) -> np.ndarray:
    """A float32 array of `shape`, drawn in C order."""
    values = lo + (hi - lo) * unit(stream, int(np.prod(shape)))
    return values.astype(np.float32).reshape(shape)


def conv_weights(j: int, shape: tuple[int, int, int, int]) -> dict[str, np.ndarray]:
    """Kernel (HWIO) and BN vectors of convolution j."""
    r, s, c, k = shape
    limit = float(np.sqrt(6.0 / (r * s * c)))
    return {
        "kernel": uniform(8 * j, shape, -limit, limit),
        "beta": uniform(8 * j + 1, (k,), -0.1, 0.1),
        "moving_mean": uniform(8 * j + 2, (k,), -0.1, 0.1),
        "moving_variance": uniform(8 * j + 3, (k,), 0.75, 1.25),
    }


def dense_weights(inputs: int = 2048, outputs: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [in, out] and bias of the classifier."""
    limit = float(np.sqrt(3.0 / inputs))
    kernel = uniform(DENSE_STREAM, (inputs, outputs), -limit, limit)
    return kernel, uniform(DENSE_STREAM + 1, (outputs,), -0.1, 0.1)


def image(n: int, height: int = 299, width: int = 299, channels: int = 3) -> np.ndarray:
    """Image n of a batch, [h, w, c] float32 in (-1, 1)."""
    noise = unit(IMAGE_STREAM + n, height * width * channels).reshape(height, width, channels)
    y, x, c = np.indices((height, width, channels))
    c %= 3
    ramp = ((y * (c + 1) + x * (3 - c)) % 299) / 298.0
    return (noise - 0.5 + ramp - 0.5).astype(np.float32)


# --- Keras -----------------------------------------------------------------------------


def import_keras():
    """Keras on TensorFlow in float64, without its start-up chatter."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import keras

    keras.backend.set_floatx("float64")
    return keras


def creation_number(name: str) -> int:
    """conv2d -> 0, conv2d_1 -> 1, ...: Keras numbers automatic names as it makes layers."""
    match = re.fullmatch(r".*?_(\d+)", name)
    return int(match.group(1)) if match else 0


def conv_bn_pairs(model) -> list[tuple]:
    """The (conv, bn) layers in creation order; each bn is the conv's one consumer in the graph."""
    convs = [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]
    convs.sort(key=lambda layer: creation_number(layer.name))
    pairs = []
    for conv in convs:
        (consumer,) = conv._outbound_nodes
        assert type(consumer.operation).__name__ == "BatchNormalization", conv.name
        pairs.append((conv, consumer.operation))
    assert len(pairs) == CONVS
    return pairs


def build_model(keras):
    """InceptionV3 with its 1000-class head."""
    return keras.applications.InceptionV3(weights=None, classes=CLASSES)


def count_border(keras, model):
    """A copy of `model`, weights included, whose 3x3 average pools count the zero border."""

    class CountedAveragePooling2D(keras.layers.Layer):
        def call(self, x):
            padded = keras.ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
            return keras.ops.average_pool(padded, pool_size=3, strides=1, padding="valid")

    replaced = []

    def clone(layer):
        if type(layer).__name__ != "AveragePooling2D":
            return type(layer).from_config(layer.get_config())
        assert (layer.pool_size, layer.strides, layer.padding) == ((3, 3), (1, 1), "same")
        replaced.append(layer.name)
        return CountedAveragePooling2D(name=layer.name)

    copy = keras.models.clone_model(model, clone_function=clone)
    assert len(replaced) == 9, replaced
    copy.set_weights(model.get_weights())
    return copy


def set_synthetic(model) -> None:
    """Every weight of `model` as the contract says."""
    for j, (conv, bn) in enumerate(conv_bn_pairs(model)):
        assert not bn.scale and abs(bn.epsilon - 1e-3) < 1e-12
        w = conv_weights(j, tuple(conv.kernel.shape))
        conv.set_weights([w["kernel"]])
        bn.set_weights([w["beta"], w["moving_mean"], w["moving_variance"]])
    model.get_layer("predictions").set_weights(list(dense_weights()))


def checkpoint_tensors(model) -> dict[str, object]:
    """The symbolic tensor of every checkpoint, in the order of CHECKPOINTS."""
    pairs = conv_bn_pairs(model)
    relu = [bn._outbound_nodes[0].operation.output for _, bn in pairs[:5]]
    pools = [layer for layer in model.layers if type(layer).__name__ == "MaxPooling2D"]
    pools.sort(key=lambda layer: creation_number(layer.name))
    stem = [relu[0], relu[1], relu[2], pools[0].output, relu[3], relu[4], pools[1].output]
    mixed = [model.get_layer(name).output for name in MIXED]
    return dict(zip(CHECKPOINTS, stem + mixed + [model.get_layer("avg_pool").output, model.output], strict=True))


# --- the file --------------------------------------------------------------------------


def digits(value: float) -> float:
    """Nine significant digits: enough to tell every float32 apart."""
    return float(f"{value:.9g}")


def checkpoint(name: str, value: np.ndarray) -> dict:
    """One entry of the file; `value` has no batch axis."""
    number = CHECKPOINTS.index(name)
    flat = value.reshape(-1)
    entry = {
        "name": name,
        "number": number,
        "shape": list(value.shape),
        "mean": digits(flat.mean()),
        "rms": digits(np.sqrt(np.mean(flat * flat))),
    }
    if name in ("features", "probabilities"):
        entry["values"] = [digits(v) for v in flat]
    else:
        indices = np.floor(unit(SAMPLE_STREAM + number, SAMPLES) * flat.size).astype(np.int64)
        entry["samples"] = [[int(i), digits(flat[i])] for i in indices]
    return entry


def run(keras, model, names: list[str]) -> list[dict]:
    tensors = checkpoint_tensors(model)
    probe = keras.Model(model.inputs, [tensors[name] for name in names])
    outputs = probe.predict_on_batch(image(0)[None].astype(np.float64))
    for name, output in zip(names, outputs, strict=True):
        assert output.dtype == np.float64, (name, output.dtype)
    return [checkpoint(name, output[0]) for name, output in zip(names, outputs, strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description="write the golden values of the synthetic InceptionV3")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()

    keras = import_keras()
    import tensorflow as tf

    model = build_model(keras)
    set_synthetic(model)
    entries = run(keras, model, CHECKPOINTS)
    counted = run(keras, count_border(keras, model), MIXED + ["features"])
    for entry in entries:
        print(f"{entry['name']:14} {str(entry['shape']):16} rms {entry['rms']:.4g}", file=sys.stderr)

    head = {
        "model": "keras.applications.InceptionV3(weights=None, classes=1000)",
        "dtype": "float64",
        "seed": SEED,
        "versions": {
            "python": sys.version.split()[0],
            "numpy": np.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    for key, part, end in (("checkpoints", entries, ","), ("torchvision", counted, "")):
        body = ",\n  ".join(json.dumps(entry, separators=(",", ":")) for entry in part)
        lines.append(f' "{key}": [\n  {body}\n ]{end}')
    temporary = args.out.with_name(args.out.name + ".part")
    temporary.write_text("{\n" + "\n".join(lines) + "\n}\n")
    json.loads(temporary.read_text())
    temporary.replace(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
