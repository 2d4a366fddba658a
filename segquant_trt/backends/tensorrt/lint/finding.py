"""What the linter answers: findings, a verdict per site, and the outcome to expect of a build."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

Target = Literal["tensorrt", "tensorrt-rtx"]
Severity = Literal["parse-error", "build-error", "wrong-result", "not-8-bit", "slow", "advice"]
Outcome = Literal["parse-error", "build-error", "not-8-bit", "fine"]
Precision = Literal["int8", "fp8"]

DATA_CENTRE: tuple[Target, ...] = ("tensorrt",)
RTX: tuple[Target, ...] = ("tensorrt-rtx",)
TARGETS = (*DATA_CENTRE, *RTX)
ERRORS: tuple[Severity, ...] = ("parse-error", "build-error", "wrong-result", "not-8-bit")
SEVERITIES: tuple[Severity, ...] = (*ERRORS, "slow", "advice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that one rule holds against one node.

    `wrong-result` is an engine that builds and computes other values than the ONNX file says.
    """

    rule: str
    severity: Severity
    node: str
    tensors: tuple[str, ...]
    reason: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteVerdict:
    """Whether a product with decoded operands becomes one of 8 bits.

    Args:
        site: name of the MatMul, Gemm, Conv...
        precision: of the codes that it was given; None where the operands' codes say different
            things or none of them are of 8 bits.
        eight_bit: whether the product is computed on those codes.
        reasons: why not, empty where it is.
    """

    site: str
    op: str
    precision: Precision | None
    eight_bit: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LintReport:
    """Everything that the rules found in one file for one target and GPU."""

    file: str
    target: Target
    capability: str
    tensorrt_version: str | None
    findings: tuple[Finding, ...]
    sites: tuple[SiteVerdict, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings for which the engine fails to build or is another one than the file says."""
        return tuple(finding for finding in self.findings if finding.severity in ERRORS)

    @property
    def outcome(self) -> Outcome:
        """What a build of the file is expected to end in."""
        severities = {finding.severity for finding in self.findings}
        if "parse-error" in severities:
            return "parse-error"
        if "build-error" in severities:
            return "build-error"
        return "fine" if all(site.eight_bit for site in self.sites) else "not-8-bit"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: every finding and every site, and their counts."""
        counts = Counter(finding.severity for finding in self.findings)
        return {
            "file": self.file,
            "target": self.target,
            "capability": self.capability,
            "tensorrt_version": self.tensorrt_version,
            "outcome": self.outcome,
            "counts": {severity: counts[severity] for severity in SEVERITIES},
            "sites_total": len(self.sites),
            "sites_8_bit": sum(site.eight_bit for site in self.sites),
            "findings": [
                {
                    "rule": finding.rule,
                    "severity": finding.severity,
                    "node": finding.node,
                    "tensors": list(finding.tensors),
                    "reason": finding.reason,
                    "fix": finding.fix,
                }
                for finding in self.findings
            ],
            "sites": [
                {
                    "site": site.site,
                    "op": site.op,
                    "precision": site.precision,
                    "eight_bit": site.eight_bit,
                    "reasons": list(site.reasons),
                }
                for site in self.sites
            ],
        }
