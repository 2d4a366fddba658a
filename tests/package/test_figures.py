"""The tables of serving are those of the committed record."""

from __future__ import annotations

import json

from benchmarks.marked_blocks import block
from benchmarks.serving.run import CONCURRENCY, README, RESULT, table


def test_the_readmes_tables_are_the_records() -> None:
    record = json.loads(RESULT.read_text(encoding="utf-8"))
    assert block(README.read_text(encoding="utf-8"), "serving") == table(record)


def test_every_answer_was_checked() -> None:
    record = json.loads(RESULT.read_text(encoding="utf-8"))
    for row in record["rows"]:
        cells = {(c["protocol"], c["concurrency"], c["serving"]) for c in row["load"]}
        assert len(cells) == 2 * 2 * len(CONCURRENCY)
        assert all(c["answers_checked"] >= record["calls_per_cell"] for c in row["load"])
