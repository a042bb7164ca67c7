"""InceptionV3 on CPUs, by plans that are tuned on the machine.

>>> import inception_tuner
>>> session = inception_tuner.Session.open("w.safetensors")
>>> output = session(["cat.jpg", "dog.png"])
>>> output.features.shape
(2, 2048)
>>> output.top(1)[0][0].label
'tabby'

A :class:`Session` is a network that is ready to run. It takes paths, arrays and PIL images.
:func:`tune` measures the kernels on this machine and writes a plan, which sessions then find.
:func:`fid` is the Fréchet Inception Distance of two sets of images.
"""

from ._errors import FidError, ImageError, ModelError, NotFiniteError, PlanError, TuneError, WeightsError
from ._fid import fid, fid_statistics
from ._images import list_images
from ._native import FidStatistics
from ._output import Output, Prediction
from ._session import Session
from ._tuning import results_folder, tune
from .torch_like import FidelityFeatures, InceptionV3Features, register_with_torch_fidelity

__all__ = [
    "FidError",
    "FidStatistics",
    "FidelityFeatures",
    "InceptionV3Features",
    "ImageError",
    "ModelError",
    "NotFiniteError",
    "Output",
    "PlanError",
    "Prediction",
    "Session",
    "TuneError",
    "WeightsError",
    "fid",
    "fid_statistics",
    "list_images",
    "register_with_torch_fidelity",
    "results_folder",
    "tune",
]
