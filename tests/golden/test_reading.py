"""The labels against values that flow through the torch modules: no ONNX is involved."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.golden.families import FAMILIES
from tests.golden.label_file import Labels, read_labels
from tests.golden.value_flow import Flow, watched

Inputs = dict[str, Any]


@functools.cache
def labels_of(family: str) -> Labels:
    return read_labels(family)


@functools.cache
def flow_of(family: str) -> Flow:
    example = FAMILIES[family]()
    with watched(example.module) as flow:
        example.module(**example.inputs, **example.constants, return_dict=False)
    return flow


@pytest.mark.parametrize("family", FAMILIES)
def test_joined_inputs(family: str) -> None:
    labels, flow = labels_of(family), flow_of(family)
    told = {(s.module, s.sizes) for s in labels.segments if s.pattern == "concat"}
    assert set(flow.joined.items()) == told


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_heads(family: str) -> None:
    labels, flow = labels_of(family), flow_of(family)
    told = {(s.module, s.sizes) for s in labels.segments if s.pattern == "head_merge"}
    found = {(name, sizes) for name, sizes in flow.merged.items() if name not in labels.unused}
    assert found == {entry for entry in told if entry[0] not in labels.functional}


@pytest.mark.parametrize("family", FAMILIES)
def test_divided_outputs(family: str) -> None:
    labels, flow = labels_of(family), flow_of(family)
    told = {s.module: s.sizes for s in labels.segments if s.side == "output"}
    assert set(flow.pieces) == set(told)
    for module, sizes in told.items():
        # What nobody reads is divided by torch, too.
        finer = set(itertools.accumulate(flow.divided(module)))
        assert set(itertools.accumulate(sizes)) <= finer
        assert labels.unused or sizes == flow.divided(module), module


@pytest.mark.parametrize("family", FAMILIES)
def test_activations(family: str) -> None:
    labels, flow = labels_of(family), flow_of(family)
    found = {entry for entry in flow.activations if entry[0] not in labels.unused}
    assert found == {(p.module, p.segment, p.activation) for p in labels.polarity}


@pytest.mark.parametrize("family", FAMILIES)
def test_dependence(family: str) -> None:
    labels, example = labels_of(family), FAMILIES[family]()
    prompt = set(labels.prompt_inputs)
    moves: dict[str, Callable[[str], bool]] = {
        "timestep": lambda name: name == labels.timestep,
        "prompt": lambda name: name in prompt,
        "latent": lambda name: name not in {*prompt, labels.timestep},
    }
    before = inputs_of_layers(example, example.inputs)
    found: dict[str, set[str]] = {name: set() for name in before}
    for source, chosen in moves.items():
        after = inputs_of_layers(example, moved(example.inputs, chosen))
        for name, value in after.items():
            if not torch.equal(value, before[name]):
                found[name].add(source)
    only = {
        frozenset(key): set[str]() for key in ({"timestep"}, {"prompt"}, {"timestep", "prompt"})
    }
    for name, sources in found.items():
        if "latent" not in sources:
            only[frozenset(sources)].add(name)
    assert only[frozenset({"timestep"})] == labels.timestep_only
    assert only[frozenset({"prompt"})] == labels.prompt_constant - set(labels.functional)
    assert only[frozenset({"timestep", "prompt"})] == labels.prompt_and_timestep


def inputs_of_layers(example: Any, inputs: Inputs) -> dict[str, torch.Tensor]:
    with watched(example.module) as flow:
        example.module(**inputs, **example.constants, return_dict=False)
    return flow.inputs


def moved(inputs: Any, chosen: Callable[[str], bool], name: str = "") -> Any:
    """The inputs with other values in those tensors whose flat dotted name is chosen."""
    inner = f"{name}." if name else ""
    if isinstance(inputs, dict):
        return {key: moved(value, chosen, f"{inner}{key}") for key, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(moved(value, chosen, f"{inner}{i}") for i, value in enumerate(inputs))
    return other(inputs) if chosen(name) else inputs


def other(tensor: torch.Tensor) -> torch.Tensor:
    """Other values of the same kind."""
    if tensor.is_floating_point():
        return tensor * 1.5 + 0.25
    if tensor.dtype == torch.bool:
        return ~tensor
    # Masks, classes, and one style: all of them have a zero, and none is out of range.
    return (tensor == 0).to(tensor.dtype) if tensor.any() else tensor
