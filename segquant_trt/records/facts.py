"""What `analyze` reads in the graph: sites, segments, polarity, dependence, and near misses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

SiteOp = Literal["MatMul", "Gemm", "Conv"]
SiteRole = Literal["body", "embedder", "modulation", "final"]
SegmentPattern = Literal["concat", "stack", "head_merge", "split", "slice", "reshape_split"]
PolarActivation = Literal["silu", "gelu", "gelu_tanh", "mish", "geglu", "swiglu", "gated_other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSite:
    """A MatMul, Gemm or Conv with a constant weight: `y = x W + b`.

    `name` is the ONNX node name, else its first output's name. `activation` is the tensor it
    reads; `output` the tensor after the bias (the node's own output when there is none).
    `weight` and `bias` are initializer names in the float graph. `weight_layout` says how the
    initializer is stored: `KN`, `NK` (torch Linear) or `NCHW` (convolution, also 1-D and 3-D).
    `weight_path` are the operators between the initializer and the site, in data-flow order.
    `computed_bias`: a Gemm's or convolution's third input is no initializer.
    """

    name: str
    op: SiteOp
    module: str | None
    role: SiteRole
    activation: str
    weight: str
    weight_layout: Literal["KN", "NK", "NCHW"]
    weight_path: tuple[str, ...] = ()
    bias: str | None
    bias_node: str | None
    output: str
    in_features: int
    out_features: int
    kernel: tuple[int, ...]
    groups: int
    activation_rank: int | None
    computed_bias: bool = False

    @property
    def has_coded_weight(self) -> bool:
        """Whether its weight is quantised already: `weight` are codes, or decoded from some."""
        return not {"QuantizeLinear", "DequantizeLinear"}.isdisjoint(self.weight_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSegments:
    """How one side of a site falls into contiguous segments.

    `sizes` are channels, in order along the contraction axis (input) or the output channels;
    nested Concats and nested splits are flattened to their leaves. `tensors` has one name per
    segment: its producer (input) or the chunk tensor (output; where several blocks split the same
    output alike, the first block's; empty where nobody reads the chunk). A `head_merge` names the
    tensor before the merge each time. `trivial`: the sine and cosine halves of a position or
    timestep embedding.
    """

    site: str
    module: str | None
    side: Literal["input", "output"]
    pattern: SegmentPattern
    sizes: tuple[int, ...]
    tensors: tuple[str, ...]
    trivial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePolarity:
    """An input whose positive and negative values differ in range, by the activation's nature.

    `segment` counts the site's input segments; None means the whole input.
    """

    site: str
    segment: int | None
    activation: PolarActivation


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestepOnlySite:
    """A site that depends on the timestep and constants alone.

    `values` are the tensors through which it leaves the timestep-only part of the graph: the
    columns of the table that could replace it.
    """

    site: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A near miss: what almost matched `pattern` at `site`, why it did not, and the culprits."""

    site: str
    pattern: str
    reason: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFacts:
    """`facts.yaml`: the sites in graph order, what surrounds them, and remarks.

    `prompt_constant` sites depend on prompt inputs and constants alone, `prompt_and_timestep` on
    these and the timestep. `timestep` and `prompt_inputs` are the graph inputs taken for them.
    """

    SCHEMA_VERSION: ClassVar[int] = 2

    schema_version: int = 2
    onnx_sha256: str
    sites: tuple[LinearSite, ...]
    segments: tuple[SiteSegments, ...] = ()
    polarity: tuple[SitePolarity, ...] = ()
    timestep_only: tuple[TimestepOnlySite, ...] = ()
    prompt_constant: tuple[str, ...] = ()
    prompt_and_timestep: tuple[str, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    timestep: str | None = None
    prompt_inputs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def site(self, name: str) -> LinearSite | None:
        """The site called `name`, or None."""
        return next((site for site in self.sites if site.name == name), None)

    def polar_segments(self, name: str, count: int) -> frozenset[int]:
        """Which of the `count` input segments of a site come from an unequal activation."""
        found = [entry.segment for entry in self.polarity if entry.site == name]
        if None in found:
            return frozenset(range(count))
        return frozenset(index for index in found if index is not None)
