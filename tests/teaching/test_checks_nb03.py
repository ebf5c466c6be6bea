import pytest
import torch
import torch.nn.functional as F

from yolonas_lab.models.reparameterize import Kernel
from yolonas_lab.models.reparameterize import fold_bn as library_fold_bn
from yolonas_lab.teaching.checks import nb03
from yolonas_lab.teaching.exercises import CheckFailed

CHECKS = {
    "fold_bn": nb03.check_fold_bn,
    "identity_kernel": nb03.check_identity_kernel,
    "fuse_block": nb03.check_fuse_block,
}


@pytest.mark.parametrize("name", CHECKS)
def test_reference_solutions_pass(name, capsys):
    CHECKS[name](nb03.SOLUTIONS[name])
    assert capsys.readouterr().out.startswith(f"✓ {name}")


def test_solutions_written_in_another_way_pass():
    def fold_bn(weight, bias, gamma, beta, mean, var, eps):
        rows = [w * g / (v + eps) ** 0.5 for w, g, v in zip(weight, gamma, var, strict=True)]
        biases = [
            (b - m) * g / (v + eps) ** 0.5 + s for b, m, g, v, s in zip(bias, mean, gamma, var, beta, strict=True)
        ]
        return torch.stack(rows), torch.stack(biases)

    def identity_kernel(channels):
        return F.pad(torch.eye(channels)[:, :, None, None], [1] * 4)

    def fuse_block(w3, b3, w1, b1, has_identity, gain, shift):
        total = w3.clone()
        total[:, :, 1, 1] += w1[:, :, 0, 0]
        for i in range(len(b3) if has_identity else 0):
            total[i, i, 1, 1] += 1
        return torch.einsum("oihw,o->oihw", total, gain), gain * b3 + gain * b1 + shift

    nb03.check_fold_bn(fold_bn)
    nb03.check_identity_kernel(identity_kernel)
    nb03.check_fuse_block(fuse_block)


WRONG = [
    (
        "fold_bn",
        lambda w, b, g, be, m, v, e: (w * (g / (v + e))[:, None, None, None], (b - m) * g / (v + e) + be),
        "square root",
    ),
    (
        "fold_bn",
        lambda w, b, g, be, m, v, e: (
            w * g[:, None, None, None] / (v + e).sqrt()[:, None, None, None],
            b * g / (v + e).sqrt() + be,
        ),
        "running mean is missing",
    ),
    (
        "fold_bn",
        lambda w, b, g, be, m, v, e: (
            w * g[:, None, None, None] / (v + e).sqrt()[:, None, None, None],
            be - m * g / (v + e).sqrt(),
        ),
        "own bias got lost",
    ),
    ("fold_bn", lambda w, b, g, be, m, v, e: w, "expected"),
    ("fold_bn", lambda w, b, g, be, m, v, e: (w.mul_(2), b), "changed its argument|expected"),
    ("identity_kernel", lambda c: F.pad(torch.ones(c, c, 1, 1), (1, 1, 1, 1)), "adds all channels up"),
    ("identity_kernel", lambda c: torch.eye(c)[:, :, None, None].expand(c, c, 3, 3), "blurs"),
    ("identity_kernel", lambda c: torch.eye(3).expand(c, c, 3, 3), "diagonal runs over channels"),
    ("identity_kernel", lambda c: torch.zeros(c, c, 3, 3), "expected"),
    ("identity_kernel", lambda c: None, "returned None"),
    (
        "fuse_block",
        lambda w3, b3, w1, b1, has, g, s: nb03.fuse_block(w3, b3, w1, b1, False, g, s),
        "identity branch is missing",
    ),
    (
        "fuse_block",
        lambda w3, b3, w1, b1, has, g, s: nb03.fuse_block(w3, b3, w1, 0 * b1, has, g, s),
        "1×1 branch has a bias",
    ),
    (
        "fuse_block",
        lambda w3, b3, w1, b1, has, g, s: nb03.fuse_block(w3 + w1, b3, 0 * w1, b1, has, g, s),
        "all nine taps",
    ),
    ("fuse_block", nb03._identity_after_gain, "before the outer BatchNorm"),
    ("fuse_block", lambda *a: (a[0], a[1]), "expected"),
]


@pytest.mark.parametrize(("name", "wrong", "advice"), WRONG)
def test_wrong_solutions_are_told_what_is_wrong(name, wrong, advice):
    with pytest.raises(CheckFailed, match=advice):
        CHECKS[name](wrong)


def test_reference_agrees_with_the_library():
    weight, bias, gamma, beta, mean, var, eps = nb03._random_pair(7, 3, 2, 3)
    bn = torch.nn.BatchNorm2d(3, eps=eps).eval()
    bn.load_state_dict(
        {
            "weight": gamma,
            "bias": beta,
            "running_mean": mean,
            "running_var": var,
            "num_batches_tracked": torch.tensor(0),
        }
    )
    for ours, theirs in zip(
        nb03.fold_bn(weight, bias, gamma, beta, mean, var, eps), library_fold_bn(Kernel(weight, bias), bn), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", CHECKS)
def test_every_exercise_has_graded_hints_and_a_solution(name, capsys):
    for level in range(1, len(nb03.HINTS[name]) + 1):
        nb03.hint(name, level)
    nb03.solution(name)
    assert f"def {name}(" in capsys.readouterr().out
