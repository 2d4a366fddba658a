"""Check the inputs of a call against the manifest, before the runtime sees them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError
from segquant_trt.records import Manifest, TensorSpec
from segquant_trt.records.axes import Wording, check_sizes

Array = npt.NDArray[np.generic]

_HINT = "'segquant-trt inspect BUNDLE' lists the inputs with their types and sizes"


def check_inputs(inputs: Mapping[str, Array], manifest: Manifest) -> None:
    """Names, types, ranks and sizes of one call.

    Raises:
        SegQuantError: naming the input, what was given and what is allowed.
    """
    known = {spec.name: spec for spec in manifest.inputs}
    for name in inputs:
        if name not in known:
            raise SegQuantError(f"unknown input '{name}'; allowed: {', '.join(known)}", hint=_HINT)
    missing = [name for name in known if name not in inputs]
    if missing:
        raise SegQuantError(
            f"input '{missing[0]}' is missing; given: {', '.join(inputs) or 'none'}", hint=_HINT
        )
    for spec in manifest.inputs:
        _check_type(inputs[spec.name], spec)
    shapes = {name: array.shape for name, array in inputs.items()}
    check_sizes(manifest.inputs, manifest.axes, shapes, Wording(before="input ", hint=_HINT))


def _check_type(array: Array, spec: TensorSpec) -> None:
    if not isinstance(array, np.ndarray):
        raise SegQuantError(
            f"input '{spec.name}' is a {type(array).__name__}; a NumPy array is wanted", hint=_HINT
        )
    if array.dtype.name != spec.dtype:
        raise SegQuantError(
            f"input '{spec.name}' has dtype {array.dtype.name}; allowed: {spec.dtype}", hint=_HINT
        )
