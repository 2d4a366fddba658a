"""Repositories in a real tritonserver (nvidia-pytriton's binary, without a GPU)."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segquant_trt.serve import load
from tests.package.bundles import BUNDLES, calls_of
from tests.package.tritonserver import (
    DRIVER,
    SERVER_VERSION,
    NoServer,
    Server,
    drive,
    environment,
    served,
)
from tests.shared import LazyFolders

pytestmark = pytest.mark.full

KINDS = tuple(BUNDLES)
PROTOCOLS = ("http", "grpc")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, repositories: LazyFolders) -> Iterator[Server]:
    """One server of every kind of bundle, from one repository."""
    try:
        environment()
    except NoServer as reason:
        pytest.skip(str(reason))
    folder = tmp_path_factory.mktemp("triton")
    for kind in KINDS:
        shutil.copytree(repositories[kind] / kind, folder / "models" / kind)
    shutil.copy(repositories["plain"] / "client.py", folder / "models")
    shutil.copy(repositories["plain"] / "README.md", folder / "models")
    with served(folder / "models", folder / "log") as running:
        yield running


@pytest.fixture(scope="module")
def calls(
    tmp_path_factory: pytest.TempPathFactory, bundles: LazyFolders
) -> dict[str, list[list[str]]]:
    """Calls and what `load` answers to them, as files, by kind."""
    folder = tmp_path_factory.mktemp("calls")
    found: dict[str, list[list[str]]] = {}
    for kind in KINDS:
        direct = load(bundles[kind] / "bundle", threads=1)
        found[kind] = []
        for index, call in enumerate(calls_of(kind)):
            inputs, expected = folder / f"{kind}{index}.npz", folder / f"{kind}{index}.npy"
            np.savez(inputs, **call)
            np.save(expected, direct.run(call))
            found[kind].append([str(inputs), str(expected)])
    return found


def all_right(found: dict[str, Any], count: int) -> None:
    assert (found["errors"], found["wrong"], found["answered"]) == ([], [], count)


def statistics(server: Server, model: str) -> dict[str, Any]:
    status, body = server.request("GET", f"/v2/models/{model}/stats")
    assert status == 200
    found: dict[str, Any] = json.loads(body)["model_stats"][0]
    return found


def test_the_server_is_the_one_that_we_speak_of(server: Server) -> None:
    assert json.loads(server.request("GET", "/v2")[1])["version"] == SERVER_VERSION


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_direct_call(
    server: Server, calls: dict[str, list[list[str]]], kind: str, protocol: str
) -> None:
    all_right(drive(server, {kind: calls[kind]}, protocol=protocol), len(calls[kind]))


@pytest.mark.parametrize("threads", [2, 4, 8, 16])
def test_concurrent_calls_of_all_models(
    server: Server, calls: dict[str, list[list[str]]], threads: int
) -> None:
    """Several sizes, steps, prompts and shared inputs at a time: nobody gets another's answer."""
    protocol = PROTOCOLS[threads % 3 % 2]
    found = drive(server, calls, protocol=protocol, threads=threads)
    all_right(found, threads * sum(map(len, calls.values())))


@pytest.mark.parametrize("kind", ["plain", "shared", "frozen"])
def test_waiting_requests_are_computed_together(
    server: Server, calls: dict[str, list[list[str]]], kind: str
) -> None:
    before = statistics(server, kind)
    found = drive(server, {kind: calls[kind][:1]}, protocol="grpc", threads=16, rounds=20)
    all_right(found, 320)
    after = statistics(server, kind)
    inferences = after["inference_count"] - before["inference_count"]
    executions = after["execution_count"] - before["execution_count"]
    assert inferences == 320
    assert executions < inferences
    assert max(batch["batch_size"] for batch in after["batch_stats"]) > 3


def infer(server: Server, model: str, body: bytes, **headers: str) -> tuple[int, str]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    status, said = server.request("POST", f"/v2/models/{model}/infer", body, given)
    return status, said.decode(errors="replace")


def tensor(name: str, shape: list[int], datatype: str = "FP32") -> dict[str, Any]:
    count = int(np.prod(shape))
    return {"name": name, "shape": shape, "datatype": datatype, "data": [0] * count}


GOOD = [tensor("x", [1, 4, 160]), tensor("e", [1, 160])]
WRONG: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "failed to parse the request JSON"),
    "no inputs": ({"inputs": []}, "missing required input(s) ['x','e']"),
    "an input is missing": ({"inputs": GOOD[:1]}, "missing required input(s) ['e']"),
    "an unknown input": ({"inputs": [*GOOD, tensor("z", [1, 2])]}, "Got input(s) ['z',"),
    "another type": ({"inputs": [tensor("x", [1, 4, 160], "INT32"), GOOD[1]]}, "input \'x\'"),
    "another width": ({"inputs": [tensor("x", [1, 4, 161]), GOOD[1]]}, "input \'x\'"),
    "another rank": ({"inputs": [tensor("x", [4, 160]), GOOD[1]]}, "input \'x\'"),
    "too few values": ({"inputs": [{**GOOD[0], "data": [0.0]}, GOOD[1]]}, "'data'"),
    "a negative size": ({"inputs": [{**GOOD[0], "shape": [1, -4, 160]}, GOOD[1]]}, "'shape'"),
    "more samples than fit": (
        {"inputs": [tensor("x", [5, 4, 160]), tensor("e", [5, 160])]}, "batch-size must be <= 4",
    ),
    "samples that do not agree": (
        {"inputs": [tensor("x", [2, 4, 160]), tensor("e", [1, 160])]}, "batch size does not match",
    ),
    "a length out of its range": (
        {"inputs": [tensor("x", [1, 21, 160]), GOOD[1]]}, "tokens 21; allowed: 3 to 16",
    ),
    "a length between its multiples": (
        {"inputs": [tensor("x", [1, 7, 160]), GOOD[1]]}, "in multiples of 2",
    ),
    "an unknown output": ({"inputs": GOOD, "outputs": [{"name": "nothing"}]}, "output 'nothing'"),
}  # fmt: skip


@pytest.mark.parametrize("case", tuple(WRONG))
def test_malformed_requests_are_refused_and_the_server_goes_on(
    server: Server, calls: dict[str, list[list[str]]], case: str
) -> None:
    wrong, words = WRONG[case]
    process = server.process.pid
    body = wrong if isinstance(wrong, bytes) else json.dumps(wrong).encode()
    status, said = infer(server, "plain", body)
    assert 400 <= status < 600, said
    print(case, status, said)
    assert words in said
    assert infer(server, "plain", json.dumps({"inputs": GOOD}).encode())[0] == 200
    all_right(drive(server, {"plain": calls["plain"][:2]}), 2)
    assert (server.process.pid, server.process.poll()) == (process, None)


def test_requests_that_break_off(server: Server, calls: dict[str, list[list[str]]]) -> None:
    import socket

    head = b"POST /v2/models/plain/infer HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n\r\n"
    for sent in (b"\x00" * 400, head + b'{"inputs"', b"GET /v2" + b"a" * 100_000):
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection:
            connection.sendall(sent)
        with socket.create_connection(("127.0.0.1", server.grpc_port), timeout=10) as connection:
            connection.sendall(sent)
    text = json.dumps({"inputs": GOOD}).encode()
    status, _ = infer(server, "plain", text, Inference_Header_Content_Length="999999")
    assert 400 <= status < 600
    for protocol in PROTOCOLS:
        all_right(drive(server, {"plain": calls["plain"]}, protocol=protocol), 12)


def test_models_that_are_not_there(server: Server) -> None:
    status, said = infer(server, "nobody", json.dumps({"inputs": GOOD}).encode())
    assert status in (400, 404)
    assert "nobody" in said


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_unfrozen_step_is_an_error_that_lists_the_steps(
    server: Server, tmp_path: Path, protocol: str
) -> None:
    call = calls_of("refusing")[0]
    np.savez(tmp_path / "call.npz", **{**call, "when": np.full_like(call["when"], 700.0)})
    np.save(tmp_path / "nothing.npy", np.zeros(1))
    pairs = [[str(tmp_path / "call.npz"), str(tmp_path / "nothing.npy")]]
    found = drive(server, {"refusing": pairs}, protocol=protocol)
    assert found["answered"] == 0
    assert "timestep 700 is not among the 6" in found["errors"][0]
    assert "1, 7.5, 120.25, 121, 501, 981" in found["errors"][0]


def test_the_client_as_the_readme_runs_it(
    server: Server, repositories: LazyFolders, bundles: LazyFolders, tmp_path: Path
) -> None:
    for kind in ("frozen", "shared"):
        with np.load(repositories[kind] / "example.npz") as stored:
            wanted = load(bundles[kind] / "bundle", threads=1).run(dict(stored))
        for protocol in PROTOCOLS:
            port = server.http_port if protocol == "http" else server.grpc_port
            arguments = [
                "--protocol", protocol, "--url", f"127.0.0.1:{port}", "--output", "answer.npy",
            ]  # fmt: skip
            result = subprocess.run(
                [server.environment.python, repositories[kind] / "client.py", *arguments],
                capture_output=True, text=True, cwd=tmp_path, timeout=60,
            )  # fmt: skip
            assert result.returncode == 0, result.stderr
            assert result.stdout.startswith("float32 [2, ")
            np.testing.assert_array_equal(np.load(tmp_path / "answer.npy"), wanted)


def test_a_killed_server_comes_back(server: Server, calls: dict[str, list[list[str]]]) -> None:
    """Killed amid calls: these fail, none gets a wrong answer; started again, all is as before."""
    port = server.grpc_port
    job = {
        "client": str(server.repository / "client.py"), "url": f"127.0.0.1:{port}",
        "protocol": "grpc", "threads": 4, "rounds": 10, "models": calls,
    }  # fmt: skip
    with subprocess.Popen(
        [server.environment.python, DRIVER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as driver:  # fmt: skip
        assert driver.stdin is not None
        driver.stdin.write(json.dumps(job))
        driver.stdin.close()
        driver.stdin = None
        deadline = time.monotonic() + 60
        before = statistics(server, "plain")["inference_count"]
        while statistics(server, "plain")["inference_count"] < before + 8:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.kill()
        output, errors = driver.communicate(timeout=120)
    assert driver.returncode == 0, errors
    found = json.loads(output)
    assert found["wrong"] == []
    assert found["errors"]
    assert found["answered"] + len(found["errors"]) == 4 * 10 * sum(map(len, calls.values()))
    assert not server.ready()
    server.start()
    all_right(drive(server, calls, protocol="grpc", threads=4), 4 * sum(map(len, calls.values())))


def test_a_model_whose_process_is_killed(server: Server, calls: dict[str, list[list[str]]]) -> None:
    """Errors, never a wrong answer; the others go on; a restart heals. As the README says."""
    import psutil

    children = psutil.Process(server.process.pid).children(recursive=True)
    (mine,) = (child for child in children if "/models/plain/1/" in " ".join(child.cmdline()))
    mine.kill()
    found = drive(server, {"plain": calls["plain"]})
    assert (found["answered"], len(found["errors"])) == (0, 12)
    assert "is not healthy" in found["errors"][-1]
    all_right(drive(server, {"shared": calls["shared"]}, threads=2), 24)
    server.stop()
    server.start()
    all_right(drive(server, {"plain": calls["plain"]}), 12)


def test_a_compiled_transformer(compiled_flux: Path, tmp_path: Path) -> None:
    """FLUX, compiled and packaged by their commands; samples share positions of tokens."""
    from segquant_trt.cli.app import main

    try:
        environment()
    except NoServer as reason:
        pytest.skip(str(reason))
    bundle, out = str(compiled_flux / "bundle"), str(tmp_path / "models")
    assert main(["package", "triton", bundle, "-o", out, "--name", "flux"]) == 0
    with np.load(tmp_path / "models" / "example.npz") as stored:
        example = dict(stored)
    assert example["img_ids"].ndim == 2
    direct, pairs = load(bundle), []
    for samples in (1, 2):
        batch = {
            name: array if name.endswith("_ids") else array[:samples]
            for name, array in example.items()
        }
        np.savez(tmp_path / f"{samples}.npz", **batch)
        np.save(tmp_path / f"{samples}.npy", direct.run(batch))
        pairs.append([str(tmp_path / f"{samples}.npz"), str(tmp_path / f"{samples}.npy")])
    with served(tmp_path / "models", tmp_path / "log") as one:
        for protocol in PROTOCOLS:
            for threads in (1, 2):  # 4,608 tokens each: more would take gigabytes for attention
                found = drive(one, {"flux": pairs}, protocol=protocol, threads=threads, rounds=2)
                all_right(found, 4 * threads)


def test_a_damaged_model_is_not_served(repositories: LazyFolders, tmp_path: Path) -> None:
    """Beside a whole one: the server says which file is wrong, and the other model is fine."""
    try:
        environment()
    except NoServer as reason:
        pytest.skip(str(reason))
    models = tmp_path / "models"
    for kind in ("plain", "shared"):
        shutil.copytree(repositories[kind] / kind, models / kind)
    with (models / "plain" / "1" / "graphs" / "weights.bin").open("r+b") as stream:
        stream.write(b"damage")
    log = tmp_path / "log"
    with served(models, log, options=("--exit-on-error=false", "--strict-readiness=false")) as one:
        assert one.request("GET", "/v2/models/plain/ready")[0] != 200
        assert one.request("GET", "/v2/models/shared/ready")[0] == 200
        assert "weights.bin was altered: its sha256 differs" in one.log()
