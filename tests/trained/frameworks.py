#!/usr/bin/env python3
"""Compares what `tuner run` makes of files that PyTorch and Keras have written with what they compute themselves.

    python tests/trained/frameworks.py torch --cache DIR --tuner target/release/tuner
    python tests/trained/frameworks.py keras --cache DIR --tuner target/release/tuner

DIR is the folder of fetch.py. `torch` needs torch, torchvision and safetensors; `keras` needs keras with any backend,
and h5py. Each writes the trained network in every format of the framework, with heads as people fine-tune them, into a
temporary folder, and runs two photographs through it on both sides. Outputs and features may differ by BOUND, as
relative L2 of all values. Exit status 1 if one differs by more, or a file is refused that should not be.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

BOUND = 1e-5
IMAGES = 2


class Check:
    """Runs the tuner on files, and counts what is wrong."""

    def __init__(self, tuner: Path, folder: Path, images: np.ndarray):
        self.tuner, self.folder, self.wrong, self.compared = tuner, folder, [], 0
        self.images = images
        np.save(folder / "x.npy", images)

    def run(self, file: str, *options: str, images: str = "x.npy") -> subprocess.CompletedProcess:
        command = [self.tuner, "run", "--model", "inception_v3", "--weights", file, "--input", images]
        return subprocess.run([*command, "--output", "y.npy", *options], cwd=self.folder, capture_output=True, text=True)

    def same(self, what: str, file: str, expected: np.ndarray, *options: str, images: str = "x.npy") -> None:
        """The output for a file is that of the framework."""
        done, self.compared = self.run(file, *options, images=images), self.compared + 1
        if done.returncode:
            self.fail(what, done.stderr.strip().splitlines()[-1])
            return
        found, expected = np.load(self.folder / "y.npy").astype(np.float64), expected.astype(np.float64)
        if found.shape != expected.shape:
            self.fail(what, f"shape {found.shape}, expected {expected.shape}")
            return
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        print(f"  {error:.1e}  {what}")
        if not error <= BOUND:
            self.fail(what, f"relative error {error:.1e}")

    def refused(self, what: str, file: str, text: str, *options: str) -> None:
        """The tuner ends with status 2 and a line that says so."""
        done, self.compared = self.run(file, *options), self.compared + 1
        last = (done.stderr.strip().splitlines() or [""])[-1]
        print(f"  refused  {what}: {last}")
        if done.returncode != 2 or text not in last:
            self.fail(what, f"exit status {done.returncode}, `{last}`, expected 2 and `{text}`")

    def fail(self, what: str, why: str) -> None:
        self.wrong.append(f"{what}: {why}")


def check_torch(check: Check, cache: Path) -> None:
    import torch
    import torchvision
    from safetensors.torch import load_file, save_file
    from torch import nn

    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
    torch.manual_seed(1)
    folder, images = check.folder, torch.from_numpy(check.images.transpose(0, 3, 1, 2).copy())
    model = torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=False)
    model.load_state_dict(load_file(cache / "inception_v3.safetensors"))
    model.eval()
    classes, model.fc = model.fc, nn.Identity()
    trunk = model.state_dict()

    def features_of(state: dict) -> "torch.Tensor":
        model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        with torch.no_grad():
            return model(images)

    def with_head(head: nn.Module) -> dict:
        return {**trunk, **{f"fc.{name}": tensor for name, tensor in head.state_dict().items()}}

    def numpy(tensor: "torch.Tensor") -> np.ndarray:
        return tensor.detach().numpy()

    features = features_of(trunk)
    state, softmax = with_head(classes), numpy(classes(features).softmax(1))
    torch.save(state, folder / "zip.pth")
    check.same("state_dict in a zip archive", "zip.pth", softmax)
    check.same("its features", "zip.pth", numpy(features), "--features")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    check.same("state_dict as before PyTorch 1.6", "legacy.pth", softmax)

    optimizer = torch.optim.SGD(classes.parameters(), lr=1e-9, momentum=0.9)
    classes(features).sum().backward()
    before = {name: tensor.clone() for name, tensor in state.items()}
    optimizer.step()
    wrapped = {f"module.{name}": tensor for name, tensor in before.items()}
    checkpoint = {"epoch": 3, "state_dict": wrapped, "optimizer": optimizer.state_dict(), "best_acc1": torch.tensor(0.5)}
    torch.save(checkpoint, folder / "checkpoint.pt")
    check.same("checkpoint of DataParallel with its optimizer", "checkpoint.pt", softmax)
    compiled = {f"_orig_mod.model.{name}": tensor.contiguous() for name, tensor in before.items()}
    save_file(compiled, folder / "compiled.safetensors")
    check.same("prefixes of torch.compile and a wrapper", "compiled.safetensors", softmax)
    auxiliary = torchvision.models.inception_v3(weights=None, init_weights=False).state_dict()
    save_file({**auxiliary, **before}, folder / "auxiliary.safetensors")
    check.same("with AuxLogits", "auxiliary.safetensors", softmax)

    names = sorted(before)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: before[name] for name in part}, folder / file)
    index = {name: file for file, part in shards.items() for name in part}
    text = str({"metadata": {}, "weight_map": index}).replace("'", '"')
    (folder / "model.safetensors.index.json").write_text(text)
    check.same("two files and their index", "model.safetensors.index.json", softmax)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        narrow = {name: tensor.to(dtype) for name, tensor in before.items() if tensor.is_floating_point()}
        expected = features_of({name: tensor for name, tensor in narrow.items() if not name.startswith("fc.")})
        for file, save in [("narrow.safetensors", save_file), ("narrow.pth", torch.save)]:
            save(narrow, folder / file)
            check.same(f"{dtype} in {file}", file, numpy(expected), "--features")
    features_of(trunk)

    linear, norm = nn.Linear, nn.BatchNorm1d
    heads = [
        ("one output", linear(2048, 1), torch.sigmoid, ()),
        ("several labels", linear(2048, 5), torch.sigmoid, ("--head", "sigmoid")),
        ("logits", linear(2048, 5), lambda logits: logits, ("--head", "logits")),
        ("Dropout before", nn.Sequential(nn.Dropout(0.5), linear(2048, 5)), None, ()),
        ("BatchNorm before", nn.Sequential(norm(2048), linear(2048, 5)), None, ()),
        ("two layers", nn.Sequential(linear(2048, 64), nn.ReLU(), nn.Dropout(0.5), linear(64, 5)), None, ()),
        ("ReLU, BatchNorm", nn.Sequential(linear(2048, 64), nn.ReLU(), norm(64), linear(64, 5)), None, ()),
        ("BatchNorm, ReLU", nn.Sequential(linear(2048, 64), norm(64), nn.ReLU(), linear(64, 5)), None, ()),
        ("no bias", linear(2048, 5, bias=False), None, ()),
    ]
    for what, head, end, options in heads:
        for layer in head.modules():
            if isinstance(layer, norm):
                for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                    nn.init.uniform_(tensor, 0.5, 1.5)
        head.eval()
        end = end or (lambda logits: logits.softmax(1))
        torch.save(with_head(head), folder / "head.pth")
        check.same(f"head: {what}", "head.pth", numpy(end(head(features))), *options)
    next_to_it = {f"backbone.{name}": tensor for name, tensor in trunk.items()}
    head = linear(2048, 5)
    next_to_it |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    torch.save({"state_dict": next_to_it, "callbacks": {}, "epoch": 1}, folder / "next.pth")
    check.same("head next to the backbone", "next.pth", numpy(head(features).softmax(1)))
    torch.save({**next_to_it, "temperature": torch.tensor(2.0)}, folder / "next.pth")
    check.refused("a number next to them", "next.pth", "temperature")
    torch.save(with_head(nn.Sequential(linear(2048, 64), nn.PReLU(), linear(64, 5))), folder / "head.pth")
    check.refused("head: PReLU", "head.pth", "fc.1.weight")
    check.same("its features", "head.pth", numpy(features), "--features")
    torch.save(model, folder / "module.pth")
    check.refused("a whole module", "module.pth", "torchvision.models.inception.Inception3")

    def other_images(part: np.ndarray, what: str, *options: str) -> None:
        np.save(folder / "part.npy", part)
        torch.save(model.state_dict(), folder / "part.pth")
        with torch.no_grad():
            expected = numpy(model(torch.from_numpy(part.transpose(0, 3, 1, 2).copy())))
        check.same(what, "part.pth", expected, *options, "--features", images="part.npy")

    for height, width in [(75, 75), (150, 200), (299, 320)]:
        part = np.pad(check.images, [(0, 0), (0, 0), (0, 21), (0, 0)], mode="reflect")[:, :height, :width]
        other_images(part, f"images of {height}x{width}", "--size", f"{height}x{width}")
    for channels in (1, 4, 16):
        model.Conv2d_1a_3x3.conv = nn.Conv2d(channels, 32, 3, stride=2, bias=False)
        part = np.random.default_rng(1).uniform(-1, 1, (IMAGES, 139, 139, channels)).astype(np.float32)
        other_images(part, f"images of {channels} channels", "--size", "139x139")


def check_keras(check: Check, cache: Path) -> None:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    # Most of the time would go into compiling what runs once.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    logging.getLogger("absl").setLevel(logging.ERROR)
    import keras
    from keras import layers

    print(f"keras {keras.__version__} by {keras.backend.backend()}")
    keras.utils.set_random_seed(1)
    folder, images = check.folder, check.images

    def network(**options):
        return keras.applications.InceptionV3(weights=None, **options)

    def predict(model, inputs=images):
        return keras.tree.map_structure(np.asarray, model(inputs, training=False))

    full = network(classifier_activation="softmax")
    full.load_weights(cache / "legacy.h5")
    blocks, pooled = (full.get_layer(name).output for name in ("mixed10", "avg_pool"))
    before_head, features, softmax = predict(keras.Model(full.input, [blocks, pooled, full.output]))
    trained = full.get_weights()[:-2]
    for file in ("whole.keras", "whole.h5"):
        full.save(folder / file)
        check.same(f"whole network in {file}", file, softmax)
    full.save_weights(folder / "whole.weights.h5")
    check.same("weights alone", "whole.weights.h5", softmax)
    check.same("its features", "whole.weights.h5", features, "--features")

    def trunk(**options):
        base = network(include_top=False, **options)
        base.set_weights(trained)
        return base

    def norm(**options):
        uniform = keras.initializers.RandomUniform(0.5, 1.5)
        values = {name: uniform for name in ("beta_initializer", "gamma_initializer", "moving_mean_initializer")}
        return layers.BatchNormalization(**values, moving_variance_initializer=uniform, **options)

    def dense(units, activation=None, **options):
        return layers.Dense(units, activation, **options)

    base, mean = trunk(), layers.GlobalAveragePooling2D
    sequences = [
        ("one output", [mean(), dense(1, "sigmoid")]),
        ("maximum", [layers.GlobalMaxPooling2D(), dense(5, "softmax")]),
        ("two layers", [mean(), dense(64, "relu"), layers.Dropout(0.5), dense(5, "softmax")]),
        ("BatchNorms", [mean(), norm(), dense(64, "relu"), norm(epsilon=0.01), dense(5, "softmax")]),
        ("BatchNorm and Activation", [mean(), dense(64), norm(scale=False), layers.Activation("relu"), dense(5)]),
        ("BatchNorm without shift", [mean(), norm(center=False), dense(5, "sigmoid", use_bias=False)]),
        ("Softmax", [mean(), dense(5), layers.Softmax()]),
    ]
    for number, (what, head) in enumerate(sequences):
        model = keras.Sequential([layers.Input((299, 299, 3)), base, *head])
        expected = predict(keras.Sequential(head), before_head)
        # Each of the two formats with every other head.
        file = ["head.keras", "head.h5"][number % 2]
        model.save(folder / file)
        check.same(f"head: {what} in {file}", file, expected)
    image = keras.Input((299, 299, 3))
    scaled = layers.Rescaling(1 / 127.5, offset=-1)(image)
    model = keras.Model(image, dense(5, "softmax")(mean()(base(scaled))))
    model.save(folder / "scaled.keras")
    check.same("scaling inside", "scaled.keras", predict(keras.Sequential([mean(), model.layers[-1]]), before_head))
    gate = layers.Multiply()([pooled, dense(2048, "sigmoid")(pooled)])
    gated = keras.Model(full.input, dense(5, "softmax")(gate))
    gated.save(folder / "gated.keras")
    check.refused("head: a gate", "gated.keras", "Multiply")
    check.same("its features", "gated.keras", features, "--features")
    model = keras.Sequential([layers.Input((299, 299, 3)), base, mean(), dense(8, "gelu"), dense(5, "softmax")])
    model.save(folder / "gelu.keras")
    check.refused("head: GELU", "gelu.keras", f"{model.layers[-2].name} (Dense)")

    def keras_model(*head, file="other.keras"):
        keras.Sequential([layers.Input((299, 299, 3)), base, *head]).save(folder / file)
        return file

    inner = keras.Sequential([layers.Input((2048,)), dense(5, "softmax")])
    file = keras_model(layers.GlobalMaxPooling2D(), inner)
    check.same("head: a model in the model", file, predict(inner, before_head.max((1, 2))))
    check.refused("head: the mean behind a ReLU", keras_model(dense(8, "relu"), mean(), dense(5)), "GlobalAveragePooling2D")
    twice = dense(2048)
    top = dense(5, "softmax")(twice(twice(pooled)))
    keras.Model(full.input, top).save(folder / "twice.keras")
    check.refused("head: one layer twice", "twice.keras", "applied 2 times")

    part = images[:, :75, :90]
    np.save(folder / "part.npy", part)
    base = trunk(input_shape=(75, 90, 3), pooling="avg")
    model = keras.Model(base.input, dense(5, "softmax")(base.output))
    model.save(folder / "size.keras")
    expected = predict(model, part)
    check.same("images of 75x90", "size.keras", expected, images="part.npy")
    model.save_weights(folder / "size.weights.h5")
    check.same("as --size 75x90", "size.weights.h5", expected, "--size", "75x90", images="part.npy")


def main() -> int:
    parser = argparse.ArgumentParser(description="compare with PyTorch or Keras")
    parser.add_argument("framework", choices=["torch", "keras"])
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="folder of fetch.py")
    parser.add_argument("--tuner", type=Path, required=True, metavar="PROGRAM")
    args = parser.parse_args()
    images = np.load(args.cache / "inputs.npy")[:IMAGES]
    with tempfile.TemporaryDirectory() as folder:
        check = Check(args.tuner.resolve(), Path(folder), images)
        {"torch": check_torch, "keras": check_keras}[args.framework](check, args.cache.resolve())
    for line in check.wrong:
        print(f"error: {line}", file=sys.stderr)
    print(f"{check.compared} files and options compared, {len(check.wrong)} wrong")
    return 1 if check.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
