"""What analyze says about twelve families, against labels written by hand from their sources.

The graphs come from several exporters; a module's labels hold for all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import pytest

from segquant_trt.analyze import analyze
from segquant_trt.records import GraphFacts, LinearSite
from tests.golden.catalogue import GRAPHS, packed_path, read_graph
from tests.golden.export import EXPORTERS, export_in_child
from tests.golden.label_file import Labels, read_labels

Difference = dict[str, dict[str, list[Any]]]


@pytest.mark.parametrize("name", GRAPHS)
def test_facts_are_the_labels(name: str, tmp_path: Path) -> None:
    labels = read_labels(GRAPHS[name][0])
    path = unpacked(packed_path(name), tmp_path)
    facts = analyze(path, timestep=labels.timestep, prompts=labels.prompt_inputs)
    assert differences(facts, labels) == {}


@pytest.mark.parametrize("name", [name for name in GRAPHS if name.endswith(".optimized")])
def test_guessed_inputs_lead_to_the_same_facts(name: str, tmp_path: Path) -> None:
    labels = read_labels(GRAPHS[name][0])
    facts = analyze(unpacked(packed_path(name), tmp_path))
    assert facts.timestep == labels.timestep
    assert set(labels.prompt_inputs) <= set(facts.prompt_inputs)
    assert differences(facts, labels) == {}


@pytest.mark.full
@pytest.mark.parametrize("name", GRAPHS)
def test_export_again(name: str, tmp_path: Path) -> None:
    labels = read_labels(GRAPHS[name][0])
    packed = tmp_path / "again.onnx.xz"
    export_in_child(name, packed)
    facts = analyze(
        unpacked(packed, tmp_path), timestep=labels.timestep, prompts=labels.prompt_inputs
    )
    assert differences(facts, labels) == {}
    committed, again = read_graph(packed_path(name)), read_graph(packed)
    # Other releases of the exporters write other nodes for the same model.
    if versions(committed) == {package: version(package) for package in EXPORTERS}:
        assert structure(again) == structure(committed)


def test_differences_are_found(tmp_path: Path) -> None:
    labels = read_labels("dit")
    facts = analyze(
        unpacked(packed_path("pixart.optimized"), tmp_path),
        timestep=labels.timestep,
        prompts=("encoder_hidden_states",),
    )
    found = differences(facts, labels)
    assert {"modules", "segments", "polarity", "timestep_only", "prompt_constant"} <= set(found)
    assert "proj_out_1" in found["modules"]["missed"]


def unpacked(packed: Path, folder: Path) -> Path:
    """The graph as an ONNX file, without its weights."""
    path = folder / "model.onnx"
    path.write_bytes(read_graph(packed).SerializeToString())
    return path


def differences(facts: GraphFacts, labels: Labels) -> Difference:
    """What is missed and what is too much, by subject; empty when all agree."""
    modules = {site.name: module_of(site) for site in facts.sites}
    found = {
        "modules": modules.values(),
        "segments": ((modules[s.site], s.side, s.sizes) for s in facts.segments),
        "patterns": ((modules[s.site], s.side, kind(s.pattern)) for s in facts.segments),
        "trivial": (modules[s.site] for s in facts.segments if s.trivial),
        "polarity": ((modules[p.site], p.segment, p.activation) for p in facts.polarity),
        "timestep_only": (modules[entry.site] for entry in facts.timestep_only),
        "prompt_constant": (modules[site] for site in facts.prompt_constant),
        "prompt_and_timestep": (modules[site] for site in facts.prompt_and_timestep),
    }
    told = {
        "modules": labels.modules,
        "segments": ((s.module, s.side, s.sizes) for s in labels.segments),
        "patterns": ((s.module, s.side, kind(s.pattern)) for s in labels.segments),
        "trivial": (s.module for s in labels.segments if s.trivial),
        "polarity": ((p.module, p.segment, p.activation) for p in labels.polarity),
        "timestep_only": labels.timestep_only,
        "prompt_constant": labels.prompt_constant,
        "prompt_and_timestep": labels.prompt_and_timestep,
    }
    unequal = {key: _unequal(found[key], told[key]) for key in told}
    unequal["site count"] = _miscounted(Counter(modules.values()), labels)
    sides = Counter((s.site, s.side) for s in facts.segments)
    unequal["told twice"] = {"extra": [side for side, count in sides.items() if count > 1]}
    return {key: value for key, value in unequal.items() if any(value.values())}


def _unequal(found: Iterable[Any], told: Iterable[Any]) -> dict[str, list[Any]]:
    have, want = set(found), set(told)
    return {"missed": sorted(want - have, key=str), "extra": sorted(have - want, key=str)}


def _miscounted(counts: Counter[str], labels: Labels) -> dict[str, list[Any]]:
    wrong = []
    for module, count in counts.items():
        once = len(labels.functional.get(module, (module,)))
        allowed = {once, 2 * once} if module in labels.called_twice else {once}
        if count not in allowed:
            wrong.append((module, count))
    return {"extra": wrong}


def kind(pattern: str) -> str:
    """The TorchScript exporter writes a chunk as Slices."""
    return "split" if pattern == "slice" else pattern


def module_of(site: LinearSite) -> str:
    """The torch module of a site; the TorchScript exporter has it in the node's name."""
    return site.module or ".".join(site.name.strip("/").split("/")[:-1])


def versions(model: onnx.ModelProto) -> dict[str, str]:
    """Releases of the packages that wrote a golden graph."""
    return {entry.key: entry.value for entry in model.metadata_props}


def structure(model: onnx.ModelProto) -> list[tuple[Any, ...]]:
    """Nodes and initializers without numbers, whose last digit is the machine's."""
    nodes = [(n.op_type, n.name, *n.input, "->", *n.output) for n in model.graph.node]
    return nodes + [(t.name, t.data_type, *t.dims) for t in model.graph.initializer]
