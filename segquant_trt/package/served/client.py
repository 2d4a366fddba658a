"""Call the model that lies beside this file on a running server, over HTTP or gRPC.

    pip install 'tritonclient[all]'
    python client.py --protocol grpc --output answer.npy
    python client.py --inputs mine.npz --url localhost:8000

Without `--inputs` it sends `example.npz`. In your own code:

    with Denoiser("localhost:8001", "MODEL", protocol="grpc") as denoiser:
        prediction = denoiser({"sample": sample, "timestep": timestep, ...})
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]

PORTS = {"http": 8000, "grpc": 8001}


class Denoiser:
    """A model on a server, called with the arrays that the denoiser itself takes.

    Args:
        url: host and port.
        model: its name.
        protocol: "http" or "grpc".
        timeout_s: of one call.

    Raises:
        InferenceServerException (of tritonclient): no answer, or no such model.
    """

    def __init__(self, url: str, model: str, *, protocol: str, timeout_s: float = 600.0) -> None:
        self._api = importlib.import_module(f"tritonclient.{protocol}")
        self._model = model
        options: dict[str, Any] = {}
        self._call: dict[str, Any] = {}
        if protocol == "http":
            options = {"network_timeout": timeout_s, "connection_timeout": timeout_s}
        else:
            self._call = {"client_timeout": timeout_s}
        self._client = self._api.InferenceServerClient(url, **options)
        given = {} if protocol == "http" else {"as_json": True}
        metadata = self._client.get_model_metadata(model, **given)
        self._inputs = {
            entry["name"]: (entry["datatype"], len(entry["shape"]), int(entry["shape"][-1]))
            for entry in metadata["inputs"]
        }
        self._output = metadata["outputs"][0]["name"]

    def __enter__(self) -> Denoiser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The prediction.

        Raises:
            InferenceServerException (of tritonclient): with the server's own words.
        """
        samples = self._samples(inputs)
        sent = []
        for name, array in inputs.items():
            kind = self._inputs[name][0] if name in self._inputs else "FP32"
            shaped = np.ascontiguousarray(self._shaped(name, array, samples))
            tensor = self._api.InferInput(name, list(shaped.shape), kind)
            tensor.set_data_from_numpy(shaped)
            sent.append(tensor)
        wanted = [self._api.InferRequestedOutput(self._output)]
        answer = self._client.infer(self._model, sent, outputs=wanted, **self._call)
        found: Array = answer.as_numpy(self._output)
        return found

    def _samples(self, inputs: Mapping[str, Array]) -> int:
        whole = (
            len(array)
            for name, array in inputs.items()
            if name in self._inputs and array.ndim == self._inputs[name][1] and array.ndim
        )
        return next(whole, 1)

    def _shaped(self, name: str, array: Array, samples: int) -> Array:
        """As the server wants it: a column of timesteps, shared inputs once per sample."""
        if name not in self._inputs or array.ndim != self._inputs[name][1] - 1:
            return array
        if array.ndim == 0:
            return array.reshape(1)
        if array.ndim == 1 and self._inputs[name][2] == 1:
            return array[:, None]
        return np.broadcast_to(array, (samples, *array.shape))


def main() -> int:
    """Send one call; the exit status is 1 where it fails."""
    here = Path(__file__).parent
    packaged = json.loads((here / "packaged.json").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description="Call the denoiser on a Triton server.")
    parser.add_argument("--protocol", choices=tuple(PORTS), default="http")
    parser.add_argument("--url", help="host:port; the protocol's own port here by default")
    parser.add_argument("--model", default=packaged["model"])
    parser.add_argument("--inputs", type=Path, default=here / "example.npz", metavar="FILE.npz")
    parser.add_argument("--output", type=Path, metavar="FILE.npy")
    given = parser.parse_args()
    url = given.url or f"localhost:{PORTS[given.protocol]}"
    with np.load(given.inputs) as stored:
        inputs = {name: stored[name] for name in stored.files}
    try:
        with Denoiser(url, given.model, protocol=given.protocol) as denoiser:
            found = denoiser(inputs)
    except Exception as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    bounds = f"from {found.min():.4g} to {found.max():.4g}"
    sys.stdout.write(f"{found.dtype} {list(found.shape)}: {bounds}\n")
    if given.output is not None:
        np.save(given.output, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
