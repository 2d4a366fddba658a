"""`manifest.json`: what a bundle holds, and what it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from segquant_trt.records.frozen_steps import FrozenSteps
from segquant_trt.records.hoisted_prompt import HoistedPrompt
from segquant_trt.records.model_spec import AxisRange, TensorSpec
from segquant_trt.records.plan import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile:
    """One file of a bundle, by its name relative to the bundle's folder."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The bundle's table of contents. No dates, hosts or timings: two builds agree byte by byte.

    Sites are counted in the graph that runs at every call on the steps of `frozen`, where there
    are any; what is `hoisted` runs once per prompt beside it.
    """

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int = 1
    target: Target
    source: str
    family: str
    class_name: str
    config: dict[str, Any]
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    axes: tuple[AxisRange, ...]
    timestep: str | None
    files: tuple[BundleFile, ...]
    versions: dict[str, str]
    provenance: dict[str, str]  # sha256 of the float graph, facts, calibration, plan
    size_bytes_float: int
    size_bytes_quantized: int
    sites_total: int
    sites_integer: int
    macs_integer_share: float
    frozen: FrozenSteps | None = None
    hoisted: HoistedPrompt | None = None
