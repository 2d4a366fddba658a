"""What analyze says about exported denoisers, against the numbers that ONNX Runtime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segquant_trt.analyze import analyze
from segquant_trt.backends.onnxruntime import float_session
from segquant_trt.calibrate.collect import with_outputs
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.models import family_for
from segquant_trt.records import CheckpointLocation, GraphFacts, LinearSite, ModelSpec, SiteSegments
from segquant_trt.records.codec import read_record
from tests.analyze.graphs import Array
from tests.shared import LazyFolders

# Least values: of x sigmoid(x), and of x Phi(x) and its approximation.
LOWEST = {"silu": -0.2785, "gelu": -0.1701, "gelu_tanh": -0.1703}
CHANNELS_FIRST = 1


def facts_and_values(run: Path) -> tuple[GraphFacts, dict[str, Array]]:
    """The facts, and the values of every tensor that they name, for random inputs."""
    model, spec = load_graph(run / "model.onnx"), read_record(run / "model.yaml", ModelSpec)
    facts = analyze(run / "model.onnx")
    lengths = {axis.name: axis.typical for axis in spec.axes} | {"batch": 2}
    feeds = family_for(spec.class_name).example_inputs(spec.config, lengths, seed=3)
    wanted = {name for site in facts.sites for name in (site.activation, site.output)}
    wanted |= {name for found in facts.segments for name in found.tensors}
    folder = Path(read_record(run / "model.location.yaml", CheckpointLocation).folder)
    session = float_session(with_outputs(model, sorted(wanted - set(feeds))), folder, threads=1)
    return facts, {**feeds, **session.run(feeds)}


def channels(site: LinearSite, tensor: Array, sizes: tuple[int, ...]) -> list[Array]:
    """The tensor's channels, divided."""
    axis = 1 if site.op == "Conv" else tensor.ndim - 1
    return np.split(tensor, np.cumsum(sizes)[:-1], axis=axis)


def same_numbers(left: Array, right: Array) -> bool:
    """Whether two arrays hold the same numbers, in any order and as often."""
    return left.size == right.size and np.array_equal(np.sort(left, None), np.sort(right, None))


def holds(site: LinearSite, found: SiteSegments, values: dict[str, Array]) -> bool:
    """Whether each segment's channels hold the numbers of its tensor."""
    whole = values[site.activation if found.side == "input" else site.output]
    parts = channels(site, whole, found.sizes)
    if found.pattern == "head_merge":
        heads = np.moveaxis(values[found.tensors[0]], 1, 0)  # [B, H, S, D]; some of the tokens
        return all(np.isin(part, head).all() for part, head in zip(parts, heads, strict=True))
    pairs = zip(parts, found.tensors, strict=True)
    return all(same_numbers(part, values[name]) for part, name in pairs)


@pytest.mark.parametrize("kind", ["sd15", "flux"])
def test_facts_hold_for_what_the_graph_computes(kind: str, exported_tiny: LazyFolders) -> None:
    facts, values = facts_and_values(exported_tiny[kind])
    sites = {site.name: site for site in facts.sites}
    # conv1 of a UNet reads its Concat behind a norm: other numbers at the same places.
    direct = [s for s in facts.segments if not (s.module or "").endswith("conv1")]
    assert {(s.side, s.pattern) for s in direct} == {
        ("input", "concat"), ("input", "head_merge"), ("output", "split"),
    }  # fmt: skip
    assert [s for s in direct if not holds(sites[s.site], s, values)] == []
    whole = [p for p in facts.polarity if p.segment is None and p.activation in LOWEST]
    assert whole
    for polarity in whole:
        activation = values[sites[polarity.site].activation]
        assert LOWEST[polarity.activation] <= activation.min() < 0 < activation.max()


@pytest.mark.parametrize("kind", ["sd15", "flux"])
def test_a_wrong_place_would_be_noticed(kind: str, exported_tiny: LazyFolders) -> None:
    facts, values = facts_and_values(exported_tiny[kind])
    sites = {site.name: site for site in facts.sites}
    for found in facts.segments:
        if found.pattern == "split":
            sizes = (found.sizes[0] + 1, found.sizes[1] - 1, *found.sizes[2:])
            moved = SiteSegments(
                site=found.site, module=None, side="output", pattern="split", sizes=sizes,
                tensors=found.tensors,
            )  # fmt: skip
            assert not holds(sites[found.site], moved, values)
