"""Replace what depends on the timestep alone by tables over the steps of a schedule.

| before                                     | after                                     |
|--------------------------------------------|-------------------------------------------|
| `timestep -> sin, cos -> GEMM -> ... -> v` | `Gather(table of v [T, C...], row) -> v`  |
| readers of v                               | as they are                               |

The row [B] of every sample: `timestep -> Cast -> Reshape [B, 1] -> GreaterOrEqual(midpoints of the
steps [1, T - 1]) -> Cast -> ReduceSum`.

The part is found by which inputs values depend on, never by names. A tensor without one row of
fixed length per sample stays, and what it is computed from is replaced. Tables are computed once,
in float, by ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from segquant_trt.backends.emission import Builder
from segquant_trt.backends.onnxruntime import float_session
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.names import FreshNames
from segquant_trt.graph.passes import Pass
from segquant_trt.graph.remove_unused import part_for
from segquant_trt.graph.view import GraphView
from segquant_trt.graph.wiring import node_name, read_tensors
from segquant_trt.records.step_rows import step_edges
from segquant_trt.rewrite.ensure import check_untouched

Array = npt.NDArray[np.generic]

_OPSET = 13  # ReduceSum takes its axes as an input
_LENGTHS = (16, 32)  # of axes that tables must not depend on
_ROUNDING = 1e-4  # batches of two sizes may be summed in another order
_HINT = "this is a defect of the rewrite stage; please report it with the graph"


class FreezeSteps(Pass):
    """See the module's table. After `run`, `frontier` names the tensors that tables replaced.

    Args:
        timestep: the graph input, one value per sample.
        timesteps: distinct float32 values, ascending; see `table_steps`.
        folder: where the graph's external data is.
        blank: tables hold zeros, which is enough to see what goes.
    """

    def __init__(
        self, timestep: str, timesteps: Sequence[float], folder: Path, *, blank: bool = False
    ) -> None:
        self.frontier: tuple[str, ...] = ()
        self._timestep = timestep
        self._steps = tuple(timesteps)
        self._folder = folder
        self._blank = blank

    def requires(self, model: onnx.ModelProto) -> None:
        """The timestep is an input with one value per sample."""
        opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        if opset < _OPSET:
            raise SegQuantError(
                f"the graph is of opset {opset}; {_OPSET} or later is needed to freeze steps",
                hint="export it again, or convert it with onnx.version_converter",
            )
        given = {value.name: value for value in model.graph.input}
        if self._timestep not in given:
            raise SegQuantError(
                f"the graph has no input '{self._timestep}'", hint="--timestep names the input"
            )
        rank = len(given[self._timestep].type.tensor_type.shape.dim)
        if rank != 1:
            raise SegQuantError(
                f"the timestep '{self._timestep}' has rank {rank}; steps are frozen per sample, "
                "which needs one value for each",
                hint="export the denoiser again with this version, or leave --freeze-schedule out",
            )

    def apply(self, model: onnx.ModelProto) -> None:
        """Compute the tables, and put Gathers where the tensors were produced."""
        view = GraphView.of(model, self._folder)
        self.frontier = _frontier(view, self._timestep)
        if not self.frontier:
            return
        tables = self._zeros(view) if self._blank else self._tables(model, view)
        builder = Builder(FreshNames(model.graph))
        index = self._index(builder)
        replaced = set(self.frontier)
        for node in view.wiring.nodes:
            own = [name for name in node.output if name in replaced]
            if not own:
                builder.nodes.append(node)
            for name in own:
                table = builder.constant(tables[name], f"{name}_by_step")
                builder.rename(builder.node("Gather", [table, index], f"{name}_row"), name)
        rebuilt = onnx.GraphProto(node=builder.nodes)
        del model.graph.node[:]
        model.graph.node.extend(rebuilt.node)
        model.graph.initializer.extend(builder.constants)

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> None:
        """Only the producers of the frontier changed, and each is now a Gather."""
        replaced = set(self.frontier)
        changed = {node_name(n) for n in before.graph.node if replaced.intersection(n.output)}
        check_untouched(before, after, changed)
        made = {name: n.op_type for n in after.graph.node for name in n.output if name in replaced}
        for name in self.frontier:
            if made.get(name) != "Gather":
                raise SegQuantError(f"tensor '{name}' has no table", hint=_HINT)

    def _index(self, builder: Builder) -> str:
        """int64[B]: the row of every sample. Midpoints decide; `serve` refuses what is too far."""
        edges = step_edges(self._steps) if len(self._steps) > 1 else np.array([np.inf], np.float32)
        name = self._timestep
        column = builder.constant(np.array([-1, 1], dtype=np.int64), "one_column")
        wide = builder.node("Cast", [name], f"{name}_as_float32", to=TensorProto.FLOAT)
        steps = builder.node("Reshape", [wide, column], f"{name}_of_sample")
        middle = builder.constant(edges.reshape(1, -1), "step_midpoints")
        reached = builder.node("GreaterOrEqual", [steps, middle], f"{name}_passed")
        ones = builder.node("Cast", [reached], f"{name}_passed_ones", to=TensorProto.INT64)
        axes = builder.constant(np.array([1], dtype=np.int64), "step_axis")
        return builder.node("ReduceSum", [ones, axes], f"{name}_row", keepdims=0)

    def _zeros(self, view: GraphView) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for name in self.frontier:
            row = [length for length in (view.shapes.of(name) or ())[1:] if isinstance(length, int)]
            found[name] = np.zeros((len(self._steps), *row), dtype=np.float32)
        return found

    def _tables(self, model: onnx.ModelProto, view: GraphView) -> dict[str, Array]:
        """[T, C...] by frontier tensor.

        Raises:
            SegQuantError: a tensor depends on the size of another input or on other samples, or is
                not finite.
        """
        part = part_for(model, self.frontier)
        del part.graph.value_info[:]
        session = float_session(part, self._folder)
        first, second = (session.run(self._feeds(part, self._steps, n)) for n in _LENGTHS)
        pair = (self._steps[0], self._steps[0] + 1.0)
        other = session.run(self._feeds(part, pair, _LENGTHS[0]))
        for name in self.frontier:
            own, row = first[name][0], other[name][0]
            if not np.allclose(row, own, rtol=0.0, atol=_ROUNDING * float(np.abs(own).max())):
                raise SegQuantError(
                    f"'{name}' of one sample depends on the timesteps of the others",
                    hint="leave --freeze-schedule out for this model",
                )
            if not np.array_equal(first[name], second[name]):
                raise SegQuantError(
                    f"'{name}' depends on the timestep and on the size of another input, "
                    "or is not a number",
                    hint="leave --freeze-schedule out for this model",
                )
        return first

    def _feeds(
        self, part: onnx.ModelProto, steps: Sequence[float], length: int
    ) -> dict[str, Array]:
        """A sample per step; of other inputs only the shape can matter."""
        given = {value.name: value.type.tensor_type for value in part.graph.input}
        samples = given[self._timestep].shape.dim[0].dim_param
        feeds: dict[str, Array] = {}
        for name, kind in given.items():
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            if name == self._timestep:
                feeds[name] = np.array(steps).astype(dtype)
                continue
            shape = [
                len(steps) if samples and d.dim_param == samples else d.dim_value or length
                for d in kind.shape.dim
            ]
            feeds[name] = np.zeros(shape, dtype=dtype)
        return feeds


def _frontier(view: GraphView, timestep: str) -> tuple[str, ...]:
    """Tensors with one row per sample that depend on the timestep alone and that the rest reads."""
    only = frozenset((timestep,))
    samples = (view.shapes.of(timestep) or (None,))[0]

    def has_rows(name: str) -> bool:
        shape = view.shapes.of(name)
        return (
            view.dependence[name] == only
            and bool(shape)
            and shape is not None
            and shape[0] == samples
            and all(isinstance(length, int) for length in shape[1:])
        )

    wiring = view.wiring
    needed = set(wiring.graph_outputs)
    found: list[str] = []
    for node in reversed(wiring.nodes):
        wanted = [name for name in node.output if name in needed]
        if wanted and all(has_rows(name) for name in wanted):
            found.extend(reversed(wanted))
        elif wanted:
            needed.update(read_tensors(node))
    return tuple(reversed(found))
