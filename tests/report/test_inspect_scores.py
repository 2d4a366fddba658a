"""`inspect` of scores: counts, the best of every site, and damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.records.scores import write_scores
from segquant_trt.report.inspect import describe
from tests.plan.made_up import option, score, scores_of, site, treatment
from tests.records.test_scores import ARRAYS, with_header


@pytest.fixture
def path(tmp_path: Path) -> Path:
    sites = [site("a", activation="x"), site("b", activation="x"), site("silent")]
    options = (
        option(treatment("shifted"), 1e-4, 35.5),
        option(treatment("symmetric"), 1e-4, 31.0),
        option(treatment("dual_full"), 1e-5, 44.0),
        option(treatment("float"), 1e-7, 60.0),
    )
    quiet = (option(treatment("shifted"), 0.0, None), option(treatment("float"), 0.0, None))
    found = scores_of(
        score(sites[0], *options),
        score(sites[1], *options[:1], amplification="uniform"),
        score(sites[2], *quiet),
    )
    write_scores(tmp_path / "renamed", found, ARRAYS)
    return tmp_path / "renamed"


def test_scores_are_described(path: Path) -> None:
    described = describe(path)
    told = json.loads(json.dumps(described.as_dict(), allow_nan=False))
    assert told["kind"] == "scores"
    known = told["properties"]
    assert (known["sites"], known["groups"], known["options"]) == (3, 2, 7)
    assert (known["timestep bins"], known["arrays"]) == (2, len(ARRAYS))
    assert known["size"] == path.stat().st_size
    rows = [list(row.values()) for row in told["tables"]["sites"]]
    assert rows == [
        ["a", 4, 31.0, 44.0, "dual_full", "backward"],
        ["b", 1, None, 35.5, "shifted", "uniform"],
        ["silent", 2, None, None, "shifted", "backward"],
    ]
    assert "dual_full" in described.text()


def test_other_versions_are_refused(path: Path) -> None:
    with_header(path, json.dumps({"schema_version": 99}))
    with pytest.raises(SegQuantError, match="renamed has schema_version 99; this program reads 1"):
        describe(path)


@pytest.mark.parametrize("cut", [9, 300, -1])
def test_truncated_scores_are_refused(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SegQuantError, match="renamed"):
        describe(path)
