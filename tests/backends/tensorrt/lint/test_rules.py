"""Each rule speaks against a minimal graph, and not against the same graph put right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from segquant_trt.backends.tensorrt.lint import RULES, Finding, Target, lint
from tests.backends.tensorrt.lint.parts import (
    TOKENS,
    K,
    Model,
    N,
    Part,
    attention,
    changed,
    coded,
    convolution,
    decoded,
    joined,
    linear,
    op,
    operator_attention,
    residual,
    running_scale,
    then,
    two_weights,
    with_function,
)
from tests.backends.tensorrt.lint.sketch import BFLOAT16, FLOAT, FLOAT16, FP8, INT4, INT8, UINT8

FP32 = np.float32
WIDE = np.array([2.0], dtype=FP32)
FAR = np.full(N, 0.01)


@dataclass(frozen=True)
class Case:
    """A rule's name and severity for a target, what breaks it, and what does not."""

    rule: str
    severity: str
    broken: Callable[[], Model]
    fixed: Callable[[], Model]
    target: Target = "tensorrt-rtx"
    gpu: str = "sm_89"
    fixed_gpu: str = ""
    plugins: tuple[str, ...] = ()
    node: str | None = None


def _opset(version: int) -> Callable[[], Model]:
    return lambda: linear(opset=version)


def _lost_weight(model: Model) -> None:
    tensor = model.graph.initializer[2]
    tensor.ClearField("int32_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", str(K * N))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def _weight(axis: int | None, kind: int = INT8, **attributes: int) -> Callable[[], Model]:
    count = () if axis is None else ((K, N)[axis],)
    given = {} if axis is None else {"axis": axis}
    made = decoded(np.ones((K, N)), kind, np.full(count, 0.01), **given, **attributes)
    return lambda: linear(weight=made)


def _blocks(kind: int, before: Part = lambda s, x: s.pair(x)) -> Callable[[], Model]:
    scales = np.full((K // 16, N), 0.01)
    made = decoded(np.ones((K, N)), kind, scales, axis=0, block_size=16)
    return lambda: linear(before, made)


def _zeros(value: float, count: int) -> Callable[[], Model]:
    def weight(s):  # type: ignore[no-untyped-def]
        inputs = (s.stored(np.ones((K, N)), INT8), s.floats(FAR))
        return s.op("DequantizeLinear", *inputs, s.stored(np.full(count, value), INT8), axis=1)

    return lambda: linear(weight=weight)


def _float_weight(s):  # type: ignore[no-untyped-def]
    return s.floats(np.ones((K, N)))


def _turned(s):  # type: ignore[no-untyped-def]
    return s.op("Transpose", s.weight(N, K, axis=0), perm=[1, 0], name="turn")


def _early_transpose(s):  # type: ignore[no-untyped-def]
    codes = s.op("Transpose", s.stored(np.ones((N, K)), INT8), perm=[1, 0], name="turn")
    return s.op("DequantizeLinear", codes, s.floats(FAR), s.stored(np.zeros(N), INT8), axis=1)


def _cast_weight(s):  # type: ignore[no-untyped-def]
    codes, zero = s.stored(np.ones((K, N)), INT8), s.stored(np.zeros(N), INT8)
    made = s.op("DequantizeLinear", codes, s.array(FAR.astype(FP32)), zero, axis=1)
    return s.op("Cast", made, to=FLOAT16)


def _bias(kind: type[np.generic]) -> Part:
    def part(s, x):  # type: ignore[no-untyped-def]
        inputs = (s.array(np.ones(N, kind)), s.floats(FAR), s.array(np.zeros(N, kind)))
        return s.op("Add", x, s.op("DequantizeLinear", *inputs, axis=0, name="bias"))

    return part


def _input_zero(s):  # type: ignore[no-untyped-def]
    return s.input("zero", kind=INT8)


def _input_zero_fp8(s):  # type: ignore[no-untyped-def]
    return s.stored(3.0, FP8)


def _moved(kind: str, *axes: int) -> Part:
    def part(s, x):  # type: ignore[no-untyped-def]
        step, zero = s.floats(0.05), s.stored(0.0, FP8)
        codes = s.op("QuantizeLinear", x, step, zero)
        moved = s.op(kind, codes, s.ints(*axes), name="moved")
        return s.op("DequantizeLinear", moved, step, zero)

    return part


def _twice(s, x):  # type: ignore[no-untyped-def]
    return s.op("Add", s.pair(x), s.pair(x))


def _apart(s, x):  # type: ignore[no-untyped-def]
    return s.op("Add", s.pair(x), s.pair(x, 0.02))


def _odd(inner: int) -> Callable[[], Model]:
    return lambda: linear(
        then(op("Slice", *(np.array([i]) for i in (0, inner, 2))), lambda s, x: s.pair(x)),
        lambda s: s.weight(inner, N, axis=1),
    )


def _group_norm(count: int) -> Callable[[], Model]:
    norm = op("GroupNormalization", [1.0] * count, [1.0] * count, num_groups=4)
    return lambda: convolution(then(norm, coded()))


def _named(name: str) -> Callable[[], Model]:
    return lambda: linear(name=name)


def _shared(name: str) -> Callable[[], Model]:
    return lambda: linear(then(coded(name="a"), coded(name=name)))


def _output(name: str, kind: int) -> Callable[[Model], None]:
    """A constant as an output."""
    value = helper.make_tensor_value_info(name, kind, None)
    return lambda model: model.graph.output.append(value)


def _cut(model: Model) -> None:
    tensor = next(t for t in model.graph.initializer if t.raw_data)
    tensor.raw_data = tensor.raw_data[:-1]


def _reversed(model: Model) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


PLAIN = linear
CASES = (
    Case("opset-too-old", "parse-error", _opset(6), _opset(7)),
    Case("opset-too-new", "advice", _opset(99), _opset(21)),
    Case("missing-tensor", "parse-error",
         lambda: changed(linear(), lambda m: m.graph.node[0].input.__setitem__(0, "lost")), PLAIN),
    Case("repeated-tensor", "parse-error",
         lambda: changed(linear(), lambda m: m.graph.initializer.append(m.graph.initializer[0])),
         PLAIN),
    Case("cycle", "parse-error",
         lambda: changed(linear(), lambda m: m.graph.node[0].input.__setitem__(
             0, m.graph.node[-1].output[0])),
         lambda: changed(linear(), _reversed)),
    Case("incomplete-node", "parse-error",
         lambda: changed(linear(), lambda m: m.graph.node[-1].input.pop()), PLAIN),
    Case("input-without-shape", "parse-error",
         lambda: changed(linear(),
                         lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")), PLAIN),
    Case("contraction", "parse-error",
         lambda: linear(weight=lambda s: s.weight(K + 1, N, axis=1)), PLAIN, node="site"),
    Case("running-requantization", "build-error",
         lambda: linear(then(coded(), coded(running_scale))),
         lambda: linear(then(coded(), coded(0.04)))),
    Case("repeated-node-name", "parse-error", _shared("a"), lambda: linear(then(coded(), coded()))),
    Case("external-data", "parse-error", lambda: changed(linear(), _lost_weight), PLAIN),
    Case("short-constant", "parse-error", lambda: changed(linear(), _cut), PLAIN),
    Case("unknown-type", "parse-error",
         lambda: linear(coded(kind=TensorProto.FLOAT8E5M2)), lambda: linear(coded(kind=FP8))),
    Case("cast-type", "parse-error",
         lambda: linear(after=then(op("Cast", to=TensorProto.INT16), op("Cast", to=FLOAT16))),
         lambda: linear(after=then(op("Cast", to=TensorProto.INT32), op("Cast", to=FLOAT16)))),
    Case("cast-to-fp8", "build-error",
         lambda: linear(after=then(op("Cast", to=FP8), op("Cast", to=FLOAT16))),
         lambda: linear(after=lambda s, x: s.pair(x, codes=FP8))),
    Case("fp64", "advice",
         lambda: linear(after=then(op("Cast", to=TensorProto.DOUBLE), op("Cast", to=FLOAT16))),
         PLAIN),
    Case("mixed-types", "parse-error",
         lambda: linear(after=op("Mul", WIDE, name="twice")),
         lambda: linear(after=op("Mul", 2.0)), node="twice"),
    Case("operand-type", "parse-error",
         lambda: linear(after=op("Not", name="no")),
         lambda: linear(after=then(op("Cast", to=TensorProto.BOOL), op("Not"))), node="no"),
    Case("int32-dequantize", "parse-error",
         lambda: linear(after=_bias(np.int32)), lambda: linear(after=_bias(np.int8)), node="bias"),
    Case("stray-codes", "build-error", lambda: linear(weight=_early_transpose),
         lambda: linear(weight=_turned), node="turn"),
    Case("stray-codes", "build-error",
         lambda: changed(linear(), _output("c2", INT8)),
         lambda: changed(linear(), _output("c0", FLOAT16))),
    Case("fp8-moved", "build-error",
         lambda: linear(_moved("Unsqueeze", 0), lambda s: s.weight(K, N, axis=1), codes=FP8),
         lambda: linear(_moved("Reshape", -1, TOKENS, K), codes=FP8), node="moved"),
    Case("unsupported-operator", "parse-error",
         lambda: linear(after=op("Det", name="det")), PLAIN, node="det"),
    Case("unknown-operator", "parse-error",
         lambda: linear(after=op("Own", domain="own", name="own")),
         lambda: with_function("Own"), node="own"),
    Case("no-such-plugin", "parse-error", lambda: linear(after=op("NonZero")), PLAIN),
    Case("group-norm-scales", "build-error", _group_norm(4), _group_norm(16)),
    Case("shadowed-operator", "advice", lambda: linear(after=op("Relu", domain="own")),
         lambda: linear(after=op("Relu"))),
    Case("plugin-attributes", "slow", lambda: with_function("Own"),
         lambda: with_function("Own", plugin_namespace="own", plugin_version="1"),
         plugins=("Own",), node="call"),
    Case("function-inlined", "advice", lambda: with_function("Own"), PLAIN, node="call"),
    Case("fp8-on-this-gpu", "build-error", lambda: linear(codes=FP8), lambda: linear(codes=FP8),
         gpu="sm_86", fixed_gpu="sm_89"),
    Case("bf16-on-this-gpu", "build-error", lambda: linear(kind=BFLOAT16), PLAIN, gpu="sm_75"),
    Case("int4-on-this-gpu", "build-error", _weight(1, INT4), _weight(1), gpu="sm_75"),
    Case("fp32-product-on-this-gpu", "build-error", lambda: linear(kind=FLOAT), PLAIN,
         gpu="sm_75"),
    Case("int8-on-this-gpu", "not-8-bit", PLAIN, lambda: linear(codes=FP8), target="tensorrt",
         gpu="sm_103"),
    Case("zero-point-nonzero", "parse-error", lambda: linear(coded(zero=3)), PLAIN),
    Case("zero-point-not-constant", "build-error", lambda: linear(coded(zero=_input_zero)), PLAIN),
    Case("zero-point-size", "parse-error", _zeros(0, 1), _zeros(0, N)),
    Case("fp8-zero-point", "wrong-result", lambda: linear(coded(zero=_input_zero_fp8), codes=FP8),
         lambda: linear(codes=FP8)),
    Case("zero-point-implicit", "advice", lambda: linear(coded(zero=lambda s: "")), PLAIN),
    Case("unsigned-codes", "wrong-result", lambda: linear(coded(kind=UINT8)), PLAIN),
    Case("unsigned-stored-codes", "parse-error", _weight(1, UINT8), _weight(1)),
    Case("four-bit-activation", "wrong-result", lambda: linear(coded(kind=INT4)), PLAIN),
    Case("scale-not-positive", "parse-error", lambda: linear(coded(1e-8)),
         lambda: linear(coded(1e-6))),
    Case("scale-not-finite", "wrong-result", lambda: linear(coded(np.inf)),
         lambda: linear(coded(500.0))),
    Case("scale-overflow", "wrong-result", lambda: linear(coded(600.0)),
         lambda: linear(coded(600.0), kind=BFLOAT16)),
    Case("scale-subnormal", "advice", lambda: linear(coded(6e-5)), lambda: linear(coded(6.2e-5))),
    Case("scale-count", "parse-error",
         lambda: linear(weight=decoded(np.ones((K, N)), INT8, FAR[1:], axis=1)), _weight(1)),
    Case("scale-count", "parse-error",
         lambda: linear(weight=decoded(
             np.ones((K, N)), INT4, np.full((K // 16, N - 1), 0.01), axis=0, block_size=16)),
         _blocks(INT4, lambda s, x: x)),
    Case("scale-type", "advice", lambda: linear(source=FLOAT), PLAIN),
    Case("fp8-scale-type", "build-error", lambda: linear(codes=FP8, source=FLOAT),
         lambda: linear(codes=FP8)),
    Case("opset-of-codes", "advice", _opset(18), _opset(19)),
    Case("activation-scale", "not-8-bit", lambda: linear(coded(np.full(K, 0.05), axis=2)),
         lambda: linear(coded(np.full(K, 0.05), decode=0.05, axis=2)), node="site"),
    Case("activation-scale", "not-8-bit",
         lambda: linear(coded(np.full(K, 0.05), decode=0.05, axis=2)), PLAIN, target="tensorrt"),
    Case("dynamic-scale", "not-8-bit", lambda: linear(coded(running_scale)), PLAIN),
    Case("dynamic-scale-convolution", "build-error", lambda: convolution(coded(running_scale)),
         convolution),
    Case("vector-scale", "not-8-bit", lambda: convolution(coded([0.05])), convolution),
    Case("weight-vector-scale", "build-error",
         lambda: convolution(weight=decoded(np.ones((16, 16, 3, 3)), INT8, [0.05], axis=0)),
         lambda: convolution(weight=decoded(np.ones((16, 16, 3, 3)), INT8, 0.05))),
    Case("weight-axis", "not-8-bit", _weight(0), _weight(None), node="site"),
    Case("weight-path", "not-8-bit", lambda: linear(weight=_turned), PLAIN, target="tensorrt"),
    Case("weight-path", "advice", lambda: linear(weight=_turned), PLAIN),
    Case("between-dq-and-product", "not-8-bit",
         lambda: linear(then(coded(), op("Relu"))), lambda: linear(then(op("Relu"), coded()))),
    Case("between-dq-and-product", "not-8-bit",
         lambda: linear(then(coded(), op("Mul", 2.0))), PLAIN, target="tensorrt"),
    Case("between-dq-and-product", "advice",
         lambda: linear(then(coded(), op("Mul", 2.0))), PLAIN),
    Case("concat-scales", "not-8-bit", lambda: linear(joined(0.02)), lambda: linear(joined(0.05))),
    Case("concat-scales", "not-8-bit", lambda: linear(joined(0.05, partial=True)),
         lambda: linear(then(joined(0.05), coded()))),
    Case("weight-concat", "build-error", lambda: linear(weight=two_weights(in_file=False)),
         lambda: linear(weight=two_weights(in_file=True))),
    Case("weight-concat", "not-8-bit", lambda: linear(weight=two_weights(in_file=False)),
         lambda: linear(weight=two_weights(in_file=True)), target="tensorrt"),
    Case("half-quantized", "not-8-bit", lambda: linear(weight=_float_weight), PLAIN),
    Case("half-quantized", "not-8-bit", lambda: linear(lambda s, x: x),
         lambda: linear(lambda s, x: x, _float_weight)),
    Case("blocked-weight", "build-error", _blocks(INT8), _weight(1)),
    Case("blocked-activation", "not-8-bit",
         lambda: linear(coded(np.full((1, TOKENS, 3), 0.05), axis=2, block_size=16)), PLAIN),
    Case("codes-differ", "build-error", _weight(1, FP8), _weight(1)),
    Case("scale-types", "build-error", lambda: linear(weight=_cast_weight), PLAIN),
    Case("transposed-convolution", "not-8-bit", lambda: convolution(kind="ConvTranspose"),
         convolution),
    Case("turing-convolution", "not-8-bit", convolution, convolution, gpu="sm_75",
         fixed_gpu="sm_86"),
    Case("weight-only", "advice", _blocks(INT4, lambda s, x: x), PLAIN),
    Case("int8-attention", "slow", lambda: attention(INT8), lambda: attention(FP8)),
    Case("int8-attention", "slow", lambda: attention(INT8, tokens=513, output=True),
         lambda: attention(INT8, tokens=512, output=True)),
    Case("int8-attention", "slow", lambda: attention(INT8, width=40, output=True),
         lambda: attention(INT8, width=32, output=True)),
    Case("short-fp8-attention", "slow", lambda: attention(FP8, tokens=31),
         lambda: attention(FP8, tokens=32)),
    Case("narrow-softmax", "advice", lambda: attention(FP8, softmax=1 / 500),
         lambda: attention(FP8)),
    Case("partial-fp8-attention", "slow", lambda: attention(FP8, plain=("softmax",)),
         lambda: attention(FP8)),
    Case("fp32-attention", "slow", lambda: attention(kind=FLOAT), attention),
    Case("wide-attention-head", "slow", lambda: attention(width=320), attention),
    Case("attention-operator-fp32", "build-error", lambda: operator_attention(FLOAT),
         operator_attention),
    Case("attention-operator-attribute", "parse-error",
         lambda: operator_attention(softcap=2.0), lambda: operator_attention(scale=0.1)),
    Case("attention-operator-codes", "not-8-bit", lambda: operator_attention(codes=FP8),
         operator_attention),
    Case("repeated-quantize", "advice", lambda: linear(_twice), lambda: linear(_apart)),
    Case("quantized-residual", "advice", lambda: residual(product=False),
         lambda: residual(product=True)),
    Case("idle-pair", "advice", lambda: linear(after=then(coded(), op("Gelu"))), PLAIN),
    Case("excluded-layer", "advice", _named("/time_embedding/linear_1/MatMul"),
         _named("/transformer_blocks.0/attn/proj_out/MatMul")),
    Case("excluded-layer", "advice", _named("/proj_out/MatMul"), _named("/up/MatMul")),
    Case("odd-contraction", "slow", _odd(17), _odd(18)),
    Case("fp32-product", "slow", lambda: linear(lambda s, x: x, _float_weight, kind=FLOAT),
         lambda: linear(lambda s, x: x, _float_weight)),
    Case("fp32-file", "slow", lambda: linear(lambda s, x: x, _float_weight, kind=FLOAT),
         lambda: linear(kind=FLOAT), target="tensorrt"),
    Case("unnamed-product", "advice",
         lambda: changed(linear(), lambda m: m.graph.node[-1].ClearField("name")), PLAIN),
)  # fmt: skip


def findings(model: onnx.ModelProto, case: Case, gpu: str, folder: Path) -> list[Finding]:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    report = lint(path, target=case.target, capability=gpu, plugins=case.plugins)
    found = [finding for finding in report.findings if finding.rule == case.rule]
    return [finding for finding in found if finding.severity == case.severity]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}-{case.target}")
def test_a_rule_speaks_against_what_breaks_it_alone(case: Case, tmp_path: Path) -> None:
    found = findings(case.broken(), case, case.gpu, tmp_path)
    assert found
    assert all(finding.reason and finding.fix for finding in found)
    assert case.node is None or case.node in [finding.node for finding in found]
    assert findings(case.fixed(), case, case.fixed_gpu or case.gpu, tmp_path) == []


def test_every_rule_has_a_case() -> None:
    seen = {(case.rule, case.severity, case.target) for case in CASES}
    for rule in RULES:
        assert any((rule.name, rule.severity, target) in seen for target in rule.targets), rule
    assert {name for name, _, _ in seen} == {rule.name for rule in RULES}


def test_a_valid_graph_meets_no_rule(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(linear().SerializeToString())
    for target in ("tensorrt", "tensorrt-rtx"):
        report = lint(path, target=target, capability="sm_89")
        assert report.findings == ()
        assert [site.eight_bit for site in report.sites] == [True]
