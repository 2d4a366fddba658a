"""What the runtime asks of PyTorch is there; without CUDA it is one error.

Executed it is on a GPU only: see test_on_gpu.py.
"""

from __future__ import annotations

import inspect

import pytest
import torch

from segquant_trt.backends.tensorrt.runtime import TorchCuda
from segquant_trt.errors import SegQuantError


def test_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SegQuantError, match="cannot use CUDA") as caught:
        TorchCuda()
    assert "pytorch.org" in caught.value.hint


def test_pytorch_has_what_is_asked_of_it() -> None:
    graph = inspect.signature(torch.cuda.graph.__init__).parameters
    assert {"cuda_graph", "stream", "capture_error_mode"} <= graph.keys()
    assert "device" in inspect.signature(torch.cuda.Stream.__new__).parameters
    assert callable(torch.cuda.Stream.wait_stream)
    assert callable(torch.cuda.Stream.synchronize)
    assert callable(torch.cuda.CUDAGraph.replay)
    assert callable(torch.Tensor.record_stream)
    assert {"device"} <= inspect.signature(torch.cuda.current_stream).parameters.keys()
    assert {"device"} <= inspect.signature(torch.cuda.device.__init__).parameters.keys()
