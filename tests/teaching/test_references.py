"""The reference solutions of the exercises against the library and independent oracles.

That the library's own functions pass the checks is in `answers/`; here is what needs more than the checks' cases.
"""

import numpy as np
import pytest
import torch

from yolonas_lab import boxes as geometry
from yolonas_lab import losses
from yolonas_lab.data.coco import Targets
from yolonas_lab.detect import prepare
from yolonas_lab.evaluate import coco_metrics
from yolonas_lab.models import QARepVGGBlock, StageConfig, reparameterize
from yolonas_lab.models.yolo_nas import SPP, RawPredictions, Stage, anchor_points, decode_boxes
from yolonas_lab.quantization.calibrators import CANDIDATES, weight_range
from yolonas_lab.teaching.checks import nb02, nb04, nb05, nb10, nb11, nb12
from yolonas_lab.teaching.exercises import wrong_answer


def test_match_and_average_precision_agree_with_pycocotools_on_one_class():
    """Random detections of one class over several images."""
    rng = np.random.default_rng(0)
    annotations, results, ranked = [], [], []
    for image_id in range(1, 31):
        corner, size = rng.uniform(0, 60, (4, 2)), rng.uniform(15, 40, (4, 2))
        objects = np.concatenate([corner, corner + size], axis=1)[: rng.integers(0, 5)]
        found = np.repeat(objects, 2, axis=0) + rng.normal(0, 5, (2 * len(objects), 4))
        found = np.concatenate([found, [[5, 5, 30, 40.0]]])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        scores = np.sort(rng.random(len(found)))[::-1]
        overlaps = geometry.iou(torch.tensor(found), torch.tensor(objects).reshape(-1, 4)).numpy()
        ranked += list(zip(scores, [partner >= 0 for partner in nb02.match(overlaps, 0.5)], strict=True))
        for boxes, rows in ((objects, annotations), (found, results)):
            for k, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
                rows.append({"image_id": image_id, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]})
                rows[-1] |= {"score": float(scores[k])} if rows is results else {"id": len(rows)}
    images = [{"id": i, "width": 100, "height": 100} for i in range(1, 31)]
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    ranked.sort(key=lambda pair: -pair[0])
    ours = nb02.average_precision(np.array([right for _, right in ranked]), len(annotations))
    assert ours == pytest.approx(coco_metrics(results, truth).ap50, abs=1e-6)
    assert 0.2 < ours < 0.95


def test_stage_spp_and_the_count_of_parameters_are_the_library_s():
    torch.manual_seed(0)
    x = torch.randn(1, 4, 8, 8)
    for concat in (False, True):
        s = Stage(4, StageConfig(6, 2, 3, concat)).eval()
        ours = nb04.stage(x, s.downsample, s.csp.conv1, list(s.csp.bottlenecks), s.csp.conv2, s.csp.conv3, concat)
        torch.testing.assert_close(ours, s(x))
    library = SPP(4, 4, (5, 9, 13)).eval()
    torch.testing.assert_close(library.conv2(nb04.spp(library.conv1(x), (5, 9, 13))), library(x))
    for c_in, c_out, stride in ((3, 48, 2), (16, 16, 1)):
        block = QARepVGGBlock(c_in, c_out, stride)
        counts = tuple(sum(p.numel() for p in m.parameters()) for m in (block, reparameterize(block)))
        assert nb04.count_parameters(c_in, c_out) == counts


def predictions_and_boxes(seed, g):
    """A random batch of one and g boxes that overlap in the middle, as the exercise's matrices and as assign's."""
    random = torch.Generator().manual_seed(seed)
    points, strides = anchor_points([(8, 8), (4, 4), (2, 2)])
    class_logits = 4 * torch.randn(1, 84, g, generator=random)
    box_logits = torch.randn(1, 84, 4, 9, generator=random) - 0.3 * torch.arange(9)
    corner = torch.rand(g, 2, generator=random) * 20
    boxes = torch.cat([corner, corner + 26 + torch.rand(g, 2, generator=random) * 16], dim=1)
    inside = ((points[None] > boxes[:, None, :2]) & (points[None] < boxes[:, None, 2:])).all(-1)  # (g, 84)
    iou = geometry.iou(boxes, decode_boxes(box_logits[0], points, strides))
    raw = RawPredictions(class_logits, box_logits, points, strides)
    return (class_logits[0].sigmoid().T, iou, inside, 13), (raw, [Targets(boxes, torch.arange(g))])


@pytest.mark.parametrize("g", [1, 2, 4])
def test_the_assignment_is_the_library_s(g):
    strangers, among_pickers = 0, wrong_answer(nb05.task_aligned_assign, "iou.argmax -> (iou * positive).argmax")
    for seed in range(5):
        exercise, batch = predictions_and_boxes(seed, g)
        positive, quality = nb05.task_aligned_assign(*exercise)
        expected = losses.assign(*batch)
        assert (positive.sum(0) <= 1).all() and positive.any()
        owner = torch.where(positive.any(0), positive.int().argmax(0), g)  # (a,)
        assert torch.equal(owner, expected.labels[0])
        torch.testing.assert_close(quality, expected.quality[0], atol=1e-5, rtol=1e-4)
        alone = among_pickers(*exercise)[0]
        strangers += (positive != alone).any(0).sum().item()
    assert (strangers > 0) == (g > 2)  # contested points that went to an object that had not picked them


def test_the_scale_of_least_squared_error_is_the_library_s():
    values = nb10.heavy_tailed(5)
    shares = torch.linspace(1 / CANDIDATES, 1, CANDIDATES).tolist()
    limit = weight_range(values, 4, "mse", axis=None)
    assert nb10.choose_scale(values, 4, shares) == pytest.approx(float(limit) / 7, rel=1e-5)


def test_groups_of_shared_scales_by_hand():
    def groups(about):
        return {frozenset(group) for group in nb11.insert_qdq(nb11.nodes_of(nb11.GRAPHS[about]))}

    def each(*names):
        return {frozenset({name}) for name in names}

    assert groups("a chain with a float tail") == each("image", "a")
    assert groups("a residual sum") == each("image", "a", "b", "skip", "sum")
    assert groups("two poolings and a concatenation") == each("image") | {frozenset({"a", "p1", "p2", "all"})}
    together = frozenset({"sum", "pooled", "d", "both"})
    assert groups("a sum that is pooled, then concatenated") == each("image", "a", "b", "skip") | {together}
    two = groups("two concatenations with a common input, and one in the tail")
    assert two == each("image") | {frozenset({"a", "b", "ab", "d", "bd"})}


@pytest.mark.parametrize("shape", [(64, 64), (64, 41), (31, 64)])
def test_to_input_is_the_library_s_preparation(shape):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected, _ = prepare([image], 64)  # 64 px stay 64: nothing is resized
    torch.testing.assert_close(nb12.to_input(image[:, :, ::-1], 64), expected)
