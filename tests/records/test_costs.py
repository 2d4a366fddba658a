"""Cost tables: those that ship, those that are given, and damaged ones."""

from __future__ import annotations

import math
from importlib import metadata
from pathlib import Path
from typing import get_args

import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.records import CPU_TARGETS
from segquant_trt.records.codec import write_record
from segquant_trt.records.costs import (
    LOCAL,
    CostTerm,
    cost_table,
    local_table_path,
    table_advice,
    table_path,
)
from tests.plan.made_up import PRICES, table

TERMS = get_args(CostTerm)


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_every_target_ships_a_table_of_its_own(target) -> None:
    found = cost_table(target, None)
    assert found.target == target
    assert found.threads >= 1
    assert found.batch >= 1
    assert found.versions
    prices = {(line.op, line.term): line.nanoseconds for line in found.lines}
    assert len(prices) == len(found.lines), "every price is told once"
    assert all(math.isfinite(price) and price >= 0.0 for price in prices.values())
    for op in ("linear", "convolution"):
        assert 0.0 < prices[op, "integer_mac"] < prices[op, "float_mac"]


def test_a_table_of_ones_own_is_read_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    write_record(path, table(**PRICES))
    assert table_path("onnxruntime", path) == path
    found = cost_table("onnxruntime", path)
    assert found == table(**PRICES)
    assert {line.term for line in found.lines} == set(TERMS)


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("term: call", "term: tea", "tea"),
        ("op: linear", "op: lstm", "lstm"),
        ("nanoseconds: 1000.0", "nanoseconds: fast", "expected float @ $.lines[0].nanoseconds"),
        ("nanoseconds: 1000.0", "nanoseconds: -3", "call of linear costs -3.0 nanoseconds"),
        ("nanoseconds: 1000.0", "nanoseconds: .nan", "call of linear costs nan nanoseconds"),
        ("term: float_mac", "term: call", "call of linear is told twice"),
        ("batch: 2", "batch: 0", "batch is 0"),
        ("schema_version: 1", "schema_version: 7", "schema_version 7; this program reads 1"),
        ("target: onnxruntime", "target: npu", "npu"),
        ("threads: 2", "threads: 2\nsockets: 1", "sockets"),
        ("batch: 2\n", "", "batch"),
    ],
)
def test_edited_tables_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    write_record(path, table(**PRICES))
    changed(path, old, new)
    with pytest.raises(SegQuantError, match=r"mine\.yaml") as refused:
        cost_table("onnxruntime", path)
    assert message in refused.value.what


def test_truncated_and_missing_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(SegQuantError, match="does not exist"):
        cost_table("onnxruntime", path)
    write_record(path, table(**PRICES))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SegQuantError, match=r"mine\.yaml"):
        cost_table("onnxruntime", path)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine on which no table was ever measured."""
    monkeypatch.setenv("SEGQUANT_TRT_CACHE", str(tmp_path))
    monkeypatch.setattr("segquant_trt.records.costs.hardware_name", lambda: "Zilog Z80")
    return tmp_path


def test_prices_of_another_machine_are_told(elsewhere: Path) -> None:
    said = table_advice("openvino")
    assert said is not None
    assert cost_table("openvino", None).hardware in said
    assert "Zilog Z80" in said
    assert "segquant-trt costs --target openvino" in said


def test_a_local_table_that_lies_unused_is_told(elsewhere: Path) -> None:
    path = local_table_path("openvino")
    assert path.is_relative_to(elsewhere)
    write_record(path, table("openvino", **PRICES))
    said = table_advice("openvino")
    assert said is not None
    assert "--costs local plans by it" in said
    assert table_path("openvino", None) != path, "never picked up unasked"
    assert table_path("openvino", LOCAL) == path
    assert "segquant-trt costs" in str(table_advice("onnxruntime"))


def test_there_is_nothing_to_tell_where_the_table_was_measured(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = cost_table("onnxruntime", None)
    monkeypatch.setattr("segquant_trt.records.costs.hardware_name", lambda: shipped.hardware)
    cores = {"cpu": "any", "cores": str(shipped.threads)}
    monkeypatch.setattr("segquant_trt.records.costs.hardware", lambda: cores)
    assert table_advice("onnxruntime") is None
    cores["cores"] = str(shipped.threads + 62)
    assert f"with {shipped.threads + 62} cores" in str(table_advice("onnxruntime"))


def test_tables_of_other_processors_and_versions_lie_apart(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = local_table_path("onnxruntime")
    assert first.name == f"onnxruntime-{metadata.version('onnxruntime')}.yaml"
    monkeypatch.setattr("segquant_trt.records.costs.hardware_name", lambda: "Zilog Z8000")
    second = local_table_path("onnxruntime")
    assert (first.parent.parent, first.name) == (elsewhere / "costs", second.name)
    assert first.parent != second.parent
