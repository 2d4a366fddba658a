"""Which sites cost most: the denoiser's output with one site quantised at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segquant_trt.backends.onnxruntime import float_session
from segquant_trt.records import GraphFacts, KeepFloat, QuantPlan, SiteError, SitePlan
from segquant_trt.verify.figures import sqnr_db

if TYPE_CHECKING:
    import onnx

    from segquant_trt.models.loop import Array, Float32

Simulate = Callable[["onnx.ModelProto", GraphFacts, QuantPlan], "onnx.ModelProto"]


def site_errors(
    model: onnx.ModelProto,
    weights_folder: Path,
    facts: GraphFacts,
    plan: QuantPlan,
    batches: Sequence[tuple[Mapping[str, Array], Float32]],
    *,
    simulate: Simulate,
    threads: int | None = None,
    on_site: Callable[[int, int], None] | None = None,
) -> tuple[SiteError, ...]:
    """SQNR of the output when one site alone is quantised, worst first.

    Args:
        batches: inputs and the float model's outputs for them.
        simulate: writes fake quantisation of a plan into the float graph.
    """
    planned = [site for site in plan.sites if not isinstance(site.activation, KeepFloat)]
    errors = []
    for index, site in enumerate(planned):
        alone = replace(plan, sites=(site,))
        session = float_session(simulate(model, facts, alone), weights_folder, threads=threads)
        output = model.graph.output[0].name
        decibels = [
            sqnr_db(reference, session.run(inputs, outputs=[output])[output])
            for inputs, reference in batches
        ]
        errors.append(_error(site, float(np.mean(np.concatenate(decibels)))))
        if on_site is not None:
            on_site(index + 1, len(planned))
    return tuple(sorted(errors, key=lambda error: (error.sqnr_db, error.site)))


def _error(site: SitePlan, decibels: float) -> SiteError:
    return SiteError(site=site.site, module=site.module, sqnr_db=decibels)


__all__ = ["Iterator", "Simulate", "site_errors"]
