"""The excerpt that later stages check on: which of the recorded samples it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segquant_trt.calibrate.stage import excerpt
from segquant_trt.records.recordings import Recordings, write_shard


def recorded(folder: Path, shards: list[tuple[list[float], int]]) -> Recordings:
    for index, (steps, tokens) in enumerate(shards):
        inputs = {
            "x": np.full((len(steps), tokens, 2), index, dtype=np.float32),
            "timestep": np.array(steps, dtype=np.float64),
            "ids": np.ones((tokens, 3), dtype=np.float32),
        }
        write_shard(folder / f"shard-{index:02d}.safetensors", inputs)
    return Recordings(
        shards=tuple(sorted(folder.iterdir())),
        batched={"x": True, "timestep": True, "ids": False},
        dtypes=dict.fromkeys(("x", "timestep", "ids"), "float32"),
        timestep="timestep",
    )


def test_two_samples_of_every_timestep_are_kept(tmp_path: Path) -> None:
    found = excerpt(recorded(tmp_path, [([0.7, 0.7, 0.7], 4), ([0.3], 4)]))
    assert found["timestep"].tolist() == np.float32([0.7, 0.7, 0.3, 0.3]).tolist()
    assert found["x"][:, 0, 0].tolist() == [0, 0, 1, 1]
    assert found["ids"].shape == (4, 3)


def test_samples_of_other_sizes_than_the_first_are_left_out(tmp_path: Path) -> None:
    shards = [([9.0], 4), *[([float(step)], 6) for step in range(1, 9)], ([0.0, 0.0], 4)]
    found = excerpt(recorded(tmp_path, shards))
    assert found["x"].shape == (4, 4, 2)
    assert found["timestep"].tolist() == [9.0, 9.0, 0.0, 0.0]


def test_at_most_ten_timesteps_are_kept_both_ends_among_them(tmp_path: Path) -> None:
    found = excerpt(recorded(tmp_path, [([float(step)], 4) for step in range(20, 0, -1)]))
    assert list(dict.fromkeys(found["timestep"].tolist())) == [20, 18, 16, 14, 12, 10, 8, 6, 4, 1]


def test_the_ends_are_found_in_recordings_of_any_order(tmp_path: Path) -> None:
    steps = [float(step) for step in np.random.default_rng(1).permutation(np.arange(1, 38))]
    found = excerpt(recorded(tmp_path, [([step], 4) for step in steps]))
    kept = found["timestep"].tolist()
    assert {1.0, 37.0} <= set(kept)
    assert list(dict.fromkeys(kept)) == [step for step in steps if step in set(kept)]
