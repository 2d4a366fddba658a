"""One graph with everything that matchers ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from segquant_trt.graph.constants import Constants
from segquant_trt.graph.shapes import Shapes, infer_shapes
from segquant_trt.graph.taint import Taint, input_dependence
from segquant_trt.graph.wiring import Wiring


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphView:
    """Wiring, small constants, shapes and input dependence of a graph."""

    wiring: Wiring
    constants: Constants
    shapes: Shapes
    dependence: dict[str, Taint]

    @classmethod
    def of(cls, model: onnx.ModelProto, folder: Path | None = None) -> GraphView:
        """Read a graph; `folder` is where its external data would be."""
        wiring = Wiring(model.graph)
        constants = Constants(wiring, folder)
        return cls(
            wiring=wiring,
            constants=constants,
            shapes=infer_shapes(model, wiring, constants),
            dependence=input_dependence(wiring),
        )

    def has_one_row(self, name: str) -> bool:
        """Whether a sample of the tensor is known to be one row: a vector, not one per token."""
        dims = self.shapes.of(name)
        lengths = () if dims is None else dims[1:]
        fixed = all(isinstance(length, int) for length in lengths)
        return dims is not None and fixed and sum(length != 1 for length in lengths) <= 1

    def varies(self, name: str) -> bool:
        """Whether the tensor's values depend on any input; shapes do not count."""
        return bool(self.dependence.get(name))
