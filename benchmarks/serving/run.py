"""What serving adds to a direct call, and what a server does under load.

    python -m benchmarks.serving.run --bundle RUN/bundle [--bundle ...]

Starts a tritonserver on the loopback interface (nvidia-pytriton's binary, in an environment that
is made once in the user's cache) with every bundle twice: with dynamic batching and without.
Overhead is of calls in turns: direct, HTTP, gRPC. Load comes from 1 to 16 threads that each wait
for their answer; all answers are compared with the direct call's, bit by bit. Cells with and
without batching alternate. Writes benchmarks/results/serving.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.marked_blocks import write_block
from segquant_trt.bench.hardware import hardware, versions
from segquant_trt.bench.latency import median_interval
from segquant_trt.package import ServingOptions, package_bundle
from segquant_trt.records.files import atomic_write_json
from segquant_trt.serve import load
from segquant_trt.serve.integrity import checked_manifest
from tests.package.tritonserver import PYTRITON, SERVER_VERSION, Server, drive, served

RESULT = Path(__file__).resolve().parents[1] / "results" / "serving.json"
README = Path(__file__).with_name("README.md")
PAIRED = Path(__file__).with_name("paired.py")
PROTOCOLS = ("http", "grpc")
_QUIET = 0.5  # of the load average per core: the last minutes count in it
CONCURRENCY = (1, 2, 4, 8, 16)
CALLS = 128  # of a cell, whatever its number of threads
REPEATS = 10
ROUNDS = 200
THREADS = 1
BATCHED, ALONE = "dynamic batching", "one by one"

Cells = dict[tuple[str, int, str], list[dict[str, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure serving on this machine.")
    parser.add_argument("--bundle", type=Path, action="append", required=True)
    parser.add_argument("--json", type=Path, default=RESULT)
    given = parser.parse_args()
    load_before = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory(prefix="segquant-serving-") as scratch:
        rows = [measured(bundle, Path(scratch) / str(i)) for i, bundle in enumerate(given.bundle)]
    record = {
        "rows": rows,
        "runtime_threads": THREADS,
        "calls_per_cell": CALLS,
        "repeats": REPEATS,
        "load_average_before": load_before,
        "hardware": hardware(),
        "versions": {**versions(), "tritonserver": SERVER_VERSION, "carrier": PYTRITON},
    }
    atomic_write_json(given.json, record)
    if given.json == RESULT:
        write_block(README, "serving", table(record))
    print(table(record))


def table(record: dict[str, Any]) -> str:
    """The record in two tables, as Markdown."""
    lines = ["| model | direct call | HTTP adds | gRPC adds | killed, to the first answer |"]
    lines.append("|-|-|-|-|-|")
    for row in record["rows"]:
        adds = (row[f"{protocol}_adds_ms"] for protocol in PROTOCOLS)
        texts = [f"{a['median']:.2f} ms ({a['low']:.2f} to {a['high']:.2f})" for a in adds]
        lines.append(
            f"| {row['source'].removeprefix('zoo:')} | {row['median_ms']['direct']:.2f} ms "
            f"| {' | '.join(texts)} | {row['killed_to_first_answer_s']:.1f} s |"
        )
    heads = [f"{n} client{'s' if n > 1 else ''}" for n in CONCURRENCY]
    lines += ["", f"| model | over | serving | {' | '.join(heads)} |"]
    lines.append("|-" * (3 + len(CONCURRENCY)) + "|")
    for row in record["rows"]:
        for protocol in PROTOCOLS:
            for way in (BATCHED, ALONE):
                cells = [_cell(row, protocol, n, way) for n in CONCURRENCY]
                name = row["source"].removeprefix("zoo:")
                lines.append(f"| {name} | {protocol} | {way} | {' | '.join(cells)} |")
            gains = [_gain(row, protocol, n) for n in CONCURRENCY]
            lines.append(f"| {name} | {protocol} | *batching gives* | {' | '.join(gains)} |")
    machine, load = record["hardware"], record["load_average_before"]
    lines += ["", f"On {machine['cores']} cores of {machine['cpu']}, with a load average of {load}"]
    lines[-1] += " before the run"
    lines[-1] += ": the machine had other work." if load > _QUIET * int(machine["cores"]) else "."
    return "\n".join(lines)


def _cell(row: dict[str, Any], protocol: str, concurrency: int, way: str) -> str:
    wanted = (protocol, concurrency, way)
    cell = next(c for c in row["load"] if (c["protocol"], c["concurrency"], c["serving"]) == wanted)
    return f"{cell['calls_per_s']:.0f}/s, {cell['median_ms']:.1f} / {cell['p99_ms']:.1f} ms"


def _gain(row: dict[str, Any], protocol: str, concurrency: int) -> str:
    gain = next(
        g
        for g in row["batching_gain"]
        if (g["protocol"], g["concurrency"]) == (protocol, concurrency)
    )
    return f"{gain['median']:.2f}x ({gain['low']:.2f} to {gain['high']:.2f})"


def measured(bundle: Path, folder: Path) -> dict[str, Any]:
    """Overhead, load and restart of one bundle."""
    manifest = checked_manifest(bundle)
    folder.mkdir()
    repository = repository_of(bundle, folder)
    pairs = expected_answers(bundle, repository, folder)
    with served(repository, folder / "log") as server:
        overhead = overhead_of(server)
        cells = under_load(server, pairs)
        back_s = restarted(server, pairs)
    return {
        "bundle": manifest.provenance["manifest"],
        "source": manifest.source,
        "samples_per_call": samples_of(repository),
        **overhead,
        "load": rows_of(cells),
        "batching_gain": gains_of(cells),
        "killed_to_first_answer_s": round(back_s, 2),
    }


def repository_of(bundle: Path, folder: Path) -> Path:
    """Both ways of serving in one repository."""
    manifest = checked_manifest(bundle)
    for name, batching in (("batched", True), ("alone", False)):
        options = ServingOptions(name=name, threads=THREADS, dynamic_batching=batching)
        package_bundle(bundle, manifest, folder / name, options)
    shutil.move(folder / "alone" / "alone", folder / "batched" / "alone")
    return folder / "batched"


def samples_of(repository: Path) -> int:
    with np.load(repository / "example.npz") as stored:
        return max(len(stored[name]) for name in stored.files if "timestep" in name)


def expected_answers(bundle: Path, repository: Path, folder: Path) -> list[list[str]]:
    """Eight calls of the example's sizes, and their answers, as files."""
    direct = load(bundle, threads=THREADS)
    with np.load(repository / "example.npz") as stored:
        example = {name: stored[name] for name in stored.files}
    found = []
    for number in range(8):
        random = np.random.default_rng(number)
        call = {
            name: array
            if "timestep" in name or name.endswith("_ids")
            else random.standard_normal(array.shape).astype(array.dtype)
            for name, array in example.items()
        }
        inputs, answer = folder / f"{number}.npz", folder / f"{number}.npy"
        np.savez(inputs, **call)
        np.save(answer, direct.run(call))
        found.append([str(inputs), str(answer)])
    return found


def overhead_of(server: Server) -> dict[str, Any]:
    """Medians in ms, and what a protocol adds, call by call, with its 95 % interval."""
    job = {
        "repository": str(server.repository),
        "model": "alone",
        "threads": THREADS,
        "rounds": ROUNDS,
        "urls": {p: f"127.0.0.1:{port_of(server, p)}" for p in PROTOCOLS},
    }
    result = subprocess.run(
        [server.environment.python, PAIRED],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    took = {way: np.array(seconds) * 1e3 for way, seconds in json.loads(result.stdout).items()}
    found: dict[str, Any] = {
        "median_ms": {way: round(float(np.median(ms)), 3) for way, ms in took.items()}
    }
    for protocol in PROTOCOLS:
        added = took[protocol] - took["direct"]
        low, high = median_interval(added)
        found[f"{protocol}_adds_ms"] = {
            "median": round(float(np.median(added)), 3),
            "low": round(low, 3),
            "high": round(high, 3),
            "p99": round(float(np.percentile(added, 99)), 3),
        }
    return found


def under_load(server: Server, pairs: list[list[str]]) -> Cells:
    """Cells of one repeat alternate between the ways of serving."""
    models = {BATCHED: "batched", ALONE: "alone"}
    cells: Cells = {}
    for repeat in range(REPEATS):
        for protocol in PROTOCOLS:
            for threads in CONCURRENCY:
                ways = list(models) if repeat % 2 else list(models)[::-1]
                for way in ways:
                    found = one_cell(server, models[way], pairs, protocol, threads)
                    cells.setdefault((protocol, threads, way), []).append(found)
    return cells


def rows_of(cells: Cells) -> list[dict[str, Any]]:
    """A row per protocol, concurrency and way of serving."""
    return [
        {"protocol": protocol, "concurrency": threads, "serving": way, **medians(found)}
        for (protocol, threads, way), found in sorted(cells.items())
    ]


def gains_of(cells: Cells) -> list[dict[str, Any]]:
    """Calls per second with batching over those without, pair by pair, with 95 % intervals."""
    rows = []
    for protocol in PROTOCOLS:
        for threads in CONCURRENCY:
            batched, alone = (
                np.array([cell["calls_per_s"] for cell in cells[protocol, threads, way]])
                for way in (BATCHED, ALONE)
            )
            low, high = median_interval(batched / alone)
            rows.append(
                {
                    "protocol": protocol,
                    "concurrency": threads,
                    "median": round(float(np.median(batched / alone)), 2),
                    "low": round(low, 2),
                    "high": round(high, 2),
                }
            )
    return rows


def one_cell(
    server: Server, model: str, pairs: list[list[str]], protocol: str, threads: int
) -> dict[str, float]:
    before = counts(server, model)
    rounds = CALLS // (threads * len(pairs)) or 1
    found = drive(server, {model: pairs}, protocol=protocol, threads=threads, rounds=rounds)
    calls = threads * rounds * len(pairs)
    if found["wrong"] or found["errors"] or found["answered"] != calls:
        raise RuntimeError(f"{model}, {threads} threads: {found['wrong']} {found['errors']}")
    after = counts(server, model)
    ms = np.array(found["latencies_s"]) * 1e3
    return {
        "calls_per_s": calls / found["wall_s"],
        "median_ms": float(np.median(ms)),
        "p99_ms": float(np.percentile(ms, 99)),
        "samples_per_execution": (after[0] - before[0]) / (after[1] - before[1]),
        "answers_checked": calls,
    }


def counts(server: Server, model: str) -> tuple[int, int]:
    """Inferences (samples) and executions so far."""
    _, body = server.request("GET", f"/v2/models/{model}/stats")
    found = json.loads(body)["model_stats"][0]
    return found["inference_count"], found["execution_count"]


def medians(found: list[dict[str, float]]) -> dict[str, float]:
    rounded = {
        name: round(float(np.median([cell[name] for cell in found])), 2)
        for name in found[0]
        if name != "answers_checked"
    }
    return {**rounded, "answers_checked": sum(int(cell["answers_checked"]) for cell in found)}


def port_of(server: Server, protocol: str) -> int:
    return server.http_port if protocol == "http" else server.grpc_port


def restarted(server: Server, pairs: list[list[str]]) -> float:
    """Seconds from the end of a killed server to the first right answer of the next one."""
    server.kill()
    start = time.perf_counter()
    server.start()
    found = drive(server, {"alone": pairs[:1]})
    if found["wrong"] or found["errors"]:
        raise RuntimeError(f"after a restart: {found}")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
