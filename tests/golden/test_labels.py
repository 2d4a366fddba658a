"""The labels against the modules that they speak of; what they say is checked by tracing values."""

from __future__ import annotations

import pytest
from torch import nn

from tests.golden.families import FAMILIES
from tests.golden.label_file import FOLDER, Labels, expand, read_labels

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def test_braces() -> None:
    assert expand("a.{b,c.{0,1}}.d") == ["a.b.d", "a.c.0.d", "a.c.1.d"]
    assert expand("a.b") == ["a.b"]


def test_every_family_has_labels() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_cover_the_modules(family: str) -> None:
    labels = read_labels(family)
    modules = dict(FAMILIES[family]().module.named_modules())
    linears = {name for name, module in modules.items() if isinstance(module, nn.Linear)}
    convolutions = {name for name, module in modules.items() if isinstance(module, CONVOLUTIONS)}
    assert (len(linears), len(convolutions)) == (labels.linears, labels.convolutions)
    assert torch_names(labels) | labels.unused == linears | convolutions
    assert not labels.spoken_of & labels.ordinary
    assert not labels.modules & labels.unused
    for entry in labels.segments:
        if entry.module not in labels.functional:
            module = modules[entry.module]
            assert sum(entry.sizes) == width(module, entry.side), entry


def torch_names(labels: Labels) -> set[str]:
    """Modules by torch name: those of functional calls are the children that hold the weights."""
    plain = labels.modules - set(labels.functional)
    held = {f"{module}.{child}" for module, kids in labels.functional.items() for child in kids}
    return set(plain) | held


def width(module: nn.Module, side: str) -> int:
    """Channels that a Linear or convolution takes or gives."""
    if isinstance(module, nn.Linear):
        return module.in_features if side == "input" else module.out_features
    assert isinstance(module, CONVOLUTIONS)
    return module.in_channels if side == "input" else module.out_channels
