"""What is timed: something that answers on inputs it was given once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from segquant_trt.errors import SegQuantError
from segquant_trt.records import TensorSpec

if TYPE_CHECKING:
    from segquant_trt.models.loop import Array, Float32


class Timed(Protocol):
    """One subject bound to one set of inputs.

    A GPU subject keeps its inputs on the device, records an event before and after the work,
    synchronises, and returns the milliseconds between the events.
    """

    @property
    def name(self) -> str:
        """How tables call it."""

    def run(self) -> float | None:
        """One whole call; milliseconds by the device's events, None where wall clock counts."""

    def answer(self) -> Float32:
        """The prediction of the last call, float32 on the host."""


class Subject(Protocol):
    """Something opened that can be bound to inputs of any allowed size."""

    @property
    def name(self) -> str:
        """How tables call it."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes; axes without a fixed length have names."""

    @property
    def pci_bus_id(self) -> str | None:
        """The GPU that it runs on (`00000000:01:00.0`), None on a CPU."""

    def bind(self, inputs: Mapping[str, Array]) -> Timed:
        """The subject on these inputs; floats are converted to the type that it takes.

        Raises:
            SegQuantError: it does not take them.
        """


@dataclass(slots=True, kw_only=True)
class HostTimed:
    """A CPU call: what `denoise` takes is the time."""

    name: str
    denoise: Callable[[Mapping[str, Array]], Array]
    given: Mapping[str, Array]
    _last: Array | None = field(default=None)

    def run(self) -> float | None:
        """One call, to be timed by wall clock."""
        self._last = self.denoise(self.given)
        return None

    def answer(self) -> Float32:
        """The prediction of the last call."""
        assert self._last is not None, "run() comes first"
        return np.asarray(self._last, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSubject:
    """A function on the CPU."""

    name: str
    inputs: tuple[TensorSpec, ...]
    denoise: Callable[[Mapping[str, Array]], Array]
    pci_bus_id: str | None = None

    def bind(self, inputs: Mapping[str, Array]) -> Timed:
        """The function on these inputs."""
        return HostTimed(
            name=self.name, denoise=self.denoise, given=converted(inputs, self.inputs, self.name)
        )


def converted(
    inputs: Mapping[str, Array], specs: tuple[TensorSpec, ...], name: str
) -> dict[str, Array]:
    """Inputs in the types that a subject takes; a float stays a float, an integer an integer.

    Raises:
        SegQuantError: an input is missing, or is of another kind.
    """
    return {spec.name: _converted(inputs, spec, name) for spec in specs}


def _converted(inputs: Mapping[str, Array], spec: TensorSpec, name: str) -> Array:
    return check_kind(inputs, spec, name).astype(np.dtype(spec.dtype), copy=False)


def check_kind(inputs: Mapping[str, Array], spec: TensorSpec, name: str) -> Array:
    """The input that a subject's `spec` speaks of, in whatever width it is.

    Raises:
        SegQuantError: it is missing, or a float in an integer's place.
    """
    array = inputs.get(spec.name)
    if array is None:
        raise SegQuantError(
            f"{name} takes an input '{spec.name}'; given are {', '.join(inputs)}",
            hint="compare subjects of one model, or give all inputs in one file with --inputs",
        )
    if is_float(array.dtype.name) and not is_float(spec.dtype):
        raise SegQuantError(
            f"input '{spec.name}' is {array.dtype.name}; {name} takes {spec.dtype}",
            hint="compare subjects of one model",
        )
    return array


def is_float(dtype: str) -> bool:
    """Whether a type's name is that of a floating-point type, NumPy's own or not."""
    return "float" in dtype
