"""Builder and runtime on a real GPU with the real TensorRT; skipped where there is none.

pytest tests/backends/tensorrt/test_on_gpu.py
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from segquant_trt.backends.tensorrt.builder import build_engine
from segquant_trt.backends.tensorrt.builder.request import BuildRequest
from segquant_trt.backends.tensorrt.installed import installed
from segquant_trt.backends.tensorrt.runtime import EngineSession, open_engine
from segquant_trt.errors import SegQuantError
from segquant_trt.records.engine import ShapeProfile, ShapeRange
from tests.contract.tensorrt.workbench import NODE, OUT, PROFILE, WIDTH, request

LARGE = ShapeProfile(
    inputs=(ShapeRange(name="x", minimum=(18, WIDTH), optimum=(512, WIDTH), maximum=(1025, WIDTH)),)
)


@pytest.fixture(scope="module")
def gpu() -> None:
    """The real thing, or a skip."""
    try:
        installed()
    except SegQuantError as error:
        pytest.skip(error.what)
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")


def build(folder: Path, **options: object) -> BuildRequest:
    wanted = request(folder, profiles=(PROFILE, LARGE), **options)
    result = build_engine(wanted)
    assert result.proofs[NODE].precision == "int8"
    return wanted


def inputs(rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, WIDTH, generator=generator).half()


def answer(x: torch.Tensor, weights: np.ndarray) -> np.ndarray:
    """What the graph means, in float64."""
    codes = np.clip(np.rint(x.double().numpy() / np.float16(0.05).astype(float)), -128, 127)
    product = codes * np.float16(0.05).astype(float) @ (weights * np.float16(0.01).astype(float))
    return product + 1.0


def compare(found: np.ndarray, x: torch.Tensor, folder: Path) -> None:
    weights = np.fromfile(folder / "weights.bin", np.int8).reshape(WIDTH, OUT).astype(float)
    wanted = answer(x, weights)
    # float16 has a relative rounding of 2^-11; the scales are applied one after the other.
    np.testing.assert_allclose(found, wanted, rtol=2**-9, atol=2**-9 * np.abs(wanted).max())


def check(session: EngineSession, folder: Path, rows: int) -> None:
    x = inputs(rows)
    compare(session.run_tensors({"x": x.cuda()})["y"].cpu().double().numpy(), x, folder)


def test_the_reference_is_what_onnx_runtime_computes(tmp_path: Path) -> None:
    import onnxruntime

    wanted = request(tmp_path)
    session = onnxruntime.InferenceSession(wanted.onnx, providers=["CPUExecutionProvider"])
    x = inputs(9)
    compare(session.run(None, {"x": x.numpy()})[0].astype(np.float64), x, tmp_path)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_answers_of_every_profile(tmp_path: Path, cuda_graphs: bool) -> None:
    wanted = build(tmp_path)
    session = open_engine(wanted.engine, cuda_graphs=cuda_graphs)
    for rows in (1, 17, 17, 17, 18, 1025, 1025, 1025, 3):
        check(session, tmp_path, rows)
    with pytest.raises(SegQuantError, match="1x64 to 17x64 or 18x64 to 1025x64"):
        session.run_tensors({"x": inputs(1026).cuda()})
    session.close()


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_threads(tmp_path: Path, cuda_graphs: bool) -> None:
    session = open_engine(build(tmp_path).engine, contexts=3, cuda_graphs=cuda_graphs)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda rows: check(session, tmp_path, 1 + rows % 9), range(60)))


@pytest.mark.usefixtures("gpu")
def test_stripped_weights_are_given_back(tmp_path: Path) -> None:
    wanted = build(tmp_path, refit="identical", strip_weights=True)
    with pytest.raises(SegQuantError, match="without its weights"):
        open_engine(wanted.engine)
    check(open_engine(wanted.engine, onnx=wanted.onnx), tmp_path, 5)


@pytest.mark.usefixtures("gpu")
def test_version_compatible_engines_need_trust(tmp_path: Path) -> None:
    wanted = build(tmp_path, version_compatible=True)
    with pytest.raises(SegQuantError, match="carries code"):
        open_engine(wanted.engine)
    check(open_engine(wanted.engine, trust=True), tmp_path, 5)


@pytest.mark.usefixtures("gpu")
def test_the_second_build_uses_the_timings_of_the_first(tmp_path: Path) -> None:
    wanted = build(tmp_path)
    cache = wanted.options.timing_cache
    assert cache is not None
    first = cache.read_bytes()
    assert first
    build(tmp_path)
    assert len(cache.read_bytes()) >= len(first)


@pytest.mark.usefixtures("gpu")
def test_a_file_that_is_no_engine(tmp_path: Path) -> None:
    path = tmp_path / "noise.engine"
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(SegQuantError, match="refuses"):
        open_engine(path)
