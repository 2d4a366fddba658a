"""Packed 4-bit codes, against the libraries that read them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from segquant_trt.schemes.packing import pack_int4, unpack_int4

shapes = st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple)


@given(shape=shapes, seed=st.integers(0, 2**20))
def test_what_is_packed_comes_back(shape: tuple[int, ...], seed: int) -> None:
    codes = np.random.default_rng(seed).integers(-8, 8, shape).astype(np.int8)
    packed = pack_int4(codes)
    assert packed.dtype == np.uint8
    assert packed.shape == ((codes.size + 1) // 2,)
    np.testing.assert_array_equal(unpack_int4(packed, shape), codes)


@pytest.mark.parametrize("shape", [(1,), (17,), (3, 5), (1025,), (4, 16)])
def test_onnx_reads_the_bytes_and_writes_the_same(shape: tuple[int, ...]) -> None:
    codes = np.random.default_rng(1).integers(-8, 8, shape).astype(np.int8)
    tensor = onnx.TensorProto(data_type=onnx.TensorProto.INT4, dims=shape)
    tensor.raw_data = pack_int4(codes).tobytes()
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.int8), codes)
    written = numpy_helper.from_array(codes.astype(ml_dtypes.int4))
    assert written.data_type == onnx.TensorProto.INT4
    assert written.raw_data == tensor.raw_data
    stored = np.frombuffer(written.raw_data, dtype=np.uint8)
    np.testing.assert_array_equal(unpack_int4(stored, shape), codes)


def test_order_and_sign_of_nibbles() -> None:
    packed = pack_int4(np.array([1, -1, -8, 7, 3], dtype=np.int8))
    assert packed.tolist() == [0xF1, 0x78, 0x03]


def test_a_transposed_array_is_packed_in_its_own_order() -> None:
    codes = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
    np.testing.assert_array_equal(unpack_int4(pack_int4(codes.T), (4, 3)), codes.T)


@pytest.mark.parametrize("code", [-9, 8, 127])
def test_codes_beyond_four_bits_are_refused(code: int) -> None:
    with pytest.raises(ValueError, match="do not fit four bits"):
        pack_int4(np.array([0, code], dtype=np.int8))


@pytest.mark.parametrize("size", [0, 2])
def test_a_wrong_number_of_bytes_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="codes of four bits"):
        unpack_int4(np.zeros(size, dtype=np.uint8), (2,))
