"""What a network makes of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Optional

import numpy as np
import numpy.typing as npt


class Prediction(NamedTuple):
    """A class of an image."""

    index: int  # type: ignore[assignment]
    """Its number."""
    probability: float
    label: Optional[str]
    """Its name, where the classes have names: the 1000 of ImageNet."""


class Output:
    """What a network makes of N images, in order."""

    def __init__(
        self,
        values: npt.NDArray[np.float32],
        features: Optional[npt.NDArray[np.float32]],
        has_classes: bool,
        labels: Optional[list[str]] = None,
        errors: Optional[Mapping[int, Exception]] = None,
    ) -> None:
        self._values = values
        self._features = features
        self._has_classes = has_classes
        self._labels = labels
        self._errors = dict(errors or {})

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        classes = f", {self._values.shape[-1]} classes" if self._has_classes else ""
        return f"<inception_tuner.Output of {len(self)} images{classes}>"

    @property
    def features(self) -> Optional[npt.NDArray[np.float32]]:
        """Pooled features, float32 [N, 2048]; None of a model without them."""
        return self._features

    @property
    def probabilities(self) -> Optional[npt.NDArray[np.float32]]:
        """Float32 [N, classes]; None where the weights have no classifier."""
        return self._values if self._has_classes else None

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """The last output: probabilities, or else features, or else [N, height, width, channels] of a block."""
        return self._values

    @property
    def errors(self) -> dict[int, Exception]:
        """Why images have rows of NaN, by their number: those that could not be read, with `skip_bad`."""
        return self._errors

    def top(self, k: int = 5) -> list[list[Prediction]]:
        """The k most probable classes of each image, the most probable first.

        None of an image that could not be read, and of all images where the weights have no classifier.
        """
        if not self._has_classes:
            return [[] for _ in range(len(self))]
        return [[] if number in self._errors else self._top(row, k) for number, row in enumerate(self._values)]

    def _top(self, row: npt.NDArray[np.float32], k: int) -> list[Prediction]:
        # Of equal ones the lower number is first.
        order = np.argsort(-row, kind="stable")[: max(k, 0)]
        label = (lambda index: self._labels[index]) if self._labels else (lambda index: None)
        return [Prediction(int(index), float(row[index]), label(int(index))) for index in order]
