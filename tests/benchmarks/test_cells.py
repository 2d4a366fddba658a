"""A finished cell is not computed again, a failed one is."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ablation.cells import cell


def test_what_is_finished_is_read_and_what_failed_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "model" / "cell.json"
    calls: list[int] = []

    def compute() -> dict[str, float]:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return {"figure": 1.5}

    with pytest.raises(RuntimeError):
        cell(path, compute)
    assert not path.exists()
    assert cell(path, compute) == cell(path, compute) == {"figure": 1.5}
    assert len(calls) == 2
