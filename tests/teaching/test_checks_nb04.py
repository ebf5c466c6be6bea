import pytest
import torch
import torch.nn.functional as F

from yolonas_lab.models import ConvBNAct, QARepVGGBlock, reparameterize
from yolonas_lab.models.yolo_nas import SPP, Stage
from yolonas_lab.teaching.checks import nb04
from yolonas_lab.teaching.exercises import CheckFailed


def fails(check, fn, message):
    with pytest.raises(CheckFailed, match=message):
        check(fn)


def test_reference_solutions_pass(capsys):
    nb04.check_stage(nb04.stage)
    nb04.check_spp(nb04.spp)
    nb04.check_count_parameters(nb04.count_parameters)
    assert capsys.readouterr().out.count("✓") == 3


def test_reference_solutions_agree_with_the_library():
    torch.manual_seed(0)
    x = torch.randn(1, 4, 8, 8)
    for concat in (False, True):
        s = Stage(4, 6, 2, 3, concat, QARepVGGBlock).eval()
        ours = nb04.stage(x, s.downsample, s.csp.conv1, list(s.csp.bottlenecks), s.csp.conv2, s.csp.conv3, concat)
        torch.testing.assert_close(ours, s(x))
    library = SPP(4, 4, (5, 9, 13)).eval()
    torch.testing.assert_close(library.conv2(nb04.spp(library.conv1(x), (5, 9, 13))), library(x))
    for c_in, c_out, stride in ((3, 48, 2), (16, 16, 1)):
        block = QARepVGGBlock(c_in, c_out, stride)
        counts = tuple(sum(p.numel() for p in m.parameters()) for m in (block, reparameterize(block)))
        assert nb04.count_parameters(c_in, c_out) == counts
    assert sum(p.numel() for p in ConvBNAct(4, 5).parameters()) == 9 * 4 * 5 + 2 * 5


def test_other_correct_solutions_pass():
    def stage(x, downsample, conv1, bottlenecks, conv2, conv3, concat):
        small = downsample(x)
        maps = [conv1(small)]
        for b in bottlenecks:
            maps.append(b(maps[-1]))
        if not concat:
            maps = maps[-1:]
        maps.append(conv2(small))
        return conv3(torch.concatenate(maps, 1))

    def spp(x, kernel_sizes):
        result = x
        for k in kernel_sizes:
            padded = F.pad(x, (k // 2,) * 4, value=float("-inf"))
            windows = padded.unfold(2, k, 1).unfold(3, k, 1)  # (b, c, h, w, k, k)
            result = torch.cat([result, windows.amax(dim=(4, 5))], dim=1)
        return result

    def count(c_in, c_out):
        block = QARepVGGBlock(c_in, c_out, stride=2)
        return [sum(p.numel() for p in block.parameters()), c_out * (9 * c_in + 1)]

    nb04.check_stage(stage)
    nb04.check_spp(spp)
    nb04.check_count_parameters(count)


def wrong_stage(order="after", keep=lambda pieces, concat: pieces if concat else pieces[-1:]):
    def stage(x, downsample, conv1, bottlenecks, conv2, conv3, concat):
        x = downsample(x)
        pieces = [conv1(x)]
        for b in bottlenecks:
            pieces.append(b(pieces[-1]))
        kept, around = keep(pieces, concat), conv2(x)
        return conv3(torch.cat([*kept, around] if order == "after" else [around, *kept], dim=1))

    return stage


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (wrong_stage(order="before"), "the order of the concatenation"),
        (wrong_stage(keep=lambda pieces, concat: pieces), "without concat only the last"),
        (wrong_stage(keep=lambda pieces, concat: pieces[-1:]), "with concat all intermediate maps are kept"),
        (wrong_stage(keep=lambda pieces, concat: pieces[1:] if concat else pieces[-1:]), "conv1's own output belongs"),
        (
            lambda x, d, c1, bs, c2, c3, concat: c3(nb04.stage(x, d, c1, bs, c2, torch.nn.Identity(), concat)) * 2,
            "case",
        ),
        (
            lambda x, d, c1, bs, c2, c3, concat: nb04.stage(x, d, c1, bs, c2, torch.nn.Identity(), concat),
            "goes through conv3",
        ),
        (lambda x, d, c1, bs, c2, c3, concat: nb04.stage(x, d, c1, [bs[1]], c2, c3, concat), "expected"),
        (lambda x, d, c1, bs, c2, c3, concat: c3(bs[1](bs[0](c1(d(x)))) + c2(d(x))), "not added"),
        (lambda x, d, c1, bs, c2, c3, concat: None, "returned None"),
    ],
)
def test_wrong_stages_are_told_why(fn, message):
    fails(nb04.check_stage, fn, message)


def chained(x, kernel_sizes):
    pieces = [x]
    for k in kernel_sizes:
        pieces.append(F.max_pool2d(pieces[-1], k, 1, k // 2))
    return torch.cat(pieces, 1)


def zero_padded(x, kernel_sizes):
    return torch.cat([x, *(F.max_pool2d(F.pad(x, [k // 2] * 4), k, 1) for k in kernel_sizes)], 1)


def pools(x, kernel_sizes):
    return [F.max_pool2d(x, k, 1, k // 2) for k in kernel_sizes]


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x, ks: torch.cat(pools(x, ks), 1), "the map itself belongs"),
        (lambda x, ks: torch.cat([*pools(x, ks), x], 1), "the map itself comes first"),
        (chained, "not at the map that was pooled before"),
        (zero_padded, "zeros around the map beat negative values"),
        (lambda x, ks: torch.cat([x, *(F.avg_pool2d(x, k, 1, k // 2) for k in ks)], 1), "takes the maximum"),
        (lambda x, ks: torch.stack([x, *pools(x, ks)]).amax(0), "concatenated along the channels"),
        (lambda x, ks: torch.cat([x, *(F.max_pool2d(x, k) for k in ks)], 1), "raised RuntimeError"),
    ],
)
def test_wrong_pyramids_are_told_why(fn, message):
    fails(nb04.check_spp, fn, message)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda a, b: (10 * a * b + 9 * b, 9 * a * b + b), "2 parameters per channel, not 4"),
        (lambda a, b: (10 * a * b + 6 * b, 9 * a * b + b), "no bias: a BatchNorm follows"),
        (lambda a, b: (10 * a * b + 4 * b, 9 * a * b + b), "1×1 convolution has a bias"),
        (lambda a, b: (10 * a * b + 3 * b, 9 * a * b + b), "two BatchNorms"),
        (lambda a, b: (10 * a * b + 5 * b, 9 * a * b), "fused convolution has a bias"),
        (lambda a, b: (10 * a * b + 5 * b, 10 * a * b + b), "nothing of it is left"),
        (lambda a, b: (9 * a * b + b, 10 * a * b + 5 * b), "the order: first as trained"),
        (lambda a, b: 10 * a * b + 5 * b, "instead of 2 values"),
    ],
)
def test_wrong_counts_are_told_why(fn, message):
    fails(nb04.check_count_parameters, fn, message)


def test_hints_and_solutions(capsys):
    for name in ("stage", "spp", "count_parameters"):
        for level in (1, 2, 3):
            nb04.hint(name, level)
        nb04.solution(name)
    out = capsys.readouterr().out
    assert out.count("Hint 3 of 3") == 3 and "def count_parameters" in out
    with pytest.raises(ValueError, match="the exercises are"):
        nb04.hint("stages")
