import pytest
import torch
from open_exercise import assert_called_open

from yolonas_lab.quantization import fake_quantize
from yolonas_lab.teaching.checks import nb11
from yolonas_lab.teaching.checks import nb11 as nb11_graphs
from yolonas_lab.teaching.exercises import CheckFailed

CHECKS = {"fake_quant": nb11.check_fake_quant, "insert_qdq": nb11.check_insert_qdq}


@pytest.mark.parametrize("name", CHECKS)
def test_reference_solutions_pass(name, capsys):
    CHECKS[name](nb11.SOLUTIONS[name])
    assert capsys.readouterr().out.startswith(f"✓ {name}")


class MaskedRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, low, high):
        whole = torch.round(x / scale)
        ctx.save_for_backward((whole >= low) & (whole <= high))
        return whole.clamp(low, high) * scale

    @staticmethod
    def backward(ctx, *grads):
        return grads[0] * ctx.saved_tensors[0], None, None, None


def test_solutions_written_in_another_way_pass():
    def from_the_readers(nodes):
        """Union-find over names, by recursion from what is read."""
        writer = {output: (op, inputs) for output, op, inputs in nodes}
        parent = {}

        def root(name):
            return name if parent[name] == name else root(parent[name])

        def want(name):
            if name in parent:
                return
            parent[name] = name
            op, inputs = writer.get(name, ("image", []))
            if op in ("add", "concat", "maxpool"):
                for other in inputs:
                    want(other)
                    if op != "add":
                        parent[root(other)] = root(name)

        for _, op, inputs in nodes:
            if op == "conv":
                want(inputs[0])
        groups = {}
        for name in parent:
            groups.setdefault(root(name), []).append(name)
        return list(groups.values())  # lists do as well as sets

    nb11.check_fake_quant(lambda x, scale, low, high: MaskedRound.apply(x, scale, low, high))
    nb11.check_fake_quant(lambda x, scale, low, high: fake_quantize(x, torch.tensor(scale), torch.tensor(0), low, high))
    nb11.check_insert_qdq(from_the_readers)


def rounded(x, scale, low, high):
    return scale * (x / scale).round().clamp(low, high)


def quantize_convolutions(nodes):
    """Every convolution's output, before the ReLU."""
    return [{output} for output, op, _ in nodes if op == "conv"]


def without_the_concat(nodes):
    outputs = {output for output, op, _ in nodes if op in ("concat", "maxpool")}
    return [group - outputs for group in nb11.insert_qdq(nodes) if group - outputs]


WRONG = [
    ("fake_quant", rounded, "gradient is lost in round"),
    ("fake_quant", lambda x, s, low, high: x + (rounded(x, s, low, high) - x).detach(), "must be 0"),
    ("fake_quant", lambda x, s, low, high: x + (s * (x / s).round() - x).detach(), "leave low … high"),
    ("fake_quant", nb11._early_edge, "half a step later"),
    ("fake_quant", lambda x, s, low, high: nb11.fake_quant(x, s, low, high) / s, "multiply by scale"),
    ("fake_quant", lambda x, s, low, high: nb11.fake_quant(x - s / 2, s, low, high), "nearest integer"),
    ("fake_quant", nb11._scaled_gradient, "back to x's own units"),
    ("fake_quant", lambda x, s, low, high: rounded(x, s, low, high).detach(), "no gradient comes back"),
    ("fake_quant", lambda x, s, low, high: None, "returned None"),
    ("insert_qdq", nb11._with_tail, "stays in float"),
    ("insert_qdq", nb11._before_relu, "after the ReLU"),
    ("insert_qdq", quantize_convolutions, "expected"),
    ("insert_qdq", nb11._without_image, "quantize it"),
    ("insert_qdq", nb11._without_inner, "skip as well"),
    ("insert_qdq", nb11._nothing_shared, "one common scale"),
    ("insert_qdq", nb11._adds_join, "scales of their own"),
    ("insert_qdq", nb11._one_step_back, "go backwards"),
    ("insert_qdq", nb11._joined_once, "touch must become one"),
    ("insert_qdq", nb11._every_concat, "float tail needs no"),
    ("insert_qdq", without_the_concat, "expected"),
    ("insert_qdq", lambda nodes: None, "returned None"),
    ("insert_qdq", lambda nodes: [*nb11.insert_qdq(nodes), {"image"}], "expected"),
]


@pytest.mark.parametrize(("name", "wrong", "advice"), WRONG)
def test_wrong_solutions_are_told_what_is_wrong(name, wrong, advice):
    with pytest.raises(CheckFailed, match=advice):
        CHECKS[name](wrong)


@pytest.mark.parametrize("name", CHECKS)
def test_an_open_exercise_is_called_open(name):
    assert_called_open(CHECKS[name])


def test_the_reference_has_the_library_s_values_and_gradients():
    x = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    results = []
    for function in (
        lambda leaf: nb11.fake_quant(leaf, 0.3, -4, 3),
        lambda leaf: fake_quantize(leaf, torch.tensor(0.3), torch.tensor(0), -4, 3),
        lambda leaf: torch.fake_quantize_per_tensor_affine(leaf, 0.3, 0, -4, 3),
    ):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        y.sum().backward()
        results.append((y.detach(), leaf.grad))
    for values, gradient in results[1:]:
        torch.testing.assert_close(results[0][0], values)
        assert torch.equal(results[0][1], gradient)


def test_groups_by_hand():
    def groups(nodes):
        return {frozenset(group) for group in nb11.insert_qdq(nodes)}

    assert groups(nb11_graphs.CHAIN) == {frozenset({"image"}), frozenset({"a"})}
    assert groups(nb11_graphs.RESIDUAL) == {frozenset({name}) for name in ("image", "a", "b", "skip", "sum")}
    assert groups(nb11_graphs.POOLS) == {frozenset({"image"}), frozenset({"a", "p1", "p2", "all"})}
    together = frozenset({"sum", "pooled", "d", "both"})
    assert groups(nb11_graphs.NESTED) == {together} | {frozenset({name}) for name in ("image", "a", "b", "skip")}
    assert groups(nb11_graphs.TWO_CONCATS) == {frozenset({"image"}), frozenset({"a", "b", "ab", "d", "bd"})}


@pytest.mark.parametrize("name", CHECKS)
def test_every_exercise_has_graded_hints_and_a_solution(name, capsys):
    assert 2 <= len(nb11.HINTS[name]) <= 3
    for level in range(1, len(nb11.HINTS[name]) + 1):
        nb11.hint(name, level)
    nb11.solution(name)
    assert f"def {name}(" in capsys.readouterr().out
