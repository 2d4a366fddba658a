"""Open graphs as the package's own ONNX Runtime backend does, so that answers are the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError

Array = npt.NDArray[np.generic]

PROBE = "probe.onnx"
PROBE_SUMS = "probe.npz"

_FATAL_ONLY = 4
_FLOAT32_ROUNDING = 1e-6


class GraphSession:
    """A loaded graph; `inputs` are the names of what it reads."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(str(value.name) for value in session.get_inputs())

    def run(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        """Outputs by name.

        Raises:
            SegQuantError: the runtime fails, for example for want of memory.
        """
        try:
            found = self._session.run(list(outputs), {name: inputs[name] for name in self.inputs})
        except Exception as error:  # its exceptions share no base class
            given = ", ".join(f"{name} {x.dtype}{list(x.shape)}" for name, x in inputs.items())
            raise SegQuantError(
                f"ONNX Runtime fails to run the model on {given}: {str(error).splitlines()[0]}",
                hint="check that memory suffices; fewer samples per call take less",
            ) from error
        return dict(zip(outputs, found, strict=True))


def runtime_version() -> str:
    """Version of the ONNX Runtime that is installed beside the server."""
    return str(_module().__version__)


def open_graph(path: Path, *, threads: int, exact: bool) -> GraphSession:
    """A graph whose weights lie beside it.

    Args:
        path: the graph.
        threads: of the runtime; 0: all cores.
        exact: whether `int8_sums_are_exact`.

    Raises:
        SegQuantError: the runtime is missing or refuses the graph.
    """
    module = _module()
    options = module.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads
    options.use_deterministic_compute = True
    for key, value in (
        ("session.x64quantprecision", "0" if exact else "1"),
        ("session.qdq_matmulnbits_accuracy_level", "1"),
        ("session.model_external_initializers_file_folder_path", str(path.parent)),
    ):
        options.add_session_config_entry(key, value)
    try:
        providers = ["CPUExecutionProvider"]
        return GraphSession(module.InferenceSession(path.read_bytes(), options, providers))
    except Exception as error:
        raise SegQuantError(
            f"ONNX Runtime {runtime_version()} refuses {path}: {str(error).splitlines()[0]}",
            hint="install the version that the repository's README names",
        ) from error


def int8_sums_are_exact(folder: Path) -> bool:
    """Whether this processor adds products of codes without saturating (see the probe graph).

    Raises:
        SegQuantError: the runtime is missing or refuses the probe.
    """
    session = open_graph(folder / PROBE, threads=1, exact=True)
    with np.load(folder / PROBE_SUMS) as stored:
        arrays = {name: stored[name] for name in stored.files}
    names = tuple(name[5:] for name in arrays if name.startswith("sums:"))
    found = session.run({name: arrays[f"input:{name}"] for name in session.inputs}, names)
    for name in names:
        wanted = arrays[f"sums:{name}"].astype(np.float64)
        error = float(np.abs(found[name].astype(np.float64) - wanted).max())
        step = float(arrays[f"step:{name}"])
        if error > 0.5 * step + _FLOAT32_ROUNDING * float(np.abs(wanted).max()):
            return False
    return True


def _module() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise SegQuantError(
            "this Python has no onnxruntime",
            hint="install it for the Python that the server's backend runs: the repository's "
            "README has the command",
        ) from error
    return onnxruntime
