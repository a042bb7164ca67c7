#!/usr/bin/env python3
"""Measure `tuner run` against ONNX Runtime and OpenVINO, side by side on this machine.

    cargo build --release
    python3 bench-results/compare.py            # Linux, Python 3.10 or newer, pip

The first run makes a virtual environment with the peers in a cache folder and one ONNX
file from keras.applications.InceptionV3(weights=None); `--python` uses an interpreter
that has the packages of PEERS already.  How it measures:

* every (threads, batch) is measured in rounds; in a round each contender has one turn,
  in an order shuffled anew, so that drift of the machine falls on all alike;
* a peer's process lives through all rounds and runs two untimed inferences at the start
  of each turn; ours is a new process a turn, which warms up by itself;
* all are pinned to the same CPUs, as many as there are threads, on distinct cores first;
* a latency is the median of all samples of all rounds; a ratio is the median of the
  rounds' ratios of medians, with its quartiles.  Below 1 we are faster;
* before each setting `tuner peak` measures what the same CPUs can do at that minute.  An
  effective rate counts a direct computation's operations, so that it compares across
  contenders; an executed one counts what our plan really multiplies.

Everything is f32: OpenVINO would otherwise pick bf16 on CPUs that have it.  With
`--precision bf16` we and OpenVINO may both use bf16 (ONNX Runtime, which has none here,
stays f32 beside them).  With `--precision int8 --weights FILE --images DIR` all are
quantised: OpenVINO's model by NNCF and ONNX Runtime's by its static quantisation, on the images
of `--calibration` (those of `--images` where it is not there); ours by the plan that was tuned
with `tuner --precision int8 --weights FILE --image DIR`.  Beside the times then stand the errors
of the features of the images, against ours in f32.  `--starts N` adds the time from the start of a process to its
first result: ours with a plan and, given `--weights`, a weights file, once packing them
and once with weights that an earlier start has packed; a peer's with its imports,
reading, compiling and first inference.
`--folder DIR` measures whole processes over a folder of photographs instead: ours, pytorch-fid
(with `--torch-python`, an interpreter that has torch and pytorch-fid), and ONNX Runtime behind
Pillow; see folders.py.  `--photographs N` makes the folder.  With `--fake DIR2` it is the FID
of both folders, ours and pytorch-fid's; noisy copies are made where DIR2 is not there.
Writes compare.json (with every sample) and compare.md into bench-results/<machine>/,
compare-bf16.json and .md for bf16, compare-int8.json and .md for int8.
"""

import argparse
import datetime
import json
import os
import platform
import random
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import folders

PEERS = [
    "onnxruntime==1.32.0",
    "openvino==2026.4.1",
    "tensorflow-cpu==2.21.0",
    "keras==3.15.1",
    "tf2onnx==1.17.0",
    "onnx==1.23.2",
    "numpy==2.4.6",
    "pillow==13.0.0",
    "scikit-learn==1.9.0",
    "nncf==3.4.0",
]
TITLES = {"ours": "ours", "ort": "ONNX Runtime f32", "openvino": "OpenVINO f32"}
PACKED = "ours, packed"
F32_TIERS = ("plain", "avx2", "avx512")
ROOT = Path(__file__).resolve().parent.parent
REST_SECONDS = 0.1  # between turns: a peer's threads stop spinning well within it
WARM_UP = 2
GFLOP_AN_IMAGE = 11.4224  # two a multiply-add of the direct network: `tuner shapes`


class Failure(Exception):
    """A failure whose text is the whole message for the user."""


# --- inside a peer's interpreter -------------------------------------------------------


def make_onnx(path: Path, weights: Path | None) -> None:
    """Write InceptionV3 with a free batch dimension; runs where TensorFlow and tf2onnx are.

    Its first output is probabilities; with weights, the second is the pooled features.
    """
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow")
    import keras
    import onnx
    import tensorflow as tf
    import tf2onnx

    model = keras.applications.InceptionV3(weights=None)
    if weights:
        model.load_weights(weights)
        model = keras.Model(model.input, [model.output, model.get_layer("avg_pool").output])
    signature = [tf.TensorSpec([None, 299, 299, 3], tf.float32, name="input")]
    function = tf.function(lambda x: model(x, training=False))
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=17)
    temporary = path.with_suffix(".part")
    onnx.save(proto, temporary)
    os.replace(temporary, path)


def quantise(peer: str, onnx_path: str, images: str, path: str) -> None:
    """Write the model in int8, calibrated on images `[n, 299, 299, 3]`."""
    import numpy as np

    images = np.load(images)
    if peer == "ort":
        import onnxruntime.quantization as quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Images(quantization.CalibrationDataReader):
            left = iter(images)

            def get_next(self):
                image = next(self.left, None)
                return None if image is None else {"input": image[None]}

        with tempfile.TemporaryDirectory() as folder:
            prepared = str(Path(folder) / "prepared.onnx")
            quant_pre_process(onnx_path, prepared, skip_symbolic_shape=True)
            quantization.quantize_static(
                prepared,
                path,
                Images(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                reduce_range=not has_vnni(),
            )
    else:
        import nncf
        import openvino as ov

        model = ov.Core().read_model(onnx_path)
        dataset = nncf.Dataset([image[None] for image in images])
        ov.save_model(nncf.quantize(model, dataset, subset_size=len(images)), path, compress_to_fp16=False)


def has_vnni() -> bool:
    """Whether sums of 8-bit products have the room of 32 bits: else ONNX Runtime wants weights of 7 bits."""
    return bool(re.search(r"\b(avx512_vnni|avx_vnni)\b", Path("/proc/cpuinfo").read_text()))


def write_features(peer: str, model: str, threads: int, images: str, path: str) -> None:
    """Write the probabilities and the features of images, one after the other."""
    import numpy as np

    _, infer = {"ort": ort_peer, "openvino": openvino_peer}[peer](model, threads, 1, "int8")
    results = [infer(image[None]) for image in np.load(images)]
    np.savez(path, *[np.concatenate([np.asarray(result[at]) for result in results]) for at in (0, 1)])


def ort_peer(onnx_path: str, threads: int, batch: int, _precision: str):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    probe = ort.InferenceSession(onnx_path, providers=["CPUExecutionProvider"]).get_inputs()[0]
    if isinstance(probe.shape[0], str):
        options.add_free_dimension_override_by_name(probe.shape[0], batch)
    runner = ort.InferenceSession(onnx_path, options, providers=["CPUExecutionProvider"])
    return ort.__version__, lambda x: runner.run(None, {probe.name: x})


def openvino_peer(onnx_path: str, threads: int, batch: int, precision: str):
    import openvino as ov

    core = ov.Core()
    model = core.read_model(onnx_path)
    model.reshape([batch, 299, 299, 3])
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_HYPER_THREADING": True,  # else two threads on one core become one
    }
    if precision != "int8":
        config["INFERENCE_PRECISION_HINT"] = precision
    request = core.compile_model(model, "CPU", config).create_infer_request()
    return ov.__version__.split("-")[0], lambda x: request.infer([x], share_inputs=True)


def serve(peer: str, onnx_path: str, threads: int, batch: int, precision: str) -> None:
    """Say the version, then answer each count read from stdin with that many latencies in ms."""
    import numpy as np

    make = {"ort": ort_peer, "openvino": openvino_peer}[peer]
    version, infer = make(onnx_path, threads, batch, precision)
    x = np.random.default_rng(1).uniform(-1, 1, (batch, 299, 299, 3)).astype(np.float32)
    assert np.asarray(infer(x)[0]).shape == (batch, 1000)
    print(json.dumps(version), flush=True)
    for line in sys.stdin:
        samples = []
        for i in range(WARM_UP + int(line)):
            start = time.perf_counter()
            infer(x)
            if i >= WARM_UP:
                samples.append((time.perf_counter() - start) * 1e3)
        print(json.dumps(samples), flush=True)


# --- contenders ------------------------------------------------------------------------


def clean_environment() -> dict[str, str]:
    """The environment without settings that slow numpy-based peers down."""
    return {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}


def pin(cpus: list[int]) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, cpus))]


class Peer:
    """A peer's process, kept alive and idle between turns."""

    def __init__(
        self, python: str, name: str, onnx: Path, threads: int, batch: int, cpus: list[int], precision: str
    ):
        self.name = name
        self.errors = tempfile.TemporaryFile("w+")
        command = [*pin(cpus), python, __file__, "--serve", name, str(onnx), str(threads), str(batch), precision]
        start = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=clean_environment(),
        )
        self.version = self.answer()
        self.start_seconds = time.perf_counter() - start

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            tail = " | ".join(self.errors.read().strip().splitlines()[-2:])
            raise Failure(f"{TITLES[self.name]} stopped: {tail}")
        return json.loads(line)

    def turn(self, repeat: int) -> list[float]:
        self.process.stdin.write(f"{repeat}\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.close()


class Ours:
    """`tuner run`, a new process a turn."""

    name = "ours"

    def __init__(self, args: argparse.Namespace, threads: int, batch: int, cpus: list[int]):
        self.asked = {"threads": threads, "batch": batch}
        self.command = [*pin(cpus), str(args.tuner), "run", "--model", "inception_v3"]
        self.command += ["--threads", str(threads), "--batch", str(batch), "--precision", args.precision]
        self.command += ["--plan", str(args.plan)] if args.plan else []
        self.weights = ["--weights", str(args.weights)] if args.weights else []
        if args.precision == "int8":
            # Ranges are those of the weights.
            self.command += [*self.weights, "--require-plan"]
            self.weights = []
        self.version = None
        self.gflop = None  # executed an image

    def turn(self, repeat: int) -> list[float]:
        answer = tuner_json([*self.command, "--json", "--repeat", str(repeat)])
        for key, value in self.asked.items():
            if answer.get(key, value) != value:
                raise Failure(f"asked `tuner run` for {key} {value}, it ran {answer[key]}")
        self.version = answer.get("plan")
        self.gflop = 2e-9 * answer["multiply_adds"] / answer["batch"]
        return answer["latency_ms"]

    def start(self, packed: Path | None = None) -> float:
        """Seconds of a process that prints one result, by packed weights where there is a file of them."""
        command = [*self.command, *self.weights, *(["--packed", str(packed)] if packed else [])]
        start = time.perf_counter()
        result = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
        if result.returncode:
            raise Failure(f"`{shlex.join(command)}` exited with {result.returncode}: {result.stderr.strip()}")
        return time.perf_counter() - start

    def close(self) -> None:
        pass


def tuner_json(command: list[str]) -> dict:
    """The JSON object on the last line of a command's stdout."""
    result = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    lines = result.stdout.strip().splitlines()
    if result.returncode or not lines:
        tail = " | ".join(result.stderr.strip().splitlines()[-2:])
        raise Failure(f"`{shlex.join(command)}` exited with {result.returncode}: {tail}")
    return json.loads(lines[-1])


def measured_peak(tuner: Path, threads: int, cpus: list[int], precision: str) -> dict | None:
    """The highest peak of all threads at once on these CPUs: of f32, or of whatever there is."""
    try:
        answer = tuner_json([*pin(cpus), str(tuner), "peak", "--json", "--threads", str(threads)])
        tiers = {"f32": F32_TIERS, "bf16": (*F32_TIERS, "avx512bf16", "amx")}.get(precision)
        usable = [p for p in answer["peaks"] if tiers is None or p["isa"] in tiers]
        return max((p for p in usable if p["threads"] == threads), key=lambda p: p["gflops_a_core"])
    except (Failure, ValueError, LookupError):
        progress("`tuner peak --json` gave nothing: the peak is left out")
        return None


# --- the machine -----------------------------------------------------------------------


def choose_cpus(threads: int) -> list[int]:
    """As many of our allowed CPUs as threads; the siblings of a core are taken last."""

    def core(cpu: int) -> str:
        try:
            return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
        except OSError:
            return str(cpu)

    first, siblings, seen = [], [], set()
    for cpu in sorted(os.sched_getaffinity(0)):
        (siblings if core(cpu) in seen else first).append(cpu)
        seen.add(core(cpu))
    cpus = (first + siblings)[:threads]
    if len(cpus) < threads:
        raise Failure(f"{threads} threads asked, but only {len(cpus)} CPUs are allowed here")
    return cpus


def describe_machine() -> dict:
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.M)
    flags = re.search(r"^flags\s*:\s*(.+)$", info, re.M)
    wanted = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
    return {
        "cpu": model.group(1).strip() if model else platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "features": [flag for flag in wanted if flags and flag in flags.group(1).split()],
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
    }


def slug(machine: dict) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{machine['cpu']} {machine['cpus']}cpu".lower()).strip("-")


# --- preparation -----------------------------------------------------------------------


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def checked(command: list[str], what: str) -> None:
    progress(what)
    result = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    if result.returncode:
        tail = " | ".join(result.stderr.strip().splitlines()[-2:])
        raise Failure(f"{what}: failed: {tail}")


def prepare_python(cache: Path) -> str:
    """The interpreter of a virtual environment that has PEERS; made when it is not there."""
    venv, stamp = cache / "venv", cache / "venv" / "peers.txt"
    python = str(venv / "bin" / "python")
    if not stamp.exists() or stamp.read_text() != "\n".join(PEERS):
        shutil.rmtree(venv, ignore_errors=True)
        checked([sys.executable, "-m", "venv", str(venv)], f"making {venv}")
        checked([python, "-m", "pip", "install", "-q", *PEERS], "installing the peers (about 2 GB, once)")
        stamp.write_text("\n".join(PEERS))
    return python


def prepare_onnx(cache: Path, python: str, weights: Path | None = None) -> Path:
    name = f"-{zlib.crc32(weights.read_bytes()):08x}" if weights else ""
    path = cache / f"inception_v3{name}.onnx"
    if not path.exists():
        checked([python, __file__, "--make-onnx", str(path), *([str(weights)] if weights else [])], f"making {path}")
    return path


class Quantised:
    """Models in int8 of the peers, and the errors of their features and of ours."""

    def __init__(self, args: argparse.Namespace, python: str, peers: list[str]):
        self.args, self.python, self.models, self.folder = args, python, {}, tempfile.TemporaryDirectory()
        self.inputs, self.exact = self.ours(args.images, "f32")
        onnx = prepare_onnx(args.cache, python, args.weights)
        calibration = self.ours(args.calibration, "f32")[0] if args.calibration else self.inputs
        for name in peers:
            self.models[name] = Path(self.folder.name) / {"ort": "ort.onnx", "openvino": "openvino.xml"}[name]
            paths = [str(path) for path in (onnx, calibration, self.models[name])]
            checked([python, __file__, "--quantise", name, *paths], f"quantising for {name}")

    def ours(self, images: Path, precision: str) -> list[Path]:
        """What the network gets of images, and its features."""
        stem = f"{len(list(Path(self.folder.name).iterdir()))}-{precision}"
        paths = [Path(self.folder.name) / f"{stem}-{what}.npy" for what in ("x", "y")]
        command = [str(self.args.tuner), "run", "--model", "inception_v3", "--weights", str(self.args.weights)]
        command += ["--image", str(images), "--features", "--precision", precision]
        command += ["--threads", str(self.args.threads[0]), "--batch", str(self.args.batch[0])]
        command += ["--write-input", str(paths[0]), "--output", str(paths[1])]
        if precision != "f32":
            command += ["--require-plan", *(["--plan", str(self.args.plan)] if self.args.plan else [])]
        checked(command, f"our features in {precision}")
        return paths

    def errors(self) -> dict[str, list[float]]:
        """The relative L2 error of the features of each image."""
        code = (
            "import sys, numpy as np; a, b = [np.load(p) for p in sys.argv[1:3]];"
            "b = b['arr_1'] if hasattr(b, 'files') else b;"
            "print(*(np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1)))"
        )
        features = {}
        if "ours" in self.args.names:
            features["ours"] = self.ours(self.args.images, "int8")[1]
        for name, model in self.models.items():
            features[name] = Path(self.folder.name) / f"{name}.npz"
            command = [self.python, __file__, "--features", name, str(model), str(self.args.threads[0])]
            checked([*command, str(self.inputs), str(features[name])], f"features of {name}")
        errors = {}
        for name, path in features.items():
            command = [self.python, "-c", code, str(self.exact), str(path)]
            result = subprocess.run(command, capture_output=True, text=True, check=True, env=clean_environment())
            errors[name] = [float(error) for error in result.stdout.split()]
        return errors


# --- measuring -------------------------------------------------------------------------


def measure(contenders: list, rounds: int, repeat: int, order: random.Random) -> dict[str, list[list[float]]]:
    """samples[name][round] in ms a batch."""
    samples = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in order.sample(contenders, len(contenders)):
            time.sleep(REST_SECONDS)
            samples[contender.name].append(contender.turn(repeat))
        medians = ", ".join(f"{name} {statistics.median(all_[-1]):.1f}" for name, all_ in samples.items())
        progress(f"  round {number + 1}/{rounds}: {medians} ms")
    return samples


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3


def measure_starts(args, python: str, models: dict[str, Path], threads: int, cpus: list[int]) -> dict[str, float]:
    """Median seconds from the start of a process to its first result, one image, in turn."""
    names = start_names(args.names)
    seconds = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "packed"
        if "ours" in names:
            Ours(args, threads, 1, cpus).start(packed)
        for _ in range(args.starts):
            for name in names:
                if name == "ours":
                    seconds[name].append(Ours(args, threads, 1, cpus).start())
                elif name == PACKED:
                    seconds[name].append(Ours(args, threads, 1, cpus).start(packed))
                else:
                    peer = Peer(python, name, models[name], threads, 1, cpus, args.precision)
                    peer.close()
                    seconds[name].append(peer.start_seconds)
    return {name: statistics.median(values) for name, values in seconds.items()}


def start_names(names: list[str]) -> list[str]:
    """The contenders, and after ours a start by weights that are packed already."""
    return [start for name in names for start in ([name, PACKED] if name == "ours" else [name])]


def summarise(samples: dict[str, list[list[float]]], batch: int) -> dict:
    flat = {name: [s for turn in turns for s in turn] for name, turns in samples.items()}
    summary = {
        "median_ms": {name: statistics.median(values) for name, values in flat.items()},
        "quartiles_ms": {name: quartiles(values) for name, values in flat.items()},
        "ratio": {},
    }
    summary["median_ms_per_image"] = {name: value / batch for name, value in summary["median_ms"].items()}
    for name in samples.keys() - {"ours"} if "ours" in samples else ():
        pairs = zip(samples["ours"], samples[name], strict=True)
        low, middle, high = quartiles([statistics.median(a) / statistics.median(b) for a, b in pairs])
        summary["ratio"][name] = {"median": middle, "quartiles": [low, high]}
    return summary


def markdown(report: dict) -> str:
    machine, names = report["machine"], report["contenders"]
    peers = [name for name in names if name != "ours"] if "ours" in names else []
    title = ["threads", "batch", *(f"{TITLES[n]}, ms an image" for n in names), *(f"ours / {TITLES[n]}" for n in peers)]
    rows = [title, ["---:"] * len(title)]
    for result in report["results"]:
        row = [str(result["threads"]), str(result["batch"])]
        row += [f"{result['median_ms_per_image'][n]:.2f}" for n in names]
        for name in peers:
            ratio = result["ratio"][name]
            low, high = ratio["quartiles"]
            row.append(f"{ratio['median']:.3f} ({low:.3f} to {high:.3f})")
        rows.append(row)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    versions = ", ".join(f"{TITLES[n]} {v}" for n, v in report["versions"].items())
    text = f"# InceptionV3 on {machine['cpu']}\n\n{table}\n\n"
    text += (
        f"Median of {report['rounds']} interleaved rounds of {report['repeat']} inferences each"
        + ("; a ratio is the median of the rounds' ratios (and its quartiles), below 1 we are faster" if peers else "")
        + f".\n{machine['cpus']} CPUs, {' '.join(machine['features'])}; {versions}; {report['date']}.\n"
    )
    return text + errors(report) + rates(report) + starts(report)


def errors(report: dict) -> str:
    """A table of the errors of features."""
    if not report.get("errors"):
        return ""
    rows = [["", "worst", "mean"], ["---", "---:", "---:"]]
    rows += [[TITLES[n], f"{max(e):.2e}", f"{statistics.mean(e):.2e}"] for n, e in report["errors"].items()]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    count = len(next(iter(report["errors"].values())))
    return f"\nRelative L2 error of the features of {count} images, against ours in f32 (ours by the first plan):\n\n{table}\n"


def starts(report: dict) -> str:
    """A table of the seconds to a first result."""
    if not report["starts"]:
        return ""
    names = start_names(report["contenders"])
    title = ["threads", *(TITLES.get(n, n) for n in names)]
    rows = [title, ["---:"] * len(title)]
    rows += [[str(s["threads"]), *(f"{s['seconds'][n]:.3f}" for n in names)] for s in report["starts"]]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"\nSeconds from the start of a process to its first result, one image:\n\n{table}\n"


def rates(report: dict) -> str:
    """A table of GFLOP/s of all cores together, beside the FMA peak of the same minute."""
    names = report["contenders"]
    effective = [f"{TITLES[n]}, effective" for n in names]
    title = ["threads", "batch", "peak", *effective, *(["ours, executed", "of the peak"] if "ours" in names else [])]
    rows = [title, ["---:"] * len(title)]
    for result in report["results"]:
        peak = result["peak"] and result["peak"]["gflops_a_core"] * result["threads"]
        seconds = {n: result["median_ms_per_image"][n] / 1e3 for n in names}
        row = [str(result["threads"]), str(result["batch"]), f"{peak:.0f}" if peak else "-"]
        row += [f"{GFLOP_AN_IMAGE / seconds[n]:.0f}" for n in names]
        if "ours" in names:
            executed = result["executed_gflop"] / seconds["ours"]
            row += [f"{executed:.0f}", f"{executed / peak:.0%}" if peak else "-"]
        rows.append(row)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"\nGFLOP/s of all cores together:\n\n{table}\n"


def numbers(text: str) -> list[int]:
    values = [int(part) for part in text.split(",")]
    if min(values) < 1:
        raise ValueError
    return values


def parse_arguments() -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inception-v3-peers"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tuner", type=Path, default=ROOT / "target/release/tuner")
    parser.add_argument("--plan", type=Path, help="plan file for `tuner run`")
    parser.add_argument("--precision", choices=("f32", "bf16", "int8"), default="f32", help="ours and OpenVINO's")
    parser.add_argument("--images", type=Path, metavar="DIR", help="int8: photographs whose features are compared")
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="int8: those that ranges are found on")
    parser.add_argument("--starts", type=int, default=0, metavar="N", help="starts of processes to time")
    parser.add_argument("--weights", type=Path, help="weights file for our timed starts; int8: of Keras, for all")
    parser.add_argument("--threads", type=numbers, default=[1, 2], metavar="1,2")
    parser.add_argument("--batch", type=numbers, default=[1, 8], metavar="1,8")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeat", type=int, default=5, help="timed inferences a turn")
    parser.add_argument("--only", default="ours,ort,openvino", metavar="NAMES", help="of ours,ort,openvino")
    parser.add_argument("--skip-openvino", action="store_true")
    parser.add_argument("--python", help="an interpreter that has the peers")
    parser.add_argument("--cache", type=Path, default=cache, metavar="DIR")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="photographs to run as whole processes")
    parser.add_argument("--fake", type=Path, metavar="DIR", help="the FID of --folder and this; noisy copies are made")
    parser.add_argument("--photographs", type=int, metavar="N", help="make N photographs in --folder")
    parser.add_argument("--torch-python", help="an interpreter that has torch and pytorch-fid")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: bench-results/<machine>")
    args = parser.parse_args()
    if args.precision != "f32":
        TITLES["openvino"] = f"OpenVINO {args.precision}"
    if args.precision == "int8":
        TITLES["ort"] = "ONNX Runtime int8"
        if not (args.weights and args.images):
            parser.error("--precision int8 needs --weights FILE and --images DIR")
    args.names = [name for name in TITLES if name in args.only.split(",")]
    if set(args.only.split(",")) - set(TITLES):
        parser.error(f"--only takes names of {', '.join(TITLES)}")
    if args.skip_openvino and "openvino" in args.names:
        args.names.remove("openvino")
    if not args.names or args.rounds < 1 or args.repeat < 1:
        parser.error("nothing to measure")
    return args


def commit() -> str:
    result = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def write_whole(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def write_report(args: argparse.Namespace, stem: str, report: dict, text: str) -> None:
    out = args.out or ROOT / "bench-results" / slug(report["machine"])
    out.mkdir(parents=True, exist_ok=True)
    for name, content in ((f"{stem}.json", json.dumps(report) + "\n"), (f"{stem}.md", text)):
        write_whole(out / name, content)
    print(text)
    progress(f"wrote {out}/{stem}.json and {stem}.md")


def compare_folder(args: argparse.Namespace) -> None:
    script, threads = folders.__file__, str(args.threads[-1])
    args.cache.mkdir(parents=True, exist_ok=True)
    python = args.python or prepare_python(args.cache)
    if args.photographs:
        checked([python, script, "--photographs", str(args.folder), str(args.photographs)], "making photographs")
    report = {"date": datetime.date.today().isoformat(), "machine": describe_machine(), "commit": commit()}
    report["command"] = shlex.join(["compare.py", *sys.argv[1:]])
    if args.fake:
        if not args.torch_python:
            raise Failure("--fake needs --torch-python, an interpreter that has torch and pytorch-fid")
        if not args.fake.exists():
            checked([python, script, "--noisy", str(args.folder), str(args.fake)], "making noisy copies")
        report["folder"] = folders.compare_distance(args, clean_environment())
        return write_report(args, "compare-fid", report, folders.folder_markdown(report))
    peers = {}
    if args.torch_python:
        peers["pytorch-fid"] = [args.torch_python, script, "--pytorch-fid", str(args.folder), threads]
    else:
        progress("left out: pytorch-fid (--torch-python)")
    if "ort" in args.names:
        onnx = prepare_onnx(args.cache, python)
        peers["ONNX Runtime and Pillow"] = [python, script, "--ort", str(args.folder), threads, str(onnx)]
    report["folder"] = folders.compare_folder(args, clean_environment(), peers)
    write_report(args, "compare-folder", report, folders.folder_markdown(report))


def compare(args: argparse.Namespace) -> None:
    if not shutil.which("taskset"):
        raise Failure("taskset (util-linux) is needed to pin the contenders")
    if "ours" in args.names and not args.tuner.is_file():
        raise Failure(f"{args.tuner} is not there: cargo build --release, or --tuner PATH")
    args.cache.mkdir(parents=True, exist_ok=True)
    peers = [name for name in args.names if name != "ours"]
    python = ""
    if peers:
        python = args.python or prepare_python(args.cache)
    elif args.precision == "int8":
        python = args.python or sys.executable
    quantised = Quantised(args, python, peers) if args.precision == "int8" else None
    models = quantised.models if quantised else {name: prepare_onnx(args.cache, python) for name in peers}

    machine = describe_machine()
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": machine,
        "contenders": args.names,
        "versions": {},
        "rounds": args.rounds,
        "repeat": args.repeat,
        "precision": args.precision,
        "errors": quantised and quantised.errors(),
        "results": [],
        "starts": [],
    }
    if machine["load_before"] > 0.5:
        progress(f"warning: the load average is {machine['load_before']:.1f}: something else is running")

    order = random.Random(1)
    for threads in args.threads:
        cpus = choose_cpus(threads)
        for batch in args.batch:
            progress(f"threads {threads} on CPUs {cpus}, batch {batch}")
            contenders: list = []
            peak = measured_peak(args.tuner, threads, cpus, args.precision) if "ours" in args.names else None
            if peak:
                progress(f"  peak {peak['gflops_a_core']:.1f} GFLOP/s a core ({peak['isa']})")
            try:
                if "ours" in args.names:
                    contenders.append(Ours(args, threads, batch, cpus))
                for name in peers:
                    contenders.append(Peer(python, name, models[name], threads, batch, cpus, args.precision))
                samples = measure(contenders, args.rounds, args.repeat, order)
                report["versions"] |= {c.name: c.version for c in contenders if c.name != "ours"}
                ours = next((c for c in contenders if c.name == "ours"), None)
            finally:
                for contender in contenders:
                    contender.close()
            result = {"threads": threads, "batch": batch, "cpus": cpus, "peak": peak}
            result |= {"plan": ours and ours.version, "executed_gflop": ours and ours.gflop}
            report["results"].append(result | summarise(samples, batch) | {"samples_ms": samples})
        if args.starts:
            seconds = measure_starts(args, python, models, threads, cpus)
            report["starts"].append({"threads": threads, "seconds": seconds})

    stem = "compare" if args.precision == "f32" else f"compare-{args.precision}"
    write_report(args, stem, report, markdown(report))


def main() -> int:
    if sys.argv[1:2] == ["--make-onnx"]:
        make_onnx(Path(sys.argv[2]), Path(sys.argv[3]) if sys.argv[3:] else None)
        return 0
    if sys.argv[1:2] == ["--quantise"]:
        quantise(*sys.argv[2:6])
        return 0
    if sys.argv[1:2] == ["--features"]:
        write_features(sys.argv[2], sys.argv[3], int(sys.argv[4]), *sys.argv[5:7])
        return 0
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
        return 0
    try:
        args = parse_arguments()
        compare_folder(args) if args.folder else compare(args)
    except (Failure, OSError, ValueError, KeyError) as error:
        progress(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        progress("stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
