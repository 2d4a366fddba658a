"""A TensorRT engine as a subject: its inputs stay on the GPU, its events tell the time.

Not executed on a GPU by this project's tests; the order of things is tested with stand-ins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from segquant_trt.bench.baselines.events import CudaEvents
from segquant_trt.bench.cases import BATCH, Interface
from segquant_trt.bench.timed import Timed, check_kind
from segquant_trt.records import AxisRange, TensorSpec
from segquant_trt.records.engine import ShapeProfile, ShapeRange

if TYPE_CHECKING:
    from segquant_trt.models.loop import Array, Float32


class TensorSession(Protocol):
    """An opened engine, whose work takes its turn on the caller's stream."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes."""

    def run_tensors(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name, as torch tensors on its device; the host does not wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSubject:
    """An engine on the device `device` of torch.

    Args:
        cuda: `torch.cuda`, for events.
    """

    name: str
    session: TensorSession
    device: str
    cuda: Any
    pci_bus_id: str | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the engine takes."""
        return self.session.inputs

    def bind(self, inputs: Mapping[str, Array]) -> Timed:
        """The engine on these inputs, which are moved to its device once.

        Raises:
            SegQuantError: one is missing, or of another kind.
        """
        given = {spec.name: self._placed(inputs, spec) for spec in self.inputs}
        return EngineTimed(
            name=self.name, session=self.session, given=given, events=CudaEvents(self.cuda)
        )

    def _placed(self, inputs: Mapping[str, Array], spec: TensorSpec) -> Any:
        import torch

        array = check_kind(inputs, spec, self.name)
        tensor = torch.from_numpy(np.array(array, order="C"))
        return tensor.to(device=self.device, dtype=getattr(torch, spec.dtype))


@dataclass(slots=True, kw_only=True)
class EngineTimed:
    """One call on tensors that lie on the device."""

    name: str
    session: TensorSession
    given: Mapping[str, Any]
    events: CudaEvents
    _last: dict[str, Any] = field(default_factory=dict)

    def run(self) -> float | None:
        """One call; milliseconds between the GPU's events."""
        return self.events.time(self._call)

    def _call(self) -> None:
        self._last = self.session.run_tensors(self.given)

    def answer(self) -> Float32:
        """The first output of the last call, on the host."""
        found: Float32 = next(iter(self._last.values())).float().cpu().numpy()
        return found


def engine_interface(inputs: tuple[TensorSpec, ...], profile: ShapeProfile | None) -> Interface:
    """What an engine takes, with the lengths that its first profile allows and prefers.

    An engine does not know which axes belong together. Leading axes with the same range as the
    first input's are taken for the batch; every other axis is one of its own.
    """
    if profile is None:
        return Interface(inputs=inputs)
    leading = next((_range(profile, spec, 0) for spec in inputs if spec.shape), None)
    axes: dict[str, AxisRange] = {}
    named: list[TensorSpec] = []
    for spec in inputs:
        shape: list[int | str] = list(spec.shape)
        for position, axis in enumerate(spec.shape):
            lengths = _range(profile, spec, position)
            if isinstance(axis, int) or lengths is None:
                continue
            name = BATCH if position == 0 and lengths == leading else axis
            shape[position] = name
            low, usual, high = lengths
            axes[name] = AxisRange(name=name, minimum=low, typical=usual, maximum=high)
        named.append(TensorSpec(name=spec.name, dtype=spec.dtype, shape=tuple(shape)))
    return Interface(inputs=tuple(named), axes=tuple(axes.values()))


def _range(profile: ShapeProfile, spec: TensorSpec, position: int) -> tuple[int, int, int] | None:
    found: ShapeRange | None = profile.of(spec.name)
    if found is None:
        return None
    return found.minimum[position], found.optimum[position], found.maximum[position]
