"""ONNX Runtime on x86 CPUs.

Its quantised kernels multiply uint8 activations by int8 weights. On CPUs with AVX2 but without
VNNI that instruction (vpmaddubsw) adds two products in 16 bits and saturates: results are off by
tens of percent. `session.x64quantprecision` moves weights to uint8, whose kernel is exact, and on
CPUs with VNNI, where nothing saturates, twice as slow. So it is set where sums turn out wrong
without it.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segquant_trt.backends.base import Array, Runner, SiteProof, proof_of
from segquant_trt.backends.extremes import extremes
from segquant_trt.backends.placement import Placement
from segquant_trt.backends.widening import widen_int4
from segquant_trt.errors import MissingDependencyError, SegQuantError
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.graph.payload import point_to
from segquant_trt.graph.qdq import coded_products, site_of
from segquant_trt.graph.wiring import Wiring
from segquant_trt.records import Target, TensorSpec

if TYPE_CHECKING:
    import onnx
    from onnx import NodeProto

_INTEGER_OPS = frozenset({"MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "QLinearConv"})
_MOVED_TO_UINT8 = "_s8_2_u8"
_FATAL_ONLY = 4
_FLOAT32_ROUNDING = 1e-6
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}


class OnnxRuntime:
    """The default target."""

    target: Target = "onnxruntime"
    stand_in: str | None = None
    placement = Placement(
        schemes=("symmetric", "shifted", "dual_scale", "dual_full"),
        linear_factors=("static", "per_token", "per_step"),
        convolution_factors=("static", "per_token", "per_step"),
        split_convolutions=False,
        dual_convolutions=False,
        mixed_segments=False,
        weight_bits=(8, 4),
        weight_only_bits=(4,),
        requantize_conv_output=True,
        output_channels=True,
        lift_linear_bias=True,
        input_channels=True,
    )

    def float_session(
        self, model: onnx.ModelProto | bytes, folder: Path, *, threads: int | None = None
    ) -> Runner:
        """Open a float graph whose external data is in `folder`.

        Raises:
            SegQuantError: the runtime refuses the graph.
        """
        return float_session(model, folder, threads=threads)

    def open(self, model_path: Path, *, threads: int | None = None) -> Runner:
        """Open a rewritten graph; its data is beside it.

        Raises:
            SegQuantError: the runtime refuses the graph.
        """
        return _Session(_rewritten(model_path, _options(model_path.parent, threads)))

    def integer_sites(
        self, model_path: Path, sites: Sequence[str], *, example: Mapping[str, Array]
    ) -> dict[str, SiteProof]:
        """Read the optimised graph that the runtime executes, and look every site up in it."""
        with tempfile.TemporaryDirectory(prefix="segquant-proof-") as scratch:
            optimised = Path(scratch) / "optimised.onnx"
            options = _options(model_path.parent, threads=1)
            options.optimized_model_filepath = str(optimised)
            for key, value in (("file_name", "optimised.data"), ("min_size_in_bytes", "1024")):
                entry = f"session.optimized_model_external_initializers_{key}"
                options.add_session_config_entry(entry, value)
            _rewritten(model_path, options)
            return _proofs(model_path, optimised, sites)

    def versions(self) -> dict[str, str]:
        """Version of ONNX Runtime."""
        return {"onnxruntime": str(_module().__version__)}


def float_session(
    model: onnx.ModelProto | bytes,
    folder: Path,
    *,
    threads: int | None = None,
    lean: bool = False,
) -> Runner:
    """Open a graph with its external data in `folder`; extra outputs may have been added to it.

    `lean`: from its second call on ONNX Runtime would hold a second copy of a call's memory; go
    without. Answers are the same to the bit; sessions that are timed are not to differ in this.

    Raises:
        SegQuantError: the runtime refuses the graph.
    """
    data = model if isinstance(model, bytes) else model.SerializeToString()
    options = _options(folder, threads)
    options.enable_mem_pattern = not lean
    return _Session(_session(data, options, "the float graph"))


def literal_session(model_path: Path, *, threads: int | None = None) -> Runner:
    """A rewritten graph taken at its word: every Q/DQ pair executed in float, nothing fused.

    These are the numbers that the plan means, whatever target it was emitted for; a target whose
    own results are far worse computes something else.

    Raises:
        SegQuantError: the runtime refuses the graph.
    """
    options = _options(model_path.parent, threads)
    options.graph_optimization_level = _module().GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_mem_pattern = False  # as in lean float sessions
    return _Session(_session(model_path.read_bytes(), options, str(model_path)))


class ProfilingSession:
    """A graph whose every call is entered into a profile, node by node.

    Args:
        model_path: a float or a rewritten graph.
        folder: where its external data is.
        prefix: of the profile's path.

    Raises:
        SegQuantError: the runtime refuses the graph.
    """

    def __init__(
        self, model_path: Path, folder: Path, prefix: Path, *, threads: int | None = None
    ) -> None:
        options = _options(folder, threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(prefix)
        self._session = _rewritten(model_path, options)
        runner = _Session(self._session)
        self.inputs, self.run = runner.inputs, runner.run

    def finish(self) -> Path:
        """End the profile; where it was written."""
        return Path(self._session.end_profiling())


class _Session:
    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs: tuple[TensorSpec, ...] = tuple(
            TensorSpec(
                name=value.name,
                dtype=_DTYPES.get(value.type, value.type),
                shape=tuple(axis if isinstance(axis, int) else str(axis) for axis in value.shape),
            )
            for value in session.get_inputs()
        )
        self._outputs = tuple(value.name for value in session.get_outputs())

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        names = list(self._outputs if outputs is None else outputs)
        arrays = {name: np.asarray(x) for name, x in inputs.items()}
        try:
            found = self._session.run(names, arrays)
        except Exception as error:  # its exceptions share no base class
            given = ", ".join(f"{name} {x.dtype}{list(x.shape)}" for name, x in arrays.items())
            raise SegQuantError(
                f"ONNX Runtime fails to run the model on {given}: {_first_line(error)}",
                hint="check these sizes and types, and that memory suffices; fewer samples per "
                "call take less",
            ) from error
        return dict(zip(names, found, strict=True))


def _rewritten(model_path: Path, options: Any) -> Any:
    model = load_graph(model_path)
    widened = widen_int4(model, model_path.parent)
    if not widened:
        return _session(model_path.read_bytes(), options, str(model_path))
    for tensor in model.graph.initializer:
        if tensor.name in widened:
            # The place is never read: the values are handed over below.
            point_to(tensor, "widened", offset=0, length=widened[tensor.name].nbytes)
    value_of = _module().OrtValue.ortvalue_from_numpy
    values = [value_of(array) for array in widened.values()]
    options.add_external_initializers(list(widened), values)
    return _session(model.SerializeToString(), options, str(model_path))


@functools.cache
def _int8_sums_are_exact() -> bool:
    """Whether int8 weights need not be moved, found by computing extreme sums."""
    probe = extremes(requantized=True)
    options = _options(Path(), threads=1, exact=True)
    session = _Session(_session(probe.model.SerializeToString(), options, "a probe"))
    found = session.run(probe.inputs)
    for name, sums in probe.sums.items():
        wanted = sums.astype(np.float64)
        error = float(np.abs(found[name].astype(np.float64) - wanted).max())
        if error > 0.5 * probe.steps[name] + _FLOAT32_ROUNDING * float(np.abs(wanted).max()):
            return False
    return True


def _options(folder: Path, threads: int | None, *, exact: bool | None = None) -> Any:
    options = _module().SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads or 0
    options.use_deterministic_compute = True
    exact = _int8_sums_are_exact() if exact is None else exact
    for key, value in (
        ("session.x64quantprecision", "0" if exact else "1"),
        # Weights of four bits against float activations: 4 would quantise the activations too.
        ("session.qdq_matmulnbits_accuracy_level", "1"),
        ("session.model_external_initializers_file_folder_path", str(folder)),
    ):
        options.add_session_config_entry(key, value)
    return options


def _session(data: bytes, options: Any, origin: str) -> Any:
    module = _module()
    try:
        return module.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class
        raise SegQuantError(
            f"ONNX Runtime refuses {origin}: {_first_line(error)}",
            hint="run the stage that wrote this file again; 'segquant-trt inspect' shows the graph",
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _proofs(emitted: Path, optimised: Path, sites: Sequence[str]) -> dict[str, SiteProof]:
    """Follow every product's weight codes, which no other has, into the optimised graph."""
    before = Wiring(load_graph(emitted).graph)
    owners = {codes: site_of(node) for node, codes in coded_products(before)}
    after = Wiring(load_graph(optimised).graph)
    kernels: dict[str, str] = {}
    for node in after.nodes:
        for tensor in node.input:
            codes = tensor.removesuffix(_MOVED_TO_UINT8)
            if codes in owners:
                kernels[codes] = _reader(node, after)
    products: dict[str, list[str | None]] = {site: [] for site in sites}
    for codes, site in owners.items():
        if site in products:
            products[site].append(kernels.get(codes))
    return {site: proof_of(found, _INTEGER_OPS.__contains__) for site, found in products.items()}


def _reader(node: NodeProto, wiring: Wiring) -> str:
    """Operator that multiplies by the weight: `node`, or what reads it once it is decoded."""
    while node.op_type in ("DequantizeLinear", "Transpose"):
        readers = wiring.consumers.get(node.output[0], [])
        if not readers:
            break
        node = readers[0]
    return str(node.op_type)


def _module() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "onnxruntime", extra=None, why="running the float and the quantised model"
        ) from error
    return onnxruntime
