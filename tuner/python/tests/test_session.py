"""What a session is and gives; threads, processes, signals and memory."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from inception_tuner import ModelError, Session, WeightsError, list_images


def same(a, b):
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def test_a_session_says_what_it_is(session):
    facts = (session.model, session.threads, session.batch, session.input_shape, session.classes, session.plan)
    assert facts == ("inception_v3", 2, 2, (299, 299, 3), 1000, None)
    assert session.streams == 2 and session.preprocess.startswith("keras: stretched to 299x299")
    assert '"model": "inception_v3"' in session.plan_json
    assert "built-in choice" in repr(session)


def test_probabilities_sum_up_to_one_and_top_is_their_order(preprocessed, session):
    output = session(preprocessed(3))
    assert output.features.shape == (3, 2048) and output.features.dtype == np.float32
    assert output.probabilities.shape == (3, 1000)
    assert np.allclose(output.probabilities.sum(axis=1), 1, atol=1e-5)
    for row, top in zip(output.probabilities, output.top(4)):
        assert [prediction.index for prediction in top] == list(np.argsort(-row, kind="stable")[:4])
        assert [prediction.probability for prediction in top] == list(map(float, np.sort(row)[::-1][:4]))
        assert all(prediction.label for prediction in top)
    assert "3 images, 1000 classes" in repr(output)


def test_a_block_has_values_and_neither_features_nor_classes(block):
    images = np.zeros((2, *block.input_shape), np.float32)
    output = block(images)
    assert output.values.shape == (2, 8, 8, 2048)
    assert output.features is None and output.probabilities is None and output.top(5) == [[], []]
    with pytest.raises(ValueError, match="mixed10 takes .*, not images"):
        block(np.zeros((9, 9, 3), np.uint8))


def test_results_do_not_depend_on_threads_streams_and_batches_of_a_call(preprocessed):
    images = preprocessed(19)
    one = Session.open(plan=None, threads=1, streams=1)(images)
    for threads, streams in ((2, 1), (2, 2)):
        session = Session.open(plan=None, threads=threads, streams=streams)
        assert same(session(images).features, one.features)
        assert same(session(images[:1]).probabilities, one.probabilities[:1])


def test_the_reproducible_choice_gives_the_same_bits_whatever_threads_and_batches(preprocessed):
    images = preprocessed(3)
    one = Session.open(plan="reproducible", threads=1)
    two = Session.open(plan="reproducible", threads=2, batch=3)
    assert same(one(images).features, two(images).features)
    assert same(one(images).probabilities, two(images).probabilities)
    assert one.plan is None and "reproducible choice" in repr(one)
    with pytest.raises(ValueError, match="precision is 'int8', expected 'f32'"):
        Session.open(plan="reproducible", precision="int8")


@pytest.mark.parametrize(
    "arguments, kind, text",
    [
        ({"weights": "missing.h5"}, FileNotFoundError, "missing.h5: cannot read"),
        ({"weights": __file__}, WeightsError, "test_session.py: found .*, expected"),
        ({"weights": os.path.dirname(__file__)}, OSError, "tests: "),
        ({"model": "inception_v4"}, ModelError, "model `inception_v4` is unknown, expected inception_v3"),
        ({"size": (20, 20)}, ModelError, r"found images of \[20, 20, 3\]"),
        ({"threads": 0}, ValueError, "threads is 0, expected a number from 1"),
        ({"batch": 5000}, ValueError, "batch is 5000, expected a number from 1"),
        ({"streams": 9, "threads": 2}, ValueError, "streams is 9, expected a number from 1 to threads, 2"),
        ({"streams": "all"}, ValueError, "streams is 'all', expected 'auto' or a number"),
        ({"precision": "f16"}, ValueError, "precision is `f16`, expected f32, bf16 or int8"),
        ({"budget": -1.0}, ValueError, "budget is -1, expected seconds above 0"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, kind, text):
    with pytest.raises(kind, match=text) as caught:
        Session.open(**{"plan": None, **arguments})
    assert "\n" not in str(caught.value)


def test_a_pickled_session_is_opened_again_from_its_arguments(preprocessed, session, tmp_path, monkeypatch):
    images = preprocessed(2)
    data = pickle.dumps(session)
    assert len(data) < 2000
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(data)
    assert (again.threads, again.batch, again.plan) == (2, 2, None)
    assert same(again(images).features, session(images).features)


def features(job):
    session, images = job
    return session(images).features


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_sessions_go_to_other_processes(method, preprocessed, session):
    images = preprocessed(4)
    expected = session(images).features
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map(features, [(session, images[:2]), (session, images[2:])])
    assert same(np.concatenate(found), expected)


_inherited = None


def features_of_inherited(images):
    return _inherited(images).features


def test_a_forked_process_has_threads_of_its_own_on_the_same_weights(preprocessed, session):
    global _inherited
    _inherited = session
    images = preprocessed(2)
    expected = session(images).features
    # The parent computes while it forks, and afterwards.
    busy = threading.Thread(target=lambda: [session(images) for _ in range(10)])
    busy.start()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.apply_async(features_of_inherited, (images,)).get(timeout=60)
    busy.join()
    assert same(found, expected) and same(session(images).features, expected)


def test_several_threads_share_a_session(preprocessed, session):
    images = preprocessed(6)
    expected = session(images).features
    found = [None] * 3

    def run(number):
        found[number] = session(images[2 * number : 2 * number + 2]).features

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert same(np.concatenate(found), expected)


def test_other_python_threads_run_while_a_session_computes(preprocessed, session):
    images, steps = preprocessed(24), []
    thread = threading.Thread(target=session, args=(images,))
    thread.start()
    while thread.is_alive():
        steps.append(time.monotonic())
        time.sleep(0.001)
    longest = max(b - a for a, b in zip(steps, steps[1:]))
    assert len(steps) > 20 and longest < 0.3 * (steps[-1] - steps[0]), (len(steps), longest)


def interrupt_after(seconds):
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_an_interrupt_ends_a_call_and_the_session_goes_on(preprocessed, photographs, session):
    images = preprocessed(2)
    expected = session(images).features
    for many in (np.broadcast_to(images[:1], (3000, 299, 299, 3)), list_images(photographs) * 300):
        many = [many[0]] * 3000 if isinstance(many, np.ndarray) else many
        start = time.monotonic()
        interrupt_after(0.5)
        with pytest.raises(KeyboardInterrupt):
            session(many)
        assert time.monotonic() - start < 5
    assert same(session(images).features, expected)


def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_number_of_images(preprocessed, photographs, session):
    images = preprocessed(96)
    paths = (list_images(photographs) * 8)[:96]
    session(images[:16])
    session(paths[:16])
    for given in (images, paths):
        with open("/proc/self/clear_refs", "w") as peak:
            peak.write("5")
        before = memory("VmRSS")
        session(given)
        grown = memory("VmHWM") - before
        # All of them, preprocessed, are 98 MiB.
        assert grown < 30, f"{grown:.0f} MiB"


def test_files_of_all_formats_give_the_same(weights, session):
    images = np.load(weights.parent / "inputs.npy")[:2]
    # The pools of torchvision's names count the border, so that those of Keras's are compared.
    keras = [Session.open(weights.parent / name, plan=None, threads=2) for name in ("legacy.h5", "keras3.weights.h5")]
    first, second = (session(images).features for session in keras)
    assert same(first, second) and not same(first, session(images).features)
    assert Session.open(weights, plan=None).preprocess.startswith("torchvision-transform-input")


def test_types_are_checked(tmp_path):
    mypy = pytest.importorskip("mypy.api", reason="mypy is not installed")
    program = tmp_path / "program.py"
    program.write_text(
        "from inception_tuner import Session\n"
        "output = Session.open(None, threads=1)(['cat.jpg'])\n"
        "assert output.features is not None\n"
        "shape: tuple[int, ...] = output.features.shape\n"
        "label: str | None = output.top(1)[0][0].label\n"
    )
    text, _, status = mypy.run(["--strict", str(program)])
    assert status == 0, text


def test_the_package_needs_neither_pillow_nor_torch():
    code = (
        "import sys; sys.modules.update({'PIL': None, 'torch': None}); import inception_tuner, numpy as np;"
        "session = inception_tuner.Session.open(model='stem', plan=None, threads=1);"
        "print(session(np.zeros((9, 9, 3), np.uint8)).values.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 35, 35, 192)"
