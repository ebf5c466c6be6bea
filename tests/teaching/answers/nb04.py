import torch
import torch.nn.functional as F

from yolonas_lab.models import QARepVGGBlock


def stage(x, downsample, conv1, bottlenecks, conv2, conv3, concat):
    small = downsample(x)
    maps = [conv1(small)]
    for b in bottlenecks:
        maps.append(b(maps[-1]))
    maps = maps if concat else maps[-1:]
    return conv3(torch.concatenate([*maps, conv2(small)], 1))


def spp_by_windows(x, kernel_sizes):
    result = [x]
    for k in kernel_sizes:
        padded = F.pad(x, (k // 2,) * 4, value=float("-inf"))
        result.append(padded.unfold(2, k, 1).unfold(3, k, 1).amax(dim=(4, 5)))  # (b, c, h, w, k, k) before the maximum
    return torch.cat(result, dim=1)


def count_a_block(c_in, c_out):
    block = QARepVGGBlock(c_in, c_out, stride=2)
    return [sum(p.numel() for p in block.parameters()), c_out * (9 * c_in + 1)]


RIGHT = [("stage", stage), ("spp", spp_by_windows), ("count_parameters", count_a_block)]
WRONG = [
    ("stage", (stage, "if concat else maps[-1:] ->"), "without concat only the last"),
    ("stage", (stage, "maps if concat else maps[-1:] -> maps[-1:]"), "with concat all intermediate maps are kept"),
    ("stage", (stage, "maps if concat -> maps[1:] if concat"), "conv1's own output belongs"),
    ("stage", (stage, "return conv3 ->return"), "goes through conv3"),
    ("stage", (stage, "[*maps, conv2(small)] -> [conv2(small), *maps]"), "the order of the concatenation"),
    ("stage", (stage, "in bottlenecks -> in bottlenecks[1:]"), "expected"),
    ("spp", (spp_by_windows, "result = [x] -> result = []"), "the map itself belongs"),
    ("spp", (spp_by_windows, 'float("-inf") -> 0'), "zeros around the map beat negative values"),
    ("spp", lambda x, ks: torch.cat([x, *(F.max_pool2d(x, k) for k in ks)], 1), "raised RuntimeError"),
    ("count_parameters", lambda a, b: count_a_block(a, b)[::-1], "the order: first as trained"),
    ("count_parameters", lambda a, b: count_a_block(a, b)[0], "instead of 2 values"),
]
