"""The feature extractors of pytorch-fid and torch-fidelity, computed by a :class:`Session`.

They have the shape of a `torch.nn.Module` and take and give the tensors of the programs. torch is needed by
neither: arrays of numpy are taken and given too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, Optional

import numpy as np

from ._fid import open_network
from ._session import Session


class _Module:
    """What code that has a `torch.nn.Module` calls. Computing is on the CPU, and nothing is trained."""

    training = False

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError

    def _same(self, *_: Any, **__: Any) -> Any:
        return self

    eval = to = cpu = cuda = float = requires_grad_ = train = _same

    def parameters(self) -> Iterator[Any]:
        return iter(())

    def state_dict(self) -> dict[str, Any]:
        return {}


def _array(tensor: Any, name: str) -> np.ndarray:
    """The values of a tensor or an array [N, 3, H, W]."""
    array = np.asarray(tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor)
    if array.ndim != 4 or array.shape[1] != 3:
        raise ValueError(f"{name}: found shape {list(array.shape)}, expected [N, 3, H, W]")
    return array


def _like(array: np.ndarray, tensor: Any) -> Any:
    """A tensor where one was given."""
    if not hasattr(tensor, "detach"):
        return array
    return sys.modules["torch"].from_numpy(array).to(tensor.device)


class InceptionV3Features(_Module):
    """pytorch-fid's `InceptionV3`: float tensors [N, 3, H, W] from 0 to 1 become a list of feature tensors.

    Each is [N, dims, 1, 1]: the means over the image, where pytorch-fid gives a map that it then averages.

    :param output_blocks: 0, 1, 2 and 3 for 64, 192, 768 and 2048 features.
    :param weights: pytorch-fid's `.pth`, or the same as `.safetensors`.
    :param resize_input: Without it images must be 299x299.
    :param normalize_input: Without it values are from -1 to 1.
    :param arguments: Further arguments of :meth:`Session.open`.
    """

    DEFAULT_BLOCK_INDEX = 3
    BLOCK_INDEX_BY_DIM = {64: 0, 192: 1, 768: 2, 2048: 3}

    def __init__(
        self,
        output_blocks: Sequence[int] = (DEFAULT_BLOCK_INDEX,),
        *,
        weights: Any = None,
        resize_input: bool = True,
        normalize_input: bool = True,
        **arguments: Any,
    ) -> None:
        dims = {block: dims for dims, block in self.BLOCK_INDEX_BY_DIM.items()}
        if not output_blocks or any(block not in dims for block in output_blocks):
            raise ValueError(f"output_blocks is {list(output_blocks)}, expected some of 0, 1, 2 and 3")
        arguments = {"preprocess": "fid", **arguments}
        self.resize_input, self.normalize_input = resize_input, normalize_input
        self.sessions = [open_network(weights, dims[block], arguments) for block in sorted(set(output_blocks))]

    def forward(self, inp: Any) -> list[Any]:
        array = _array(inp, "inp")
        found, expected = array.shape[2:], self.sessions[0].input_shape[:2]
        if not self.resize_input and found != expected:
            raise ValueError(f"inp: found images of {list(found)}, expected {list(expected)} without resize_input")
        values = array.transpose(0, 2, 3, 1)
        if not self.normalize_input:
            values = values * 0.5 + 0.5
        images = list(np.ascontiguousarray(values, np.float32))
        features = (session._features_of_unit(images) for session in self.sessions)
        return [_like(rows.reshape(*rows.shape, 1, 1), inp) for rows in features]


class FidelityFeatures(_Module):
    """torch-fidelity's `FeatureExtractorInceptionV3`: uint8 tensors [N, 3, H, W] become a tuple of features.

    :func:`register_with_torch_fidelity` makes it known there by a name.

    :param name: What torch-fidelity calls it.
    :param features_list: Some of 64, 192, 768 and 2048, as texts.
    :param feature_extractor_weights_path: torch-fidelity's file, which is pytorch-fid's.
    """

    DIMS = ("64", "192", "768", "2048")

    def __init__(
        self,
        name: str,
        features_list: Sequence[str],
        feature_extractor_weights_path: Optional[str] = None,
        feature_extractor_internal_dtype: Optional[str] = None,
        verbose: bool = False,
        **arguments: Any,
    ) -> None:
        unknown = [features for features in features_list if features not in self.DIMS]
        if unknown or not features_list:
            raise ValueError(f"features_list is {list(features_list)}, expected some of {', '.join(self.DIMS)}")
        self.name, self.features_list = name, list(features_list)
        arguments = {"preprocess": "fid-torch-fidelity", **arguments}
        self.sessions = {
            dims: open_network(feature_extractor_weights_path, int(dims), arguments) for dims in set(features_list)
        }

    def get_name(self) -> str:
        return self.name

    @classmethod
    def get_provided_features_list(cls) -> tuple[str, ...]:
        return cls.DIMS

    @staticmethod
    def get_default_name() -> str:
        return "inception-tuner"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> Optional[str]:
        return {"fid": "2048", "kid": "2048", "prc": "2048"}.get(metric)

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Any:
        return np.zeros((1, 3, 4, 4), np.uint8)

    def get_requested_features_list(self) -> list[str]:
        return self.features_list

    def convert_features_tuple_to_dict(self, features: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.features_list, features))

    def forward(self, x: Any) -> tuple[Any, ...]:
        array = _array(x, "x")
        if array.dtype != np.uint8:
            raise ValueError(f"x: found type {array.dtype}, expected uint8")
        images = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
        features: dict[str, Any] = {dims: session(images).features for dims, session in self.sessions.items()}
        return tuple(_like(features[dims], x) for dims in self.features_list)


def register_with_torch_fidelity(name: str = "inception-tuner", **arguments: Any) -> str:
    """Makes :class:`FidelityFeatures` known to torch-fidelity, for its argument `feature_extractor`.

    :param arguments: Further arguments of :meth:`Session.open`.
    :returns: The name.
    """
    import torch
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Extractor(FidelityFeatures, FeatureExtractorBase):
        def __init__(self, name: str, features_list: Sequence[str], **options: Any) -> None:
            # torch-fidelity gives all of its own options.
            torch.nn.Module.__init__(self)
            path = options.get("feature_extractor_weights_path")
            FidelityFeatures.__init__(self, name, features_list, path, **arguments)

    torch_fidelity.register_feature_extractor(name, Extractor)
    return name
