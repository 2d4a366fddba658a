"""A machine's own cost table: measured, kept through interruptions, found only when asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from segquant_trt.backends import CPU_BACKENDS, backend_for
from segquant_trt.bench.costs import interleaved as timing_of_calls
from segquant_trt.bench.costs.graphs import write_empty
from segquant_trt.bench.costs.shapes import Shape
from segquant_trt.bench.costs.variants import VARIANTS, Variant
from segquant_trt.cli.app import main
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.pipeline import costs, write_local_table
from segquant_trt.pipeline.timed_sites import one_site
from segquant_trt.records import Target
from segquant_trt.records.codec import read_record
from segquant_trt.records.costs import LOCAL, CostTable, local_table_path
from segquant_trt.records.options import CompileOptions

FEW = (
    Shape(op="linear", rows=4, parts=(32,), outputs=6),
    Shape(op="linear", rows=10, parts=(8, 24), outputs=5),
    Shape(op="convolution", rows=8, parts=(4,), outputs=3, kernel=3),
)
CPU_TARGETS = [backend.target for backend in CPU_BACKENDS]


class Clock:
    """Every call takes a millisecond, until one is interrupted."""

    def __init__(self) -> None:
        self.measured = 0
        self.interrupted_at: int | None = None

    def __call__(self, calls: Mapping[str, object], **_: object) -> dict[str, object]:
        if self.measured == self.interrupted_at:
            raise KeyboardInterrupt
        self.measured += 1
        return {name: np.full(9, 1e-3) for name in calls}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    """No time passes, and the user's cache is a fresh folder."""
    made = Clock()
    monkeypatch.setattr(timing_of_calls, "interleaved", made)
    monkeypatch.setattr("segquant_trt.bench.costs.shapes.SHAPES", FEW)
    monkeypatch.setattr("segquant_trt.bench.costs.variants.VARIANTS", VARIANTS[:2])
    monkeypatch.setenv("SEGQUANT_TRT_CACHE", str(tmp_path / "cache"))
    return made


@pytest.mark.parametrize("target", CPU_TARGETS)
@pytest.mark.parametrize("shape", FEW[1:], ids=lambda shape: shape.label)
def test_variants_of_a_site_compute_nearly_the_same(
    shape: Shape, target: Target, tmp_path: Path
) -> None:
    backend = backend_for(target)
    site = one_site(shape, tmp_path)
    (found,) = site.facts.sites
    assert (found.in_features, found.out_features) == (shape.channels, shape.outputs)
    float_path = site.rewritten(Variant(name="float", weight=None), target)
    assert float_path is not None
    expected = backend.open(float_path[0]).run(site.inputs, ["y"])["y"]
    built = 0
    for variant in VARIANTS:
        made = site.rewritten(variant, target) if variant.fits(shape) else None
        if made is None:
            continue
        built += 1
        got = backend.open(made[0]).run(site.inputs, ["y"])["y"]
        assert got.shape == expected.shape
        noise = np.mean((got - expected) ** 2) / np.mean(expected**2)
        # The made-up scales of two polarities clip; this catches a wrong graph, not a coarse code.
        assert noise < 0.2, variant.name
    assert built >= 4


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_the_empty_graph_hands_its_input_on(target: Target, tmp_path: Path) -> None:
    model, inputs = write_empty(tmp_path)
    session = backend_for(target).float_session(load_graph(model), tmp_path)
    np.testing.assert_array_equal(session.run(inputs, ["y"])["y"], inputs["x0"])


def test_the_command_writes_where_local_is_looked_for(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["costs", "--target", "openvino", "--threads", "1", "--json"]) == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    path = local_table_path("openvino")
    assert answer["table"] == str(path)
    assert answer["used_with"] == "--costs local"
    table = read_record(path, CostTable)
    assert (table.target, table.threads) == ("openvino", 1)
    assert table.versions == backend_for("openvino").versions()
    assert clock.measured == len(FEW) + 1
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "no parts are left"
    assert "openvino" in said.err


def test_an_interruption_keeps_what_was_measured(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tables" / "mine.yaml"
    asked = ["costs", "-o", str(out), "--json"]
    clock.interrupted_at = 3  # the empty call and two shapes are done
    assert main(asked) == 130
    assert not out.exists()
    clock.interrupted_at = None
    assert main(asked) == 0
    assert clock.measured == len(FEW) + 1, "nothing was measured twice"
    assert "3 finished measurements" in capsys.readouterr().err
    assert read_record(out, CostTable).target == "onnxruntime"
    assert main(asked) == 0
    assert clock.measured == 2 * (len(FEW) + 1), "a finished table is measured anew"


def test_measurements_with_other_threads_are_not_mixed_in(clock: Clock, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    clock.interrupted_at = 2
    with pytest.raises(KeyboardInterrupt):
        write_local_table("onnxruntime", out, budget_s=1.0, threads=1)
    clock.interrupted_at, clock.measured = None, 0
    write_local_table("onnxruntime", out, budget_s=1.0, threads=3)
    assert clock.measured == len(FEW) + 1


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--budget", "0", "budget is 0; allowed: a positive number"),
        ("--budget", "nan", "budget is nan"),
        ("--budget", "inf", "budget is inf"),
        ("--threads", "0", "threads is 0; allowed"),
    ],
)
def test_impossible_arguments(
    flag: str, value: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["costs", flag, value]) == 1
    assert told in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_told_before_measuring(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["costs", "-o", str(tmp_path / "file" / "mine.yaml")]) == 1
    assert "mine.yaml" in capsys.readouterr().err
    assert clock.measured == 0


def test_damaged_parts_are_named(clock: Clock, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    clock.interrupted_at = 2
    with pytest.raises(KeyboardInterrupt):
        write_local_table("onnxruntime", out, budget_s=1.0)
    (part,) = tmp_path.glob(f".mine.yaml-*/*{FEW[0].label}.json")
    part.write_text(part.read_text()[:-30])
    with pytest.raises(SegQuantError, match=FEW[0].label):
        write_local_table("onnxruntime", out, budget_s=1.0)


def test_local_is_this_machines_table_and_nothing_else(clock: Clock, tmp_path: Path) -> None:
    asked = CompileOptions(out=tmp_path, target="openvino", costs=LOCAL)
    with pytest.raises(SegQuantError, match="no cost table of its own for openvino") as refused:
        costs.with_costs_found(asked)
    assert refused.value.hint is not None
    assert "segquant-trt costs --target openvino" in refused.value.hint
    write_local_table("openvino", budget_s=1.0)
    path = local_table_path("openvino")
    assert costs.with_costs_found(asked).costs == path
    plain = CompileOptions(out=tmp_path, target="openvino")
    assert costs.with_costs_found(plain) == plain, "never picked up unasked"
    older = path.with_name("openvino-1.0.yaml")
    shutil.move(path, older)
    with pytest.raises(SegQuantError, match=r"openvino-1\.0\.yaml, of another version"):
        costs.with_costs_found(asked)


def test_a_busy_machine_is_told(clock: Clock, tmp_path: Path, monkeypatch, capsys) -> None:
    del clock
    monkeypatch.setattr(costs, "os", SimpleNamespace(getloadavg=lambda: (3.2, 1.0, 1.0)))
    assert main(["costs", "-o", str(tmp_path / "mine.yaml")]) == 0
    assert "load 3.2" in capsys.readouterr().err
