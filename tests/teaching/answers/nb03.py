import torch
import torch.nn.functional as F

from yolonas_lab.models.reparameterize import Kernel
from yolonas_lab.models.reparameterize import fold_bn as library_fold_bn


def fold_rows(weight, bias, gamma, beta, mean, var, eps):
    rows = [w * g / (v + eps) ** 0.5 for w, g, v in zip(weight, gamma, var)]
    columns = zip(bias, mean, gamma, var, beta)
    return torch.stack(rows), torch.stack([(b - m) * g / (v + eps) ** 0.5 + s for b, m, g, v, s in columns])


def fold_with_the_library(weight, bias, gamma, beta, mean, var, eps):
    bn = torch.nn.BatchNorm2d(len(gamma), eps=eps).eval()
    bn.load_state_dict({"weight": gamma, "bias": beta, "running_mean": mean, "running_var": var}, strict=False)
    return tuple(library_fold_bn(Kernel(weight, bias), bn))


def fuse_by_entries(w3, b3, w1, b1, has_identity, gain, shift):
    total = w3.clone()
    total[:, :, 1, 1] += w1[:, :, 0, 0]
    for i in range(len(b3) if has_identity else 0):
        total[i, i, 1, 1] += 1
    return torch.einsum("oihw,o->oihw", total, gain), gain * b3 + gain * b1 + shift


RIGHT = [
    ("fold_bn", fold_rows),
    ("fold_bn", fold_with_the_library),
    ("identity_kernel", lambda c: F.pad(torch.eye(c)[:, :, None, None], [1] * 4)),
    ("fuse_block", fuse_by_entries),
]
WRONG = [
    ("fold_bn", (fold_rows, "** 0.5 ->"), "square root"),
    ("fold_bn", (fold_rows, "(b - m) -> b"), "running mean is missing"),
    ("fold_bn", (fold_rows, "(b - m) -> -m"), "own bias got lost"),
    ("fold_bn", lambda w, b, g, be, m, v, e: w, "instead of 2 values"),
    ("fold_bn", lambda w, b, g, be, m, v, e: (w.mul_(2), b), "changed its argument w"),
    ("identity_kernel", lambda c: torch.stack([F.pad(torch.ones(c, 1, 1), [1] * 4)] * c), "adds all channels up"),
    ("identity_kernel", lambda c: torch.zeros(c, c, 3, 3), "expected"),
    ("fuse_block", (fuse_by_entries, "if has_identity else 0 -> * 0"), "identity branch is missing"),
    ("fuse_block", (fuse_by_entries, " + gain * b1 ->"), "1×1 branch has a bias"),
    ("fuse_block", (fuse_by_entries, "total[:, :, 1, 1] += w1[:, :, 0, 0] -> total += w1"), "all nine taps"),
    ("fuse_block", lambda w3, b3, *rest: (w3, b3), "expected"),
]
