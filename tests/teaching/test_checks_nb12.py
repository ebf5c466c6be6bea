import numpy as np
import pytest
import torch

from yolonas_lab.detect import prepare
from yolonas_lab.teaching.checks import nb12
from yolonas_lab.teaching.exercises import CheckFailed

CHECKS = {"export_check": nb12.check_export_check, "to_input": nb12.check_to_input, "read_qdq": nb12.check_read_qdq}


@pytest.mark.parametrize("name", CHECKS)
def test_reference_solutions_pass(name, capsys):
    CHECKS[name](nb12.SOLUTIONS[name])
    assert capsys.readouterr().out.startswith(f"✓ {name}")


def test_solutions_written_in_another_way_pass():
    def export_check(reference, exported, tolerance):
        return reference.shape == exported.shape and torch.allclose(reference, exported, rtol=0, atol=tolerance)

    def to_input(pixels, size):
        h, w, _ = pixels.shape
        canvas = torch.full((1, 3, size, size), 114.0)
        top, left = (size - h) // 2, (size - w) // 2
        canvas[0, :, top : top + h, left : left + w] = torch.tensor(pixels).movedim(2, 0).flip(0)
        return canvas / 255

    def read_qdq(nodes):
        dequantized, found = set(), []
        for node in nodes:
            moved = node.op in ("Concat", "MaxPool") and dequantized.issuperset(node.inputs)
            if moved or node.op == "DequantizeLinear":
                dequantized.add(node.output)
            if node.op == "Conv" and dequantized.issuperset(node.inputs[:2]):
                found.append(node.name)
        return found

    nb12.check_export_check(export_check)
    nb12.check_to_input(to_input)
    nb12.check_read_qdq(read_qdq)


def colleague(pixels, size):
    """The function with five mistakes that the notebook shows."""
    canvas = np.zeros((size, size, 3), np.float32)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return torch.from_numpy(canvas).reshape(1, 3, size, size)


WRONG = [
    ("export_check", lambda x, y, t: x.shape == y.shape and bool(((y - x) <= t).all()), "below zero"),
    ("export_check", lambda x, y, t: x.shape == y.shape and bool(((x - y) <= t).all()), "absolute values"),
    ("export_check", lambda x, y, t: bool((x - y).abs().mean() <= t), "mean hides"),
    ("export_check", lambda x, y, t: bool(((x - y).abs() <= t).all()), "shapes are not compared"),
    ("export_check", lambda x, y, t: x.shape == y.shape and not ((x - y).abs() > t).any().item(), "NaN passes"),
    ("export_check", lambda x, y, t: x.shape == y.shape and bool((x == y).all() | True), "differs|not equal"),
    ("to_input", lambda p, s: nb12.to_input(p[:, :, ::-1], s), "blue and red"),
    ("to_input", lambda p, s: nb12.to_input(p, s) * 255, "run to 255"),
    ("to_input", lambda p, s: nb12._cornered(p, s), "in the middle"),
    ("to_input", lambda p, s: nb12.to_input(p, s) * ~nb12._border(p, s), "114 of 255"),
    ("to_input", lambda p, s: nb12.to_input(p, s).movedim(1, 3), "channels come first"),
    ("to_input", lambda p, s: nb12.to_input(p, s)[0], "batch axis"),
    ("to_input", colleague, "differ"),
    ("read_qdq", lambda nodes: [n.name for n in nodes if n.op == "Conv"], "not every convolution"),
    ("read_qdq", lambda nodes: nb12._direct(nodes, (0,), ()), "weight must be dequantized"),
    ("read_qdq", lambda nodes: nb12._direct(nodes, (1,), ()), "activation must be dequantized"),
    ("read_qdq", lambda nodes: nb12._direct(nodes, (0, 1), ()), "look through MaxPool and Concat"),
    ("read_qdq", lambda nodes: nb12._direct(nodes, (0, 1), ("Concat", "MaxPool")), "all inputs of a Concat"),
    ("read_qdq", lambda nodes: nb12._direct(nodes, (0, 1), ("Concat", "MaxPool", "Relu")), "Relu computes"),
    ("read_qdq", lambda nodes: [n for n in nodes if n.name in nb12.read_qdq(nodes)], "expected"),
]


@pytest.mark.parametrize(("name", "wrong", "advice"), WRONG)
def test_wrong_solutions_are_told_what_is_wrong(name, wrong, advice):
    with pytest.raises(CheckFailed, match=advice):
        CHECKS[name](wrong)


@pytest.mark.parametrize("shape", [(64, 64), (64, 41), (31, 64)])
def test_to_input_agrees_with_the_library(shape):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected, _ = prepare([image], 64)  # 64 px stay 64: nothing is resized
    torch.testing.assert_close(nb12.to_input(image[:, :, ::-1], 64), expected)


@pytest.mark.parametrize("name", CHECKS)
def test_every_exercise_has_graded_hints_and_a_solution(name, capsys):
    for level in range(1, len(nb12.HINTS[name]) + 1):
        nb12.hint(name, level)
    nb12.solution(name)
    assert f"def {name}(" in capsys.readouterr().out
