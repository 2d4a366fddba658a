"""Apply every rule to a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from onnx import NodeProto

from segquant_trt.backends.tensorrt.lint import file_rules
from segquant_trt.backends.tensorrt.lint.finding import (
    SEVERITIES,
    TARGETS,
    Finding,
    LintReport,
    SiteVerdict,
    Target,
)
from segquant_trt.backends.tensorrt.lint.order import is_sorted, sorted_nodes
from segquant_trt.backends.tensorrt.lint.product_rules import four_bit_weight_only
from segquant_trt.backends.tensorrt.lint.rule import Rule
from segquant_trt.backends.tensorrt.lint.rules import RULES
from segquant_trt.backends.tensorrt.lint.subject import Subject
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import load_graph

CAPABILITIES: dict[Target, tuple[str, ...]] = {
    "tensorrt": (
        "sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_103", "sm_110",
        "sm_120", "sm_121",
    ),
    "tensorrt-rtx": ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121"),
}  # fmt: skip


def lint(
    model_path: Path,
    *,
    target: Target = "tensorrt",
    capability: str = "sm_89",
    tensorrt_version: str | None = None,
    plugins: Sequence[str] = (),
) -> LintReport:
    """Hold an ONNX file against the rules of a target; needs neither a GPU nor TensorRT.

    External weights are not read, only scales, zero points and other small constants.

    Args:
        model_path: the file; its external data is looked for beside it.
        target: edition of TensorRT.
        capability: compute capability of the GPU, as "sm_89".
        tensorrt_version: as "10.13" or "11.4"; None for rules of every version.
        plugins: operators that plugin libraries provide.

    Raises:
        SegQuantError: the file is no ONNX model, or target, GPU or version do not exist.
    """
    number = _capability(target, capability)
    major = _major(tensorrt_version)
    model = load_graph(model_path)
    functions = frozenset((function.domain, function.name) for function in model.functions)
    called = tuple(_calls(model, functions))
    whole = _inlined(model, model_path)
    hollow = _without_outputs(whole)
    waiting = _put_in_order(whole)
    subject = Subject(
        whole,
        model_path.parent,
        called=called,
        waiting=waiting,
        hollow=hollow,
        target=target,
        capability=number,
        major=major,
        plugins=frozenset(plugins),
    )
    # Other rules and verdicts take for granted that operators have their operands.
    damage = _findings(subject, file_rules.DAMAGE)
    return LintReport(
        file=model_path.name,
        target=target,
        capability=f"sm_{number}",
        tensorrt_version=tensorrt_version,
        findings=damage or _findings(subject, RULES),
        sites=() if damage else tuple(_sites(subject)),
    )


def _findings(subject: Subject, rules: Sequence[Rule]) -> tuple[Finding, ...]:
    found = [
        Finding(
            rule=rule.name,
            severity=rule.severity,
            node=problem.node,
            tensors=problem.tensors,
            reason=problem.reason,
            fix=rule.fix,
        )
        for rule in rules
        if rule.applies(subject)
        for problem in rule.check(subject)
    ]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def _sites(subject: Subject) -> Iterator[SiteVerdict]:
    refused = {
        problem.node: problem.reason
        for rule in RULES
        if rule.name == "int8-on-this-gpu" and rule.applies(subject)
        for problem in rule.check(subject)
    }
    for product in subject.products:
        if four_bit_weight_only(product, subject):
            continue
        reasons = [obstacle.reason for obstacle in product.obstacles]
        reasons += [refused[product.name]] if product.name in refused else []
        yield SiteVerdict(
            site=product.name,
            op=product.node.op_type,
            precision=product.precision,
            eight_bit=product.eight_bit and not reasons,
            reasons=tuple(reasons),
        )


def _capability(target: Target, capability: str) -> int:
    if target not in TARGETS:
        raise SegQuantError(
            f"{target!r} is no target of the linter", hint=f"choose from {', '.join(TARGETS)}"
        )
    allowed = CAPABILITIES[target]
    found = re.fullmatch(r"(?:sm_?)?(\d+)(?:\.(\d))?", capability.strip().lower())
    name = f"sm_{found[1]}{found[2] or ''}" if found else capability
    if name not in allowed:
        raise SegQuantError(
            f"{capability!r} is no GPU that {target} builds for",
            hint=f"choose from {', '.join(allowed)}",
        )
    return int(name.removeprefix("sm_"))


def _major(version: str | None) -> int | None:
    if version is None:
        return None
    found = re.match(r"(\d+)(?:\.\d+)*", version.strip())
    if found is None:
        raise SegQuantError(
            f"{version!r} is no version of TensorRT", hint="write it as 10.13 or 11.4"
        )
    return int(found[1])


def _calls(model: onnx.ModelProto, functions: frozenset[tuple[str, str]]) -> Iterator[NodeProto]:
    return (node for node in model.graph.node if (node.domain, node.op_type) in functions)


def _without_outputs(model: onnx.ModelProto) -> tuple[NodeProto, ...]:
    """Take nodes that make nothing out, and return them."""
    hollow = [node for node in model.graph.node if not any(node.output)]
    for node in hollow:
        model.graph.node.remove(node)
    return tuple(hollow)


def _put_in_order(model: onnx.ModelProto) -> tuple[NodeProto, ...]:
    """Sort the nodes; those that wait for each other are taken out and returned."""
    if is_sorted(model.graph):
        return ()
    nodes, left = (list(found) for found in sorted_nodes(model.graph))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return tuple(left)


def _inlined(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    if not model.functions:
        return model
    from onnx import inliner

    # TensorRT reads a function's nodes as of the file's opset; the inliner wants them to agree.
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for function in model.functions:
        for entry in function.opset_import:
            entry.version = versions.get(entry.domain, entry.version)
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # its C++ part raises what pybind11 makes of it
        raise SegQuantError(
            f"the local functions of {path} cannot be inlined: {error}",
            hint="check the file with onnx.checker, or export the model again",
        ) from error
