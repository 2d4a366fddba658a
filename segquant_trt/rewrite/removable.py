"""Which sites frozen steps and hoisting would take out of the loop: asked of the graph itself.

Taint alone does not tell: what repeats a row for every token, or reads the shape of another input,
stays where it is. So both passes are run on a copy, with tables of zeros.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from segquant_trt.graph.remove_unused import RemoveUnused
from segquant_trt.graph.wiring import node_name
from segquant_trt.records import GraphFacts
from segquant_trt.rewrite.freeze_steps import FreezeSteps
from segquant_trt.rewrite.hoist_prompt import HoistPrompt

_TWO_STEPS = (0.0, 1.0)


def removable(
    model: onnx.ModelProto, folder: Path, facts: GraphFacts, *, freezing: bool, hoisting: bool
) -> frozenset[str]:
    """Names of the sites that `rewrite` would leave out of the graph that every call runs.

    Args:
        model: the float graph, which is left as it is.
        folder: where its external data is; weights are not read.
        facts: of this graph.
        freezing: whether what depends on the timestep alone becomes tables.
        hoisting: whether what a prompt fixes becomes a graph of its own.

    Raises:
        SegQuantError: the graph cannot be frozen at all.
    """
    timestep = facts.timestep if freezing else None
    trial = onnx.ModelProto()
    trial.CopyFrom(model)
    if timestep is not None:
        FreezeSteps(timestep, _TWO_STEPS, folder, blank=True).run(trial)
        RemoveUnused().run(trial)
    if hoisting:
        HoistPrompt(facts.sites, facts.prompt_inputs, timestep, folder).run(trial)
    present = {node_name(node) for node in trial.graph.node}
    return frozenset(site.name for site in facts.sites) - present
