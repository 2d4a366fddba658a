"""Configurations as a server reads them: its own message type, and the server itself.

Engines cannot run here. That their configuration loads is shown with a Python program in the place
of the TensorRT backend: a test of the protocol between client, server and configuration, and of
nothing that TensorRT does. The one thing changed for it is that instances are on the CPU.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segquant_trt.package import EnginePackage, ServingOptions, package_engines
from tests.package.bundles import BUNDLES
from tests.package.engines import flux_package, unet_package
from tests.package.tritonserver import Environment, NoServer, environment, served
from tests.shared import LazyFolders

pytestmark = pytest.mark.full

PARSE = """
import json, sys
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

found = text_format.Parse(sys.stdin.read(), ModelConfig())
json.dump(json_format.MessageToDict(found, preserving_proto_field_name=True), sys.stdout)
"""
# In the place of libtriton_tensorrt.so: twice the first input, plus the timestep.
BACKEND = """
import numpy as np
import triton_python_backend_utils as backend


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        sample, timestep = (
            backend.get_input_tensor_by_name(request, name).as_numpy()
            for name in ("sample", "timestep")
        )
        assert timestep.shape == sample.shape[:1], timestep.shape
        total = 2 * sample + timestep[:, None, None, None]
        return backend.InferenceResponse([backend.Tensor("out", total.astype(sample.dtype))])
"""
CALL = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from client import Denoiser
random = np.random.default_rng(0)
for samples, side in ((1, 64), (2, 96), (8, 128)):
    call = {
        "sample": random.standard_normal((samples, 4, side, side)).astype(np.float16),
        "timestep": np.arange(samples, dtype=np.float32),
        "encoder_hidden_states": np.zeros((samples, 77, 768), np.float16),
    }
    wanted = 2 * call["sample"] + call["timestep"][:, None, None, None].astype(np.float16)
    for protocol, port in zip(("http", "grpc"), sys.argv[2:]):
        with Denoiser("127.0.0.1:" + port, "unet", protocol=protocol) as denoiser:
            assert np.array_equal(denoiser(call), wanted), (protocol, samples)
"""


@pytest.fixture(scope="module")
def installed() -> Environment:
    try:
        return environment()
    except NoServer as reason:
        pytest.skip(str(reason))


def parsed(installed: Environment, text: str) -> dict[str, Any]:
    result = subprocess.run(
        [installed.python, "-c", PARSE], input=text, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("kind", tuple(BUNDLES))
def test_bundles(installed: Environment, repositories: LazyFolders, kind: str) -> None:
    found = parsed(installed, (repositories[kind] / kind / "config.pbtxt").read_text())
    assert (found["name"], found["backend"]) == (kind, "python")
    assert found["instance_group"] == [{"count": 1, "kind": "KIND_CPU"}]
    assert found["parameters"]["threads"] == {"string_value": "1"}
    assert found["version_policy"] == {"latest": {"num_versions": 1}}
    inputs = {entry["name"] for entry in found["input"]}
    assert set(found["model_warmup"][0]["inputs"]) == inputs


def packaged(package: EnginePackage, out: Path) -> str:
    package_engines(package, out, ServingOptions())
    return (out / package.name / "config.pbtxt").read_text()


def test_engines(installed: Environment, tmp_path: Path) -> None:
    text = packaged(unet_package(tmp_path / "built"), tmp_path / "out")
    found = parsed(installed, text)
    assert found["platform"] == "tensorrt_plan"
    assert found["cc_model_filenames"] == {
        "8.0": "sm80.plan", "8.9": "sm89.plan", "12.0": "sm89.plan",
    }  # fmt: skip
    assert found["instance_group"] == [{"count": 1, "kind": "KIND_GPU", "profile": ["0", "1"]}]
    assert found["dynamic_batching"] == {"preferred_batch_size": [2, 8]}
    cuda = found["optimization"]["cuda"]
    assert cuda["graphs"] is True
    assert [spec["batch_size"] for spec in cuda["graph_spec"]] == [1, 2, 1, 8]
    assert cuda["graph_spec"][3]["input"] == {
        "sample": {"dim": ["4", "96", "96"]},
        "timestep": {},
        "encoder_hidden_states": {"dim": ["77", "768"]},
    }
    assert found["input"][1] == {
        "name": "timestep", "data_type": "TYPE_FP32", "dims": ["1"], "reshape": {},
    }  # fmt: skip


def test_engines_without_batching(installed: Environment, tmp_path: Path) -> None:
    found = parsed(installed, packaged(flux_package(tmp_path / "built"), tmp_path / "out"))
    assert "max_batch_size" not in found
    assert found["input"][0]["data_type"] == "TYPE_BF16"
    assert found["optimization"]["cuda"]["graph_spec"][0]["input"]["img_ids"] == {
        "dim": ["4096", "3"]
    }


def stand_in(installed: Environment, folder: Path) -> Path:
    """A folder of backends in which `tensorrt` is a Python program."""
    (folder / "tensorrt").mkdir(parents=True)
    (folder / "tensorrt" / "model.py").write_text(BACKEND)
    (folder / "python").symlink_to(installed.server / "backends" / "python")
    return folder


def test_a_server_loads_the_configuration_of_engines(
    installed: Environment, tmp_path: Path
) -> None:
    """Protocol only: `tensorrt` is a Python program here, and instances are on the CPU."""
    out = tmp_path / "out"
    text = packaged(unet_package(tmp_path / "built"), out)
    assert text.count("KIND_GPU") == 1
    (out / "unet" / "config.pbtxt").write_text(text.replace("KIND_GPU", "KIND_CPU"))
    backends = stand_in(installed, tmp_path / "backends")
    with served(out, tmp_path / "log", backends=backends) as server:
        status, body = server.request("GET", "/v2/models/unet/config")
        assert status == 200
        loaded = json.loads(body)
        assert loaded["cc_model_filenames"]["12.0"] == "sm89.plan"
        assert len(loaded["optimization"]["cuda"]["graph_spec"]) == 4
        assert loaded["instance_group"][0]["profile"] == ["0", "1"]
        result = subprocess.run(
            [installed.python, "-c", CALL, out, str(server.http_port), str(server.grpc_port)],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert np.all([server.ready(), server.process.poll() is None])


def test_the_configuration_as_it_is_wants_a_gpu(installed: Environment, tmp_path: Path) -> None:
    """Without one the server says so, and serves nothing."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU")
    packaged(unet_package(tmp_path / "built"), tmp_path / "out")
    backends = stand_in(installed, tmp_path / "backends")
    with (
        pytest.raises(RuntimeError, match="kind KIND_GPU but no GPUs are available"),
        served(tmp_path / "out", tmp_path / "log", backends=backends),
    ):
        pass
