"""What rewriting writes for TensorRT-RTX meets no rule, and RTX builds it as foreseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segquant_trt.backends import backend_for
from segquant_trt.backends.tensorrt.lint import TARGETS, lint
from segquant_trt.graph.bigfile import load_graph
from tests.backends.tensorrt.lint.judge import Judge
from tests.backends.tensorrt.lint.sketch import products
from tests.contract.test_signed_codes import CASES, emitted, offered
from tests.small_graphs import full_range_weight
from tests.treatments import (
    CHANNELS,
    CONVOLUTIONS,
    LAYOUTS,
    ON_CONVOLUTIONS,
    Case,
    convolution,
    linear,
)

BACKEND = backend_for("tensorrt-rtx")
OUTPUTS = 24
ALL = [
    *((layout, name) for layout in LAYOUTS for name in CASES),
    *((shape, name) for shape in CONVOLUTIONS for name in ON_CONVOLUTIONS),
]


def written(folder: Path, form: str, name: str) -> Path | None:
    """A graph of one site, rewritten; None where the target does not offer the treatment."""
    model, given = _convolution(folder, form, name) or _linear(folder, form, name)
    return emitted(folder, model, given) if offered(BACKEND, model, given) else None


def _linear(folder: Path, layout: str, name: str) -> tuple[Path, Case]:
    weight, bias = full_range_weight((OUTPUTS, CHANNELS), 1), np.ones(OUTPUTS, np.float32)
    rank = len(LAYOUTS[layout]) + 1
    return linear(folder, weight, bias, gemm=layout == "gemm", rank=rank), CASES[name]


def _convolution(folder: Path, shape: str, name: str) -> tuple[Path, Case] | None:
    if shape not in CONVOLUTIONS:
        return None
    sizes: dict[str, Any] = {"stride": 1, "groups": 1, "outputs": OUTPUTS, **CONVOLUTIONS[shape]}
    outputs, kernel, groups = sizes["outputs"], sizes["kernel"], sizes["groups"]
    weight = full_range_weight((outputs, CHANNELS // groups, kernel, kernel), 4)
    bias = np.ones(outputs, np.float32)
    model = convolution(folder, weight, bias, stride=sizes["stride"], groups=groups)
    return model, ON_CONVOLUTIONS[name]


@pytest.mark.parametrize(("form", "name"), ALL[::4], ids=["-".join(pair) for pair in ALL[::4]])
@pytest.mark.parametrize("target", TARGETS)
def test_no_rule_speaks_against_what_is_written(
    target: Any, form: str, name: str, tmp_path: Path
) -> None:
    out = written(tmp_path, form, name)
    if out is None:
        return
    report = lint(out, target=target)
    assert report.findings == ()
    assert report.sites
    assert all(site.eight_bit for site in report.sites)


@pytest.mark.full
def test_the_builder_does_what_was_foreseen_of_all_of_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is the judge")
    seen = 0
    with Judge() as judge:
        for number, (form, name) in enumerate(ALL):
            folder = tmp_path / str(number)
            folder.mkdir()
            out = written(folder, form, name)
            if out is None:
                continue
            truth, report = judge.build_file(out, "sm_89"), lint(out, target="tensorrt-rtx")
            own = set(products(load_graph(out)))
            assert truth.ending == "built", (form, name, truth.message)
            assert {site.site for site in report.sites if site.eight_bit} == truth.eight_bit & own
            assert report.findings == ()
            seen += 1
    assert seen > 100
