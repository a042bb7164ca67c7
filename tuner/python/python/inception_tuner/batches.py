"""Features of batches of images, for engines that run a class on the parts of a data set.

The class opens its session where it is used first, and all of the same arguments in a process share it:
one worker is one session, however many copies its tasks have. Ray Data takes the class as it is, for
`map_batches`; Dask and Spark call it for the parts of a table. `examples/` has whole programs.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from ._session import Session

# Those of this process, by their arguments.
_sessions: dict[str, Session] = {}
_one_opens = threading.Lock()


class FeatureBatches:
    """Adds the features of images to batches, which are mappings from columns to their values.

    It pickles by its arguments.
    """

    def __init__(self, weights: Optional[str] = None, *, column: str = "bytes", classes: int = 0, **session: Any):
        """What each worker opens.

        :param weights: As for :meth:`Session.open`; a path that every machine has.
        :param column: What is an image: paths, the bytes of files, or arrays. It is left out of the results.
        :param classes: The most probable classes that are added as `classes` and `probabilities`.
        :param session: Further arguments of :meth:`Session.open`. With `budget` and a `results` folder,
            one worker of each machine tunes where the machine has no plan.
        """
        self.column, self.classes = column, classes
        self.arguments = {"features_only": classes == 0, **session, "weights": weights}

    @property
    def session(self) -> Session:
        """The worker's session."""
        key = repr(sorted(self.arguments.items()))
        with _one_opens:
            if key not in _sessions:
                _sessions[key] = Session.open(**self.arguments)
            return _sessions[key]

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """The batch without its images, with `features`, float32 [N, 2048], and `error`.

        An image that can't be read has features of NaN and its error as a text, and other images None.
        """
        output = self.session(list(batch[self.column]), skip_bad=True)
        errors = [output.errors.get(number) for number in range(len(output))]
        added: dict[str, Any] = {
            "features": output.features,
            "error": [None if error is None else str(error) for error in errors],
        }
        if self.classes:
            top = output.top(self.classes)
            added["classes"] = [[prediction.index for prediction in of_image] for of_image in top]
            added["probabilities"] = [[prediction.probability for prediction in of_image] for of_image in top]
        return {**{name: values for name, values in batch.items() if name != self.column}, **added}

    def table(self, batch: Mapping[str, Sequence[Any]]) -> Any:
        """As a call gives it, as a `pyarrow.Table`: features are lists of 2048 float32."""
        import pyarrow as pa

        columns = FeatureBatches.__call__(self, batch)
        features = np.ascontiguousarray(columns.pop("features"))
        lists = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), features.shape[1])
        return pa.table({**columns, "error": pa.array(columns["error"], pa.string()), "features": lists})

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.column, self.classes, self.arguments)


def _again(cls: type[FeatureBatches], column: str, classes: int, arguments: dict[str, Any]) -> FeatureBatches:
    return cls(column=column, classes=classes, **arguments)
