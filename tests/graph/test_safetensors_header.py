"""Headers read here against the safetensors library's own reader."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.safetensors_header import read_header, sample_sha256


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    tensors = {
        "a.weight": np.arange(15, dtype=np.float32).reshape(3, 5),
        "b": np.arange(7, dtype=np.float16),
        "scalar": np.array(2, dtype=np.int64),
    }
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def test_offsets_lead_to_the_bytes(file: Path) -> None:
    header = read_header(file)
    data = file.read_bytes()
    assert set(header.tensors) == {"a.weight", "b", "scalar"}
    a, b = header.tensors["a.weight"], header.tensors["b"]
    assert (a.dtype, a.shape, a.file) == ("F32", (3, 5), "model.safetensors")
    found = np.frombuffer(data[a.offset_bytes : a.offset_bytes + a.size_bytes], np.float32)
    assert found.tolist() == list(range(15))
    found = np.frombuffer(data[b.offset_bytes : b.offset_bytes + b.size_bytes], np.float16)
    assert found.tolist() == list(range(7))


def test_identity_covers_the_header_alone(file: Path) -> None:
    data = bytearray(file.read_bytes())
    length = 8 + struct.unpack("<Q", data[:8])[0]
    before = read_header(file)
    assert before.sha256 == hashlib.sha256(data[:length]).hexdigest()
    data[-1] ^= 1
    file.write_bytes(data)
    assert read_header(file).sha256 == before.sha256
    assert read_header(file).size_bytes == len(data)


def test_a_sample_tells_one_changed_tensor_whatever_its_size(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    random = np.random.default_rng(0)
    tensors = {
        "large": random.random((101, 103), dtype=np.float32),
        "small": random.random(3, dtype=np.float32),
        "nothing": np.zeros((0, 5), dtype=np.float32),
    }
    seen = set()
    for scaled in (None, "large", "small", "nothing"):
        save_file({n: a * 2 if n == scaled else a for n, a in tensors.items()}, path)
        seen.add(sample_sha256(read_header(path)))
    assert len(seen) == 3  # nothing times two is nothing


def test_a_sample_is_the_middle_of_every_tensor(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    values = np.arange(12_289, dtype=np.uint8)
    save_file({"one": values, "two": values[:9]}, path)
    wanted = values[4096:8192].tobytes() + values[:9].tobytes()
    assert sample_sha256(read_header(path)) == hashlib.sha256(wanted).hexdigest()


def test_a_file_that_shrinks_meanwhile_is_refused(file: Path) -> None:
    header = read_header(file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(SegQuantError, match="shorter while it was read"):
        sample_sha256(header)


@pytest.mark.parametrize("kept", [0, 5, 8, 40, -1])
def test_truncation_is_named(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(SegQuantError, match=r"model\.safetensors is truncated"):
        read_header(file)


def _written(path: Path, header: object, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"not json at all",
        [1, 2],
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"a": {"dtype": "F32", "shape": [1]}},
        {"a": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [0, 3], "data_offsets": [0, 8]}},
        {"a": 3},
    ],
)
def test_nonsense_is_refused(tmp_path: Path, header: object) -> None:
    with pytest.raises(SegQuantError, match="not a safetensors"):
        read_header(_written(tmp_path / "x.safetensors", header, bytes(8)))


@pytest.mark.parametrize(
    ("first", "second", "length"), [(0, 2, 6), (0, 5, 9), (1, 5, 9), (0, 4, 9), (0, 0, 4)]
)
def test_gaps_overlaps_and_trailing_bytes_are_refused(
    first: int, second: int, length: int, tmp_path: Path
) -> None:
    header = {
        name: {"dtype": "U8", "shape": [4], "data_offsets": [at, at + 4]}
        for name, at in (("a", first), ("b", second))
    }
    path = _written(tmp_path / "x.safetensors", header, bytes(length))
    with pytest.raises(SafetensorError):
        load_file(path)
    with pytest.raises(SegQuantError, match=r"x\.safetensors is truncated or not"):
        read_header(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SegQuantError, match="cannot be read"):
        read_header(tmp_path / "none.safetensors")
