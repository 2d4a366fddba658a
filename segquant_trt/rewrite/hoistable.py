"""Which tensors a second graph can compute once per prompt.

Two kinds: those that depend on prompt inputs alone, and, where a schedule is frozen, those that
depend on the timestep as well and have one row per sample. Unlike taint, shapes count here: what
reads the shape of another input must stay beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from onnx import NodeProto

from segquant_trt.graph.attributes import has_default_domain, int_attribute, ints_attribute
from segquant_trt.graph.dims import Dim, Expr
from segquant_trt.graph.pointwise import is_pointwise
from segquant_trt.graph.taint import Taint
from segquant_trt.graph.view import GraphView
from segquant_trt.graph.wiring import read_tensors
from segquant_trt.records import LinearSite

_LIGHT = frozenset(
    {"Add", "Cast", "Div", "Gather", "Identity", "Mul", "Neg", "Reshape", "Slice", "Split",
     "Squeeze", "Sub", "Transpose", "Unsqueeze"}
)  # fmt: skip
# Row by row whenever their outputs still have the samples as first axis.
_BY_ROW = frozenset(
    {"Expand", "Flatten", "Gemm", "GroupNormalization", "InstanceNormalization", "MatMul",
     "ReduceMean", "ReduceSum", "ReduceSumSquare", "Reshape", "Squeeze", "Unsqueeze"}
)  # fmt: skip
# The same, where they do not work along the first axis; with their default axis.
_ALONG = {"Concat": 0, "Gather": 0, "LayerNormalization": -1, "LogSoftmax": -1,
          "RMSNormalization": -1, "Softmax": -1, "Split": 0}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Hoistable:
    """`values` in graph order; those in `by_step` have a row per sample and step.

    `rows` are all tensors of the part that follow the schedule, `repeated` those that it reads
    of the rest and that have one row per sample.
    """

    values: tuple[str, ...]
    by_step: frozenset[str]
    rows: frozenset[str]
    repeated: frozenset[str]


def find_hoistable(
    view: GraphView, sites: Iterable[LinearSite], prompts: Collection[str], timestep: str | None
) -> Hoistable:
    """What leaves the graph: as far downstream as it goes, but light steps behind the last product.

    Args:
        view: the graph.
        sites: a value is worth hoisting when at least one of them stands before it.
        prompts: inputs that a prompt fixes.
        timestep: the input with a frozen schedule; None without one.
    """
    search = _Search(view, sites, frozenset(prompts), timestep)
    values = search.frontier()
    by_step = frozenset(name for name in values if name in search.rows)
    return Hoistable(
        values=values,
        by_step=by_step,
        rows=frozenset(search.rows),
        repeated=frozenset(search.repeated),
    )


class _Search:
    def __init__(
        self,
        view: GraphView,
        sites: Iterable[LinearSite],
        prompts: Taint,
        timestep: str | None,
    ) -> None:
        self._view = view
        self._outputs = frozenset(site.output for site in sites)
        self._prompts = prompts
        self._timestep = timestep
        self._worked = self._behind_sites()
        self._reach = self._reached_by()
        self._batch = (view.shapes.of(timestep) or (None,))[0] if timestep else None
        self.rows: set[str] = set()
        self.repeated: set[str] = set()
        if timestep is not None and isinstance(self._batch, Expr):
            self.rows.add(timestep)
            for node in view.wiring.nodes:
                self._follow(node)

    def frontier(self) -> tuple[str, ...]:
        """Walk up from the graph's outputs to the first tensors that can be taken."""
        wiring = self._view.wiring
        needed = set(wiring.graph_outputs)
        found: list[str] = []
        for node in reversed(wiring.nodes):
            wanted = [name for name in node.output if name in needed]
            if not wanted:
                continue
            if not all(map(self._takes, wanted)):
                needed.update(read_tensors(node))
                continue
            source = self._light_source(node)
            if source is None:
                found.extend(reversed(wanted))
            else:
                needed.add(source)
        return tuple(reversed(found))

    def _takes(self, name: str) -> bool:
        if name not in self._worked or name in self._view.wiring.graph_outputs:
            return False
        reach = self._reach[name]
        if not reach & self._prompts:
            return False
        if reach <= self._prompts:
            return self._view.varies(name) and self._view.shapes.of(name) is not None
        return name in self.rows

    def _light_source(self, node: NodeProto) -> str | None:
        """The one varying operand of a node that hardly works, if that can be taken instead."""
        if node.op_type not in _LIGHT or not self._outputs.isdisjoint(node.output):
            return None
        varying = [name for name in read_tensors(node) if self._reach.get(name)]
        return varying[0] if len(varying) == 1 and self._takes(varying[0]) else None

    def _behind_sites(self) -> frozenset[str]:
        worked: set[str] = set()
        for node in self._view.wiring.nodes:
            own = not self._outputs.isdisjoint(node.output)
            if own or not worked.isdisjoint(read_tensors(node)):
                worked.update(node.output)
        return frozenset(worked)

    def _reached_by(self) -> dict[str, Taint]:
        wiring = self._view.wiring
        reach: dict[str, Taint] = {name: frozenset((name,)) for name in wiring.graph_inputs}
        for node in wiring.nodes:
            parts = [reach.get(name, frozenset()) for name in read_tensors(node)]
            parts += [self._view.dependence.get(name, frozenset()) for name in node.output]
            taint: Taint = frozenset().union(*parts)
            reach.update({name: taint for name in node.output if name})
        return reach

    def _follow(self, node: NodeProto) -> None:
        """Note the node's outputs as rows if every row of them follows from a row of what it reads.

        With a row per sample and step in place of a row per sample they are then computed alike.
        """
        assert self._timestep is not None
        outputs = [name for name in node.output if name]
        reach = self._reach.get(outputs[0], frozenset()) if outputs else frozenset()
        if self._timestep not in reach or not reach <= self._prompts | {self._timestep}:
            return
        varying = [name for name in read_tensors(node) if self._reach.get(name)]
        repeated = [name for name in varying if self._repeats(name)]
        known = all(name in self.rows or self._is_constant_per_prompt(name) for name in varying)
        # Rows per token would cost as much once for all steps, and T times the memory.
        single = all(self._has_rows(name) and self._view.has_one_row(name) for name in outputs)
        if known and single and self._by_row(node):
            self.rows.update(outputs)
            self.repeated.update(repeated)

    def _is_constant_per_prompt(self, name: str) -> bool:
        """Not what only its shape matters of: the number of samples may be in it."""
        lengths = self._view.shapes.of(name)
        own = self._view.varies(name) and self._reach[name] <= self._prompts
        if not own or lengths is None:
            return False
        return self._has_rows(name) or not any(map(self._counts_samples, lengths))

    def _repeats(self, name: str) -> bool:
        return name not in self.rows and self._has_rows(name)

    def _has_rows(self, name: str) -> bool:
        lengths = self._view.shapes.of(name)
        return (
            bool(lengths)
            and lengths is not None
            and lengths[0] == self._batch
            and not any(map(self._counts_samples, lengths[1:]))
        )

    def _counts_samples(self, length: Dim) -> bool:
        if not isinstance(length, Expr) or not isinstance(self._batch, Expr):
            return False
        own = {atom for atoms, _ in self._batch.terms for atom in atoms}
        return any(atom in own for atoms, _ in length.terms for atom in atoms)

    def _by_row(self, node: NodeProto) -> bool:
        """Whether no answer for one sample depends on the others; False where nobody knows."""
        if is_pointwise(node):
            return True
        kind, shapes = node.op_type, self._view.shapes
        rank = shapes.rank(node.input[0]) or 0
        if not has_default_domain(node) or kind in _BY_ROW:
            return kind in _BY_ROW
        if kind in _ALONG:
            looked_up = kind == "Gather" and not self._reach.get(node.input[0])
            return looked_up or int_attribute(node, "axis", _ALONG[kind]) not in (0, -rank)
        if kind == "Transpose":
            return (ints_attribute(node, "perm") or (rank - 1,))[0] == 0
        axes = shapes.integers(node.input[3]) if kind == "Slice" and len(node.input) > 3 else None
        return axes is not None and not {0, -rank} & set(axes)
