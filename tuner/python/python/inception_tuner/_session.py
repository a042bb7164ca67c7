"""A network that is ready to run."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Optional, Union

import numpy as np

from . import _images, _native
from ._log import note
from ._output import Output
from ._tuning import target

Path = Union[str, "os.PathLike[str]"]

# Images of an iterator that are in memory at once, beside their results.
_AT_ONCE = 256

_PREPROCESS = ("preset", "resize", "crop", "interpolation", "mean", "std", "exif")


def _preprocess(given: Union[None, str, Mapping[str, Any]]) -> dict[str, Any]:
    """All fields of a preprocessing."""
    changes: dict[str, Any] = {"preset": given} if isinstance(given, str) else dict(given or {})
    for name in changes:
        if name not in _PREPROCESS:
            raise ValueError(f"preprocess: found `{name}`, expected some of {', '.join(_PREPROCESS)}")
    for name in ("mean", "std"):
        if isinstance(changes.get(name), (int, float)):
            changes[name] = [changes[name]] * 3
    return {**dict.fromkeys(_PREPROCESS), **changes, "exif": bool(changes.get("exif", False))}


class Session:
    """A network that is ready to run: weights that are packed by a plan, and threads of its own.

    Calls from several threads take turns, each with all of the session's cores, and let other Python
    code run meanwhile. Pickling keeps the arguments: what unpickles it opens the weights and the plan
    again, on its machine. A process that was forked has threads of its own on the same weights.
    """

    def __init__(self, arguments: dict[str, Any], native: Optional[_native.Session] = None) -> None:
        """See :meth:`open`."""
        self._arguments = arguments
        self._native: Optional[_native.Session] = native or self._opened()
        _sessions.add(self)

    @classmethod
    def open(
        cls,
        weights: Optional[Path] = None,
        *,
        model: str = "inception_v3",
        plan: Optional[Path] = "auto",
        threads: Optional[int] = None,
        batch: Optional[int] = None,
        precision: Optional[str] = None,
        streams: Union[str, int] = "auto",
        preprocess: Union[None, str, Mapping[str, Any]] = None,
        results: Optional[Path] = None,
        budget: Optional[float] = None,
        size: Optional[tuple[int, int]] = None,
        features_only: bool = False,
        dims: Optional[int] = None,
    ) -> Session:
        """Opens weights, chooses a plan and makes the network ready.

        :param weights: Keras's `.keras`, `.h5` or `.weights.h5`, PyTorch's `.pt`, `.pth` or
            `.safetensors`; synthetic ones without it.
        :param model: A network, or a block of one.
        :param plan: `"auto"` is the newest valid plan of this machine for the same threads, batch and
            precision, or else the nearest; without either one that is tuned now, if there is a budget,
            or else the built-in choice. A path is that plan, and None the built-in choice. A plan that
            was made on another processor is never used. `"reproducible"` gives the same bits on every
            processor with AVX2, and takes about twice the time.
        :param threads: The plan's, or else the physical cores that this process may use.
        :param batch: Images of one inference: the plan's, or else 1.
        :param precision: `"f32"`: features within 1e-5; `"bf16"`: within 1e-2; `"int8"`: within 5e-2.
            The plan's, or else f32.
        :param streams: Inferences at the same time, which share the threads where there are many
            images. `"auto"` is what is fastest by the plan, or else one thread each.
        :param preprocess: A preset such as `"keras"` or `"fid"`, or its changes as a mapping with
            `preset`, `resize`, `crop`, `interpolation`, `mean`, `std` or `exif`; what goes with the
            weights without it.
        :param results: The folder of plans; `$TUNER_RESULTS`, or else that of the command line.
        :param budget: Seconds for tuning where this machine has no plan. One process of a machine
            tunes, and the others wait for its plan.
        :param size: Height and width of images, from 75 up; what the weights state, or else 299.
        :param features_only: Leave the classifier of the weights out.
        :param dims: Features of an earlier layer, which ends the network: 64, 192, 768, or 2048.
        :raises OSError: A file can't be read, such as :class:`FileNotFoundError`.
        :raises ValueError: An argument, the weights or the plan are not as expected:
            :class:`WeightsError`, :class:`PlanError`, :class:`ModelError`.
        """
        if not (streams == "auto" or isinstance(streams, int)):
            raise ValueError(f"streams is {streams!r}, expected 'auto' or a number")
        if plan == "reproducible" and precision not in (None, "f32"):
            raise ValueError(f"precision is {precision!r}, expected 'f32' for plan='reproducible'")
        return cls(
            {
                "target": target(
                    weights, model, size, features_only, dims, threads, batch, precision, results, budget
                ),
                "plan": {
                    "auto": plan == "auto",
                    "reproducible": plan == "reproducible",
                    "file": None if plan in (None, "auto", "reproducible") else os.fspath(plan),
                },
                "preprocess": _preprocess(preprocess),
                "streams": None if streams == "auto" else streams,
            }
        )

    def _opened(self) -> _native.Session:
        native = _native.Session(**self._arguments, note=note)
        for text in native.notes:
            note(text)
        return native

    def __call__(self, images: Any, *, skip_bad: bool = False) -> Output:
        """Runs images.

        A float32 array [N, H, W, 3] is of preprocessed images; it is not copied where it is contiguous.
        Anything else is loaded and preprocessed by several threads while other images run, and no more
        of it is in memory than they need: a uint8 or uint16 array [H, W], [H, W, C] or [N, H, W, C], a
        PIL image, a path, the bytes of a file, or a list or an iterator of any of these and of float32 arrays
        [H, W, 3]. Of an iterator some hundred images are in memory at once.

        :param images: One image or several.
        :param skip_bad: Images that can't be read get rows of NaN and are in :attr:`Output.errors`;
            without it the first of them ends the call.
        :raises OSError: A file can't be read.
        :raises ValueError: :class:`ImageError`, :class:`NotFiniteError`, or an array of another shape.
        """
        native = self._native_here()
        if _images.is_values(images):
            values, features, errors = native.run(_images.values(images))
        elif isinstance(images, Iterator):
            values, features, errors = self._together(images, skip_bad)
        else:
            values, features, errors = native.run_each(_images.split(images), _images.decode, skip_bad, False, 0)
        return Output(values, features, native.classes is not None, native.labels, errors)

    def _in_parts(self, images: Iterable[Any], skip_bad: bool) -> Iterator[tuple[Any, Any, dict[int, Exception]]]:
        """What becomes of images, some at a time, so that no more of them need to be in memory."""
        rest, first = iter(images), 0
        while part := list(islice(rest, _AT_ONCE)):
            given = _images.split(part, first)
            yield self._native_here().run_each(given, _images.decode, skip_bad, False, first)
            first += len(part)

    def _together(self, images: Iterable[Any], skip_bad: bool) -> tuple[Any, Any, dict[int, Exception]]:
        parts = list(self._in_parts(images, skip_bad))
        if not parts:
            return self._native_here().run_each([], _images.decode, skip_bad, False, 0)
        values, features, errors = zip(*parts)
        all_errors = {number: error for of_part in errors for number, error in of_part.items()}
        of_all = None if features[0] is None else np.concatenate(features)
        return np.concatenate(values), of_all, all_errors

    def _features_of_unit(self, images: list[Any]) -> Any:
        """The features of float32 arrays [H, W, 3] of pixels from 0 to 1."""
        return self._native_here().run_each(images, _images.decode, False, True, 0)[1]

    def _native_here(self) -> _native.Session:
        """The session in this process."""
        if self._native is None:
            self._native = self._opened()
        return self._native

    @property
    def model(self) -> str:
        """The model's name."""
        return self._native_here().model

    @property
    def threads(self) -> int:
        """Threads that compute."""
        return self._native_here().threads

    @property
    def streams(self) -> int:
        """Inferences at the same time where there are many images."""
        return self._native_here().streams

    @property
    def batch(self) -> int:
        """Images of one inference."""
        return self._native_here().batch

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self._native_here().input_shape

    @property
    def classes(self) -> Optional[int]:
        """How many classes there are; None where the weights have no classifier."""
        return self._native_here().classes

    @property
    def preprocess(self) -> str:
        """What images are preprocessed by, in words."""
        return self._native_here().preprocess

    @property
    def plan(self) -> Optional[str]:
        """The plan's file; None for the built-in choice."""
        plan = self._native_here().plan
        return None if plan is None else os.fspath(plan)

    @property
    def plan_json(self) -> str:
        """The plan as JSON."""
        return self._native_here().plan_json

    def __repr__(self) -> str:
        native = self._native_here()
        choice = "reproducible" if self._arguments["plan"]["reproducible"] else "built-in"
        plan = self.plan or f"{choice} choice"
        return (
            f"<inception_tuner.Session of {native.model}: threads={native.threads}, batch={native.batch}, "
            f"streams={native.streams}, plan {plan}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process may have another working folder.
        def absolute(part: dict[str, Any], *names: str) -> dict[str, Any]:
            paths = {name: os.path.abspath(part[name]) for name in names if part[name] is not None}
            return {**part, **paths}

        target = absolute(self._arguments["target"], "weights", "results")
        plan = absolute(self._arguments["plan"], "file")
        return type(self), ({**self._arguments, "target": target, "plan": plan},)


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
# What a forked process has of its parent's sessions, whose threads it has not. They are never dropped.
_of_parents: list[Any] = []


def _after_fork() -> None:
    for session in list(_sessions):
        native = session._native
        if native is not None:
            _of_parents.append(native)
            session._native = native.fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
