import torch
import torch.nn.functional as F

from yolonas_lab.models import QARepVGGBlock
from yolonas_lab.teaching.checks.nb04 import stage as reference


def stage(x, downsample, conv1, bottlenecks, conv2, conv3, concat, keep=lambda maps, concat: maps[-1:] * (not concat)):
    small = downsample(x)
    maps = [conv1(small)]
    for b in bottlenecks:
        maps.append(b(maps[-1]))
    return conv3(torch.concatenate([*(keep(maps, concat) or maps), conv2(small)], 1))


def without_conv3(x, d, c1, bs, c2, c3, concat):
    return reference(x, d, c1, bs, c2, torch.nn.Identity(), concat)


def spp_by_windows(x, kernel_sizes):
    result = x
    for k in kernel_sizes:
        padded = F.pad(x, (k // 2,) * 4, value=float("-inf"))
        windows = padded.unfold(2, k, 1).unfold(3, k, 1)  # (b, c, h, w, k, k)
        result = torch.cat([result, windows.amax(dim=(4, 5))], dim=1)
    return result


def padded_with_zeros(x, kernel_sizes):
    return torch.cat([x, *(F.max_pool2d(F.pad(x, [k // 2] * 4), k, 1) for k in kernel_sizes)], 1)


def count_a_block(c_in, c_out):
    block = QARepVGGBlock(c_in, c_out, stride=2)
    return [sum(p.numel() for p in block.parameters()), c_out * (9 * c_in + 1)]


RIGHT = [("stage", stage), ("spp", spp_by_windows), ("count_parameters", count_a_block)]
WRONG = [
    ("stage", lambda *a: stage(*a, keep=lambda maps, concat: maps), "without concat only the last"),
    ("stage", lambda *a: stage(*a, keep=lambda maps, concat: maps[-1:]), "with concat all intermediate maps are kept"),
    (
        "stage",
        lambda *a: stage(*a, keep=lambda maps, concat: maps[1:] if concat else maps[-1:]),
        "conv1's own output belongs",
    ),
    ("stage", lambda *a: without_conv3(*a) * 2, "case"),
    ("stage", without_conv3, "goes through conv3"),
    ("stage", lambda x, d, c1, bs, *rest: reference(x, d, c1, [bs[1]], *rest), "expected"),
    ("stage", lambda x, d, c1, bs, c2, c3, concat: c3(bs[1](bs[0](c1(d(x)))) + c2(d(x))), "not added"),
    ("spp", lambda x, ks: spp_by_windows(x, ks)[:, x.shape[1] :], "the map itself belongs"),
    ("spp", lambda x, ks: spp_by_windows(x, ks).roll(-x.shape[1], 1), "the map itself comes first"),
    ("spp", padded_with_zeros, "zeros around the map beat negative values"),
    ("spp", lambda x, ks: torch.cat([x, *(F.max_pool2d(x, k) for k in ks)], 1), "raised RuntimeError"),
    ("count_parameters", lambda a, b: (9 * a * b + b, count_a_block(a, b)[0]), "the order: first as trained"),
    ("count_parameters", lambda a, b: count_a_block(a, b)[0], "instead of 2 values"),
]
