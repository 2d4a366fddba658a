"""Sizes of a denoiser's inputs: ranks, fixed lengths, and named axes that inputs share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from segquant_trt.errors import SegQuantError
from segquant_trt.records.model_spec import AxisRange, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """How a refusal speaks: what stands before and after an input's name, and its remedy."""

    before: str = ""
    after: str = ""
    hint: str

    def subject(self, name: str) -> str:
        """The input as the sentence's subject."""
        return f"{self.before}'{name}'{self.after}"


def check_sizes(
    tensors: Iterable[TensorSpec],
    axes: Iterable[AxisRange],
    shapes: Mapping[str, tuple[int, ...]],
    wording: Wording,
) -> None:
    """Check the shapes of one call; an axis that is not in `axes` may have any length.

    Raises:
        SegQuantError: naming the input, its size, and what is allowed.
    """
    ranges = {axis.name: axis for axis in axes}
    owners: dict[str, tuple[str, int]] = {}
    for tensor in tensors:
        _check_shape(tensor, shapes[tensor.name], wording)
        for axis, given in zip(tensor.shape, shapes[tensor.name], strict=True):
            if isinstance(axis, int):
                continue
            if axis in ranges:
                _check_length(tensor.name, given, ranges[axis], wording)
            owner, first = owners.setdefault(axis, (tensor.name, given))
            if given != first:
                raise SegQuantError(
                    f"{wording.subject(tensor.name)} has {axis} {given}, "
                    f"but '{owner}' has {axis} {first}; they must agree",
                    hint=wording.hint,
                )


def _check_shape(tensor: TensorSpec, given: tuple[int, ...], wording: Wording) -> None:
    if len(given) == len(tensor.shape) and all(
        want == have
        for want, have in zip(tensor.shape, given, strict=True)
        if isinstance(want, int)
    ):
        return
    raise SegQuantError(
        f"{wording.subject(tensor.name)} has shape {_tuple(given)}; "
        f"allowed: {_tuple(tensor.shape)}",
        hint=wording.hint,
    )


def _check_length(name: str, given: int, axis: AxisRange, wording: Wording) -> None:
    if axis.minimum <= given <= axis.maximum and given % axis.multiple == 0:
        return
    multiple = f" in multiples of {axis.multiple}" if axis.multiple > 1 else ""
    raise SegQuantError(
        f"{wording.subject(name)} has {axis.name} {given}; "
        f"allowed: {axis.minimum} to {axis.maximum}{multiple}",
        hint=wording.hint,
    )


def _tuple(shape: tuple[int | str, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
