"""Check the inputs of a call against the manifest, before the runtime sees them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError
from segquant_trt.records import AxisRange, Manifest, TensorSpec

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
    axes = {axis.name: axis for axis in manifest.axes}
    lengths: dict[str, tuple[int, str]] = {}
    for spec in manifest.inputs:
        _check_tensor(inputs[spec.name], spec, axes, lengths)


def _check_tensor(
    array: Array,
    spec: TensorSpec,
    axes: Mapping[str, AxisRange],
    lengths: dict[str, tuple[int, str]],
) -> None:
    if not isinstance(array, np.ndarray):
        raise SegQuantError(
            f"input '{spec.name}' is a {type(array).__name__}; a NumPy array is wanted", hint=_HINT
        )
    if array.dtype.name != spec.dtype:
        raise SegQuantError(
            f"input '{spec.name}' has dtype {array.dtype.name}; allowed: {spec.dtype}", hint=_HINT
        )
    if array.ndim != len(spec.shape):
        raise SegQuantError(
            f"input '{spec.name}' has shape {array.shape}; allowed: {_shape(spec)}", hint=_HINT
        )
    for axis, given in zip(spec.shape, array.shape, strict=True):
        if isinstance(axis, int):
            if given != axis:
                raise SegQuantError(
                    f"input '{spec.name}' has shape {array.shape}; allowed: {_shape(spec)}",
                    hint=_HINT,
                )
            continue
        _check_length(spec.name, given, axes[axis])
        first, owner = lengths.setdefault(axis, (given, spec.name))
        if given != first:
            raise SegQuantError(
                f"input '{spec.name}' has {axis} {given}, but '{owner}' has {axis} {first}; "
                "they must agree",
                hint=_HINT,
            )


def _check_length(name: str, given: int, axis: AxisRange) -> None:
    if axis.minimum <= given <= axis.maximum and given % axis.multiple == 0:
        return
    multiple = f" in multiples of {axis.multiple}" if axis.multiple > 1 else ""
    raise SegQuantError(
        f"input '{name}' has {axis.name} {given}; "
        f"allowed: {axis.minimum} to {axis.maximum}{multiple}",
        hint="resize the input, or export the model with a wider range",
    )


def _shape(spec: TensorSpec) -> str:
    return "(" + ", ".join(str(axis) for axis in spec.shape) + ")"
