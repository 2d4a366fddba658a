"""Prove on the target's own executable graph that every planned site runs in integers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segquant_trt.backends import Backend
from segquant_trt.backends.base import Array
from segquant_trt.backends.hoisting import WholeRunner, open_whole
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.graph.hoisted_stamp import hoisted_prompt, prompt_path
from segquant_trt.records import AxisRange, ModelSpec, QuantPlan

_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerShare:
    """Sites of the graph that runs, those that run in integers, and their share of the MACs."""

    sites_total: int
    sites_integer: int
    macs_integer_share: float


def prove_integer(
    backend: Backend,
    quantized: Path,
    spec: ModelSpec,
    plan: QuantPlan,
    *,
    absent: Collection[str] = (),
) -> IntegerShare:
    """Look up every planned site in the graph that the runtime executes.

    Sites that are `absent`, as tables are or what runs once per prompt, do not count.

    Raises:
        SegQuantError: naming the sites that fell back to float, and what executes them.
    """
    present = [site for site in plan.sites if site.site not in absent]
    planned = [site for site in present if site.treatment.is_integer]
    names = [site.site for site in planned]
    proofs = backend.integer_sites(quantized, names, example=_example(backend, quantized, spec))
    fallen = [name for name in names if not proofs[name].integer]
    if fallen:
        listed = ", ".join(f"'{name}' ({proofs[name].kernel})" for name in fallen[:_NAMED])
        more = f" and {len(fallen) - _NAMED} more" if len(fallen) > _NAMED else ""
        raise SegQuantError(
            f"{len(fallen)} of {len(names)} planned sites would run in float on "
            f"'{plan.target}': {listed}{more}",
            hint="keep them in float knowingly (--keep-float SITE), or choose another target",
        )
    total = sum(site.macs_per_sample for site in present)
    integer = sum(site.macs_per_sample for site in planned)
    return IntegerShare(
        sites_total=len(present),
        sites_integer=len(planned),
        macs_integer_share=integer / total if total else 0.0,
    )


def smallest_inputs(spec: ModelSpec) -> dict[str, Array]:
    """Zeros at the smallest allowed size, enough for a runtime to settle on its kernels."""
    lengths = {axis.name: _smallest(axis) for axis in spec.axes}
    return {
        tensor.name: np.zeros(
            [lengths[axis] if isinstance(axis, str) else axis for axis in tensor.shape],
            dtype=tensor.dtype,
        )
        for tensor in spec.inputs
    }


def _example(backend: Backend, quantized: Path, spec: ModelSpec) -> dict[str, Array]:
    """Inputs of the graph itself, which may have others than the denoiser."""
    example = smallest_inputs(spec)
    if hoisted_prompt(load_graph(quantized)) is None:
        return example
    whole = open_whole(quantized, prompt_path(quantized), backend.open)
    assert isinstance(whole, WholeRunner)
    return whole.feeds(example)


def _smallest(axis: AxisRange) -> int:
    return -(-axis.minimum // axis.multiple) * axis.multiple
