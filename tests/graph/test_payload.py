"""External data written tensor by tensor."""

from __future__ import annotations

import io
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segquant_trt.graph.bigfile import Weights, external_range
from segquant_trt.graph.payload import INLINE_BYTES, PayloadWriter, relocate
from segquant_trt.schemes.packing import pack_int4

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.int8, np.uint8, np.int64, np.bool_]


@settings(max_examples=40)
@given(
    shapes=st.lists(st.lists(st.integers(0, 40), max_size=3), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_tensors_read_back_as_written(tmp_path_factory, shapes, seed) -> None:
    random = np.random.default_rng(seed)
    arrays = {
        f"t{i}": random.integers(0, 2, shape).astype(DTYPES[(i + seed) % len(DTYPES)])
        for i, shape in enumerate(shapes)
    }
    folder = tmp_path_factory.mktemp("payload")
    with (folder / "data").open("wb") as stream:
        writer = PayloadWriter(stream, "data")
        tensors = [writer.put(name, array) for name, array in arrays.items()]
    model = onnx.ModelProto(graph=onnx.GraphProto(initializer=tensors))
    stored = Weights(model, folder)
    for name, array in arrays.items():
        assert stored.dtype(name) == array.dtype
        np.testing.assert_array_equal(stored.read(name), array)


def test_small_tensors_stay_in_the_graph_and_large_ones_are_aligned() -> None:
    stream = io.BytesIO()
    writer = PayloadWriter(stream, "data")
    small = writer.put("small", np.zeros(INLINE_BYTES, np.uint8))
    places = [
        external_range(writer.put(f"t{i}", np.ones(INLINE_BYTES + 1 + i, np.uint8)))
        for i in range(3)
    ]
    assert external_range(small) is None
    assert [place.offset % 64 for place in places if place] == [0, 0, 0]
    assert len({place.offset for place in places if place}) == 3
    assert len(stream.getvalue()) == places[-1].offset + places[-1].length


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_order_does_not_matter(tmp_path: Path, order) -> None:
    array = np.arange(600, dtype=np.float32).reshape(20, 30).copy(order=order)
    with (tmp_path / "data").open("wb") as stream:
        tensor = PayloadWriter(stream, "data").put("t", array)
    model = onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor]))
    np.testing.assert_array_equal(Weights(model, tmp_path).read("t"), array)


def test_relocation_renames_the_file_only(tmp_path: Path) -> None:
    with (tmp_path / "old").open("wb") as stream:
        tensor = PayloadWriter(stream, "old").put("t", np.arange(500, dtype=np.int64))
    model = onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor]))
    relocate(model, "new")
    (tmp_path / "old").rename(tmp_path / "new")
    np.testing.assert_array_equal(Weights(model, tmp_path).read("t"), np.arange(500))


@pytest.mark.parametrize("shape", [(5, 7), (40, 60)], ids=["inline", "external"])
def test_codes_of_four_bits_are_packed_and_read_back(tmp_path: Path, shape) -> None:
    codes = np.random.default_rng(1).integers(-8, 8, shape).astype(np.int8)
    kind = onnx.TensorProto.INT4
    with (tmp_path / "data").open("wb") as stream:
        writer = PayloadWriter(stream, "data")
        tensor = writer.put_packed("c", pack_int4(codes), dims=shape, data_type=kind)
    stored = Weights(onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor])), tmp_path)
    assert stored.size_bytes("c") == -(-codes.size // 2)
    stored.check_complete()
    np.testing.assert_array_equal(stored.read("c").astype(np.int8), codes)
    np.testing.assert_array_equal(stored.read_float32("c"), codes)
