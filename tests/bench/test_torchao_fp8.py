"""Which linears torchao codes, with which configuration, and where it is refused."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from segquant_trt.bench.baselines import torchao_fp8
from segquant_trt.bench.baselines.torchao_fp8 import is_wide_linear, quantize_module
from segquant_trt.errors import MissingDependencyError, SegQuantError


@dataclass
class Api:
    """`torchao.quantization` as far as it is used; remembers what was coded."""

    coded: list[str] = field(default_factory=list)
    config: Any = None

    def PerRow(self) -> str:
        return "a scale per row"

    def Float8DynamicActivationFloat8WeightConfig(self, *, granularity: str) -> tuple[str, str]:
        return ("dynamic float8", granularity)

    def quantize_(self, module: Any, config: Any, *, filter_fn: Any) -> None:
        self.config = config
        self.coded = [name for name, part in module.named_modules() if filter_fn(part, name)]


def cuda(*capability: int) -> Any:
    return SimpleNamespace(get_device_capability=lambda: capability)


def module() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(32, 48), nn.SiLU(), nn.Linear(48, 12), nn.Conv2d(16, 16, 1))


@pytest.mark.parametrize("capability", [(8, 9), (9, 0), (10, 0), (12, 0)])
def test_wide_linears_are_coded_by_row(capability: tuple[int, int]) -> None:
    api, model = Api(), module()
    assert quantize_module(model, cuda=cuda(*capability), api=api) is model
    assert api.config == ("dynamic float8", "a scale per row")
    assert api.coded == ["0"]  # twelve outputs are no multiple of sixteen; convolutions stay


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 6)])
def test_gpus_without_fp8_are_refused_by_number(capability: tuple[int, int]) -> None:
    api = Api()
    with pytest.raises(SegQuantError, match=rf"this GPU has {capability[0]}\.{capability[1]}"):
        quantize_module(module(), cuda=cuda(*capability), api=api)
    assert api.coded == []


def test_an_old_torchao_is_one_error() -> None:
    with pytest.raises(SegQuantError, match="this torchao has no row-wise dynamic FP8"):
        quantize_module(module(), cuda=cuda(9, 0), api=SimpleNamespace(PerRow=str))


def test_a_missing_torchao_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(MissingDependencyError, match="the baseline 'torchao-fp8' needs"):
        quantize_module(module(), cuda=cuda(9, 0))


def test_the_names_exist_in_the_real_package() -> None:
    api = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    config = api.Float8DynamicActivationFloat8WeightConfig(granularity=api.PerRow())
    assert "PerRow" in repr(config.granularity)
    assert "filter_fn" in inspect.signature(api.quantize_).parameters
    assert torchao_fp8.LEAST_CAPABILITY == (8, 9)
    assert is_wide_linear(module()[0], "0")
