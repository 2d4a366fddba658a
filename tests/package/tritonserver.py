"""A real tritonserver: the binary that `nvidia-pytriton` carries, in an environment of its own.

It has the Python backend and runs without a GPU. The environment is made once, in the user's cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segquant_trt.records.user_cache import default_cache

DRIVER = Path(__file__).parent / "drive.py"
PYTRITON = "nvidia-pytriton==0.7.0"
SERVER_VERSION = "2.51.0"
_MADE = "complete"
_INSTALL_TIMEOUT_S = 540


class NoServer(Exception):
    """Why there is no server here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """`python` has tritonclient, ONNX Runtime and NumPy; `server` is the folder of the binary."""

    python: Path
    server: Path


def environment() -> Environment:
    """The environment, made if need be.

    Raises:
        NoServer: it cannot be made on this machine.
    """
    import onnxruntime

    if not (sys.platform == "linux" and (3, 10) <= sys.version_info[:2] <= (3, 13)):
        raise NoServer("nvidia-pytriton has no binary for this system and Python")
    pins = (PYTRITON, "numpy<2", f"onnxruntime=={onnxruntime.__version__}")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    digest = hashlib.sha256(" ".join((*pins, version)).encode()).hexdigest()[:12]
    folder = default_cache() / f"tritonserver-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _MADE).exists():
            _make(folder, pins, version)
    site = folder / "lib" / f"python{version}" / "site-packages"
    return Environment(python=folder / "bin" / "python", server=site / "pytriton" / "tritonserver")


def _make(folder: Path, pins: tuple[str, ...], version: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    base = getattr(sys, "_base_executable", sys.executable)
    for command in (
        [base, "-m", "venv", folder],
        [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *pins],
    ):
        result = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)
        if result.returncode:
            raise NoServer(f"{pins[0]} cannot be installed: {result.stderr.strip()[-300:]}")
    server = folder / "lib" / f"python{version}" / "site-packages" / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    copied = Path(shutil.copy(stub, server / "backends" / "python"))
    for program in (copied, server / "bin" / "tritonserver"):
        program.chmod(0o755)
    (folder / _MADE).touch()


class Server:
    """A running server on free ports of the loopback interface."""

    def __init__(
        self,
        repository: Path,
        log: Path,
        *,
        options: tuple[str, ...] = (),
        backends: Path | None = None,
    ) -> None:
        self.environment = environment()
        self.repository = repository
        self._log = log
        self._options = options
        self._backends = backends or self.environment.server / "backends"
        self._shared_memory = f"segquant-test-{os.getpid()}-{secrets.token_hex(4)}"
        self.http_port, self.grpc_port = _free_ports(2)
        self.start()

    def start(self, *, timeout_s: float = 120.0) -> None:
        """Start the process and wait until every model is ready.

        Raises:
            RuntimeError: it ended, or was not ready in time; with the end of its log.
        """
        server = self.environment.server
        paths = {"PATH": f"{self.environment.python.parent}:{os.environ['PATH']}"}
        # The stub embeds the interpreter whose library it finds first.
        libraries = {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    server / "bin" / "tritonserver",
                    f"--model-repository={self.repository}",
                    f"--backend-directory={self._backends}",
                    "--http-address=127.0.0.1",
                    "--grpc-address=127.0.0.1",
                    f"--http-port={self.http_port}",
                    f"--grpc-port={self.grpc_port}",
                    "--allow-metrics=false",
                    "--exit-timeout-secs=10",
                    *(
                        f"--backend-config={path.name},shm-region-prefix-name={self._shared_memory}"
                        for path in self._backends.iterdir()
                    ),
                    *self._options,
                ],
                stdout=log,
                stderr=log,
                env={**kept, **paths, **libraries},
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_s
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = self.log()
                self.stop()
                raise RuntimeError(f"the server did not get ready:\n{text[-6000:]}")
            time.sleep(0.1)

    def ready(self) -> bool:
        """Whether the server answers and all its models are loaded."""
        try:
            return self.request("GET", "/v2/health/ready")[0] == 200
        except OSError:
            return False

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """A raw HTTP request: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def log(self) -> str:
        """What the server wrote."""
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """End the server and the processes of its models at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)
        self._remove_shared_memory()

    def stop(self) -> None:
        """End the server as its operator would."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self.kill()
        self._remove_shared_memory()

    def _remove_shared_memory(self) -> None:
        """Nobody else removes what a killed process shared."""
        for region in Path("/dev/shm").glob(f"{self._shared_memory}*"):
            region.unlink(missing_ok=True)


@contextmanager
def served(
    repository: Path,
    log: Path,
    *,
    options: tuple[str, ...] = (),
    backends: Path | None = None,
) -> Iterator[Server]:
    """A server that is ended with the block."""
    server = Server(repository, log, options=options, backends=backends)
    try:
        yield server
    finally:
        server.stop()


def drive(
    server: Server,
    models: dict[str, list[list[str]]],
    *,
    protocol: str = "http",
    threads: int = 1,
    rounds: int = 1,
) -> dict[str, Any]:
    """What `drive.py` says of the calls of these models: pairs of inputs and expected answers."""
    port = server.http_port if protocol == "http" else server.grpc_port
    job = {
        "client": str(server.repository / "client.py"),
        "url": f"127.0.0.1:{port}",
        "protocol": protocol,
        "threads": threads,
        "rounds": rounds,
        "models": models,
    }
    result = subprocess.run(
        [server.environment.python, DRIVER],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if result.returncode:
        raise RuntimeError(result.stderr)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
