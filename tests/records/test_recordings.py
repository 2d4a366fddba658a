"""Shards of denoiser inputs: batching by timestep, widening, and what is refused."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from segquant_trt.errors import SegQuantError
from segquant_trt.records import AxisRange, ModelSpec, TensorSpec, shards
from segquant_trt.records.recordings import Recordings, batch_of, open_recordings, write_shard


@pytest.fixture
def spec() -> ModelSpec:
    return ModelSpec(
        source="test",
        family="flux",
        class_name="FluxTransformer2DModel",
        config={},
        inputs=(
            TensorSpec(name="x", dtype="float32", shape=("batch", "tokens", 3)),
            TensorSpec(name="timestep", dtype="float32", shape=("batch",)),
            TensorSpec(name="ids", dtype="float32", shape=("tokens", 2)),
        ),
        output=TensorSpec(name="sample", dtype="float32", shape=("batch", "tokens", 3)),
        axes=(
            AxisRange(name="batch", minimum=1, typical=2, maximum=4),
            AxisRange(name="tokens", minimum=2, typical=4, maximum=8, multiple=2),
        ),
        timestep="timestep",
        prompt_inputs=(),
        opset=21,
        onnx_sha256="",
        checkpoint=(),
        validation=None,
        exporter={},
    )


def inputs(steps: list[float], tokens: int = 4) -> dict[str, np.ndarray]:
    count = len(steps)
    return {
        "x": np.arange(count * tokens * 3, dtype=np.float32).reshape(count, tokens, 3),
        "timestep": np.array(steps, dtype=np.float32),
        "ids": np.ones((tokens, 2), dtype=np.float32),
    }


def test_batches_hold_one_timestep_each_and_lose_nothing(tmp_path: Path, spec: ModelSpec) -> None:
    write_shard(tmp_path / "shard-0.safetensors", inputs([9.0, 5.0, 9.0, 9.0]))
    write_shard(tmp_path / "shard-1.safetensors", inputs([1.0]))
    recordings = open_recordings(tmp_path, spec)
    batches = list(recordings.batches(2))
    assert recordings.timesteps() == [9.0, 5.0, 9.0, 9.0, 1.0]
    assert [batch["timestep"].tolist() for batch in batches] == [[9, 9], [9], [5], [1]]
    assert [batch_of(recordings, batch) for batch in batches] == [2, 1, 1, 1]
    first = [batch["x"][:, 0, 0].tolist() for batch in batches]
    assert first == [[0.0, 24.0], [36.0], [12.0], [0.0]]
    assert all(batch["ids"].shape == (4, 2) for batch in batches)


def test_half_precision_recordings_are_widened(tmp_path: Path, spec: ModelSpec) -> None:
    stored = inputs([1.0, 2.0])
    stored["x"] = stored["x"].astype(np.float16)
    stored["timestep"] = stored["timestep"].astype(np.int64)
    save_file(stored, tmp_path / "one.safetensors")
    (batch, _) = open_recordings(tmp_path / "one.safetensors", spec).batches(8)
    assert {array.dtype for array in batch.values()} == {np.dtype(np.float32)}


def test_timesteps_are_those_that_the_batches_have(tmp_path: Path, spec: ModelSpec) -> None:
    stored = inputs([0.7, 0.3])
    stored["timestep"] = np.array([0.7, 0.3], dtype=np.float64)
    save_file(stored, tmp_path / "one.safetensors")
    recordings = open_recordings(tmp_path / "one.safetensors", spec)
    given = [float(batch["timestep"][0]) for batch in recordings.batches(1)]
    assert recordings.timesteps() == given == [float(np.float32(0.7)), float(np.float32(0.3))]


def test_more_samples_than_one_call_takes_are_recordings(tmp_path: Path, spec: ModelSpec) -> None:
    write_shard(tmp_path / "one.safetensors", inputs([1.0] * 5))
    recordings = open_recordings(tmp_path, spec)
    assert [batch_of(recordings, batch) for batch in recordings.batches(4)] == [4, 1]


def test_a_shard_without_samples_is_refused(tmp_path: Path, spec: ModelSpec) -> None:
    write_shard(tmp_path / "one.safetensors", inputs([]))
    with pytest.raises(SegQuantError, match="holds no samples"):
        open_recordings(tmp_path, spec)


@pytest.mark.parametrize("tokens", [0, 3, 10])
def test_sizes_that_the_model_does_not_take_are_refused(
    tmp_path: Path, spec: ModelSpec, tokens: int
) -> None:
    write_shard(tmp_path / "one.safetensors", inputs([1.0], tokens))
    with pytest.raises(SegQuantError) as refused:
        open_recordings(tmp_path, spec)
    assert f"has tokens {tokens}; allowed: 2 to 8 in multiples of 2" in refused.value.what
    assert refused.value.what.startswith("'x' in ")


def test_arguments_of_different_sizes_are_refused(tmp_path: Path, spec: ModelSpec) -> None:
    write_shard(tmp_path / "one.safetensors", inputs([1.0]) | {"ids": np.ones((6, 2), np.float32)})
    with pytest.raises(SegQuantError, match="has tokens 6, but 'x' has tokens 4"):
        open_recordings(tmp_path, spec)


def test_values_beyond_the_models_type_are_refused(tmp_path: Path, spec: ModelSpec) -> None:
    write_shard(tmp_path / "one.safetensors", inputs([1.0]) | {"timestep": np.array([1e300])})
    with pytest.raises(SegQuantError, match=r"'timestep' in .* infinity as float32"):
        open_recordings(tmp_path, spec)


def test_an_empty_folder_says_which_arguments_are_wanted(tmp_path: Path, spec: ModelSpec) -> None:
    with pytest.raises(SegQuantError) as refused:
        open_recordings(tmp_path, spec)
    assert "x, timestep, ids" in refused.value.hint


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    first = inputs([1.0])
    write_shard(tmp_path / "a.safetensors", first)
    write_shard(tmp_path / "b.safetensors", dict(reversed(first.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def whole_file_batches(recordings: Recordings, batch_size: int) -> list[dict[str, np.ndarray]]:
    """The definition: every shard read whole, its samples picked timestep by timestep."""
    found = []
    for shard in recordings.shards:
        arrays = {n: a.astype(recordings.dtypes[n]) for n, a in load_file(shard).items()}
        steps = arrays["timestep"]
        for value in dict.fromkeys(steps.tolist()):
            chosen = np.flatnonzero(steps == value)
            for start in range(0, len(chosen), batch_size):
                rows = chosen[start : start + batch_size]
                found.append(
                    {n: a[rows] if recordings.batched[n] else a for n, a in arrays.items()}
                )
    return found


@given(
    steps=st.lists(st.sampled_from([0.0, 0.1, 2.5, 7.0]), min_size=1, max_size=17),
    batch_size=st.integers(1, 6),
)
def test_scattered_timesteps_are_gathered_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[float], batch_size: int
) -> None:
    path = tmp_path_factory.mktemp("scattered") / "one.safetensors"
    write_shard(path, inputs(steps) | {"x": np.random.default_rng(1).random((len(steps), 4, 3))})
    recordings = Recordings(
        shards=(path, path),
        batched={"x": True, "timestep": True, "ids": False},
        dtypes=dict.fromkeys(("x", "timestep", "ids"), "float32"),
        timestep="timestep",
    )
    wanted = whole_file_batches(recordings, batch_size)
    found = list(recordings.batches(batch_size))
    assert recordings.batch_count(batch_size) == len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.keys() == theirs.keys()
        for name, array in theirs.items():
            np.testing.assert_array_equal(mine[name], array, strict=True)
    ends = [
        {n: a[[0, -1]] if recordings.batched[n] else a for n, a in call.items()}
        for call in whole_file_batches(recordings, len(steps))
    ]
    for mine, theirs in zip(recordings.ends(), ends, strict=True):
        for name, array in theirs.items():
            np.testing.assert_array_equal(mine[name], array, strict=True)


def test_a_large_file_is_never_read_whole(
    tmp_path: Path, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numpy's buffers are traced, whoever allocates them; what safetensors hands over as well."""
    count, tokens = 300, 8
    large = replace(
        spec,
        inputs=(
            TensorSpec(name="x", dtype="float32", shape=("batch", "tokens", 3001)),
            *spec.inputs[1:],
        ),
    )
    random = np.random.default_rng(0)
    steps = random.permutation(np.repeat(np.arange(10.0), count // 10)).tolist()
    stored = inputs(steps, tokens) | {"x": random.random((count, tokens, 3001), np.float32)}
    write_shard(tmp_path / "one.safetensors", stored)
    whole_bytes = stored["x"].nbytes
    wanted = float(stored["x"].astype(np.float64).sum())
    del stored
    monkeypatch.setattr(shards, "CHUNK_BYTES", 1 << 20)
    tracemalloc.start()
    try:
        recordings = open_recordings(tmp_path, large)
        checked = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        found = sum(float(b["x"].astype(np.float64).sum()) for b in recordings.batches(4))
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == pytest.approx(wanted)
    assert checked < whole_bytes / 8
    assert read < whole_bytes / 8


@pytest.mark.parametrize("row", [0, 100, 299])
def test_a_nan_is_found_in_whatever_piece_it_lies(
    tmp_path: Path, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, row: int
) -> None:
    stored = inputs([1.0] * 300)
    stored["x"][row, 3, 2] = np.nan
    write_shard(tmp_path / "one.safetensors", stored)
    monkeypatch.setattr(shards, "CHUNK_BYTES", 100)
    with pytest.raises(SegQuantError, match=r"'x' in .* holds NaN or infinity as float32"):
        open_recordings(tmp_path, spec)


def test_bfloat16_is_widened_and_eight_bit_floats_are_refused(
    tmp_path: Path, spec: ModelSpec
) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    given = {name: torch.from_numpy(array) for name, array in inputs([1.0, 2.0]).items()}
    path = tmp_path / "one.safetensors"
    save_torch(given | {"x": given["x"].to(torch.bfloat16)}, path)
    first, _ = open_recordings(path, spec).batches(1)
    np.testing.assert_array_equal(first["x"], inputs([1.0])["x"], strict=True)
    save_torch(given | {"x": given["x"].to(torch.float8_e4m3fn)}, path)
    with pytest.raises(SegQuantError, match=r"'x' in .* is F8_E4M3; the model takes float32"):
        open_recordings(path, spec)


def test_a_shared_timestep_belongs_to_every_sample(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    write_shard(path, {"x": np.zeros((5, 2), np.float32), "timestep": np.array([3.0], np.float32)})
    recordings = Recordings(
        shards=(path,),
        batched={"x": True, "timestep": False},
        dtypes={"x": "float32", "timestep": "float32"},
        timestep="timestep",
    )
    assert recordings.timesteps() == [3.0] * 5
    assert [len(batch["x"]) for batch in recordings.batches(2)] == [2, 2, 1]
