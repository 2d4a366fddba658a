"""What `analyze` reads in the graph: every GEMM and convolution with a constant weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

SiteOp = Literal["MatMul", "Gemm", "Conv"]
SiteRole = Literal["body", "embedder", "modulation", "final"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSite:
    """A MatMul, Gemm or Conv with a constant weight: `y = x W + b`.

    `name` is the ONNX node name, else its first output's name. `activation` is the tensor it
    reads; `output` the tensor after the bias (the node's own output when there is none).
    `weight` and `bias` are initializer names in the float graph. `weight_layout` says how the
    initializer is stored: `KN`, `NK` (torch Linear) or `NCHW` (convolution, also 1-D and 3-D).
    """

    name: str
    op: SiteOp
    module: str | None
    role: SiteRole
    activation: str
    weight: str
    weight_layout: Literal["KN", "NK", "NCHW"]
    bias: str | None
    bias_node: str | None
    output: str
    in_features: int
    out_features: int
    kernel: tuple[int, ...]
    groups: int
    activation_rank: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFacts:
    """`facts.yaml`: the sites in graph order, and remarks."""

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int = 1
    onnx_sha256: str
    sites: tuple[LinearSite, ...]
    timestep_only: tuple[str, ...]
    notes: tuple[str, ...]

    def site(self, name: str) -> LinearSite | None:
        """The site called `name`, or None."""
        return next((site for site in self.sites if site.name == name), None)
