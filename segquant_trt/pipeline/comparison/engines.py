"""TensorRT behind the two things that a comparison asks of it: build an engine, open an engine.

Not executed by this project's tests, which have no GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from segquant_trt.bench.baselines.tensorrt_onnx import Engines
from segquant_trt.bench.timed import Subject


def engines(*, cuda_graphs: bool = False) -> Engines:
    """TensorRT, after asking for a GPU.

    Args:
        cuda_graphs: replay calls as one launch.

    Raises:
        SegQuantError: there is no GPU.
    """
    from segquant_trt.backends.tensorrt.device import find_device

    find_device()
    return TensorrtEngines(cuda_graphs=cuda_graphs)


class TensorrtEngines:
    """The builder and the runtime of this package.

    Args:
        cuda_graphs: replay calls as one launch.
    """

    def __init__(self, *, cuda_graphs: bool = False) -> None:
        self._cuda_graphs = cuda_graphs

    def build(self, model: Path, out: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
        """Build an engine whose only profile is these shapes.

        Sites that fell back to float are no error here: this is what the others' file gives.

        Raises:
            SegQuantError: the graph or the device does not allow it.
        """
        from segquant_trt.backends.tensorrt.builder.build import build_engine
        from segquant_trt.backends.tensorrt.builder.request import BuildRequest
        from segquant_trt.records.engine import BuildOptions, ShapeProfile, ShapeRange

        ranges = tuple(
            ShapeRange(name=name, minimum=shape, optimum=shape, maximum=shape)
            for name, shape in shapes.items()
        )
        options = BuildOptions(profiles=(ShapeProfile(inputs=ranges),), allow_fallback=True)
        build_engine(BuildRequest(onnx=model, engine=out, options=options))
        return out

    def open(self, engine: Path, name: str) -> Subject:
        """Load an engine as something to time.

        Raises:
            SegQuantError: it is for another GPU or version, or no engine.
        """
        import torch

        from segquant_trt.backends.tensorrt.runtime import open_engine
        from segquant_trt.bench.baselines.torch_module import cuda_bus_id
        from segquant_trt.bench.engine_subject import EngineSubject

        session = open_engine(engine, cuda_graphs=self._cuda_graphs)
        return EngineSubject(
            name=name,
            session=session,
            device="cuda:0",
            cuda=torch.cuda,
            pci_bus_id=cuda_bus_id(torch.cuda, name),
        )
