"""Prediction end to end: preparation, geometry, post-processing against plain Python, batches, modes, bad input."""

import math
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from known_detector import KnownDetector, always, by_center_pixel
from PIL import Image

from yolonas_lab.boxes import iou
from yolonas_lab.detect import detect, postprocess, predict, prepare
from yolonas_lab.detections import Detections
from yolonas_lab.sources import NamedImage

PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


def one(model, source, **options) -> Detections:
    """predict, which must answer one image with one Detections."""
    found = predict(model, source, **options)
    assert isinstance(found, Detections)
    return found


def flat(value, height=40, width=60):
    return np.full((height, width, 3), value, dtype=np.uint8)


def sees(score=0.9, box=(8.0, 8, 20, 20), **options):
    return KnownDetector(always([list(box)], [[score]]), **options)


def plain_bilinear(image, height, width):
    """Bilinear resizing with pixel centers at .5 and no smoothing, along one axis after the other."""
    for axis, size in enumerate((height, width)):
        n = image.shape[axis]
        at = (np.arange(size) + 0.5) * n / size - 0.5
        image = np.apply_along_axis(lambda line: np.interp(at, np.arange(n), line), axis, image)  # noqa: B023
    return image


@pytest.mark.parametrize(("height", "width"), [(37, 90), (64, 64), (20, 11), (1, 200)])
def test_prepare_resizes_like_plain_bilinear_and_pads_with_114(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    inputs, (frame,) = prepare([image], 64)
    rows = slice(frame.pad_top, frame.pad_top + frame.resized_h)
    columns = slice(frame.pad_left, frame.pad_left + frame.resized_w)
    assert max(frame.resized_h, frame.resized_w) == 64  # round(64 · 636 / 640)
    ours = (inputs[0, :, rows, columns] * 255).permute(1, 2, 0).numpy()
    expected = plain_bilinear(image, frame.resized_h, frame.resized_w)
    assert np.abs(ours - expected).max() <= 0.501 and np.abs(ours - ours.round()).max() < 1e-3  # whole values
    inputs[0, :, rows, columns] = 114 / 255
    torch.testing.assert_close(inputs, torch.full((1, 3, 64, 64), 114 / 255))


def test_a_known_box_comes_back_in_pixels_of_the_photograph():
    scale, left = 636 / 600, (640 - 543) // 2  # the photograph is 600 px high and 512 wide
    face = [150.0, 60.0, 340.0, 300.0]  # in the photograph
    in_network = [face[0] * scale + left, face[1] * scale + 2, face[2] * scale + left, face[3] * scale + 2]
    model = KnownDetector(always([in_network], [[0.9, 0.1]]), ["person", "hat"], image_size=640)
    found = one(model, PHOTO)
    assert found.boxes.tolist() == [pytest.approx(face, abs=1e-3)]
    assert found.scores.tolist() == pytest.approx([0.9]) and found.labels.tolist() == [0]
    with Image.open(PHOTO) as photo:
        assert found.image is not None and np.array_equal(found.image, np.array(photo.convert("RGB")))
    clipped = one(sees(box=(-100, -100, 300, 300)), flat(0, height=30, width=64))
    assert clipped.boxes.tolist() == [pytest.approx([0, 0, 64, 30], abs=1e-4)]


def plain_postprocess(boxes, scores, conf, threshold, top_k, max_detections):
    overlap = iou(boxes, boxes).tolist()
    values, kept = scores.numpy(), []
    pairs = [pair for pair in np.ndindex(values.shape) if values[pair] > conf]  # (a, k)
    for a, k in sorted(pairs, key=lambda pair: -values[pair])[:top_k]:
        if all(label != k or overlap[b][a] <= threshold for b, label in kept):
            kept.append((a, k))
    return kept[:max_detections]


@pytest.mark.parametrize(
    ("conf", "threshold", "top_k", "max_detections"),
    [(0.25, 0.7, 1024, 300), (0.0, 0.5, 50, 300), (0.01, 0.3, 17, 5), (0.9, 0.0, 1, 1), (0.5, 1.0, 120, 119)],
)
@pytest.mark.parametrize("seed", range(3))
def test_postprocess_agrees_with_plain_python(conf, threshold, top_k, max_detections, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(40, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 5 + torch.rand(40, 2, generator=generator) * 40], dim=1)
    scores = torch.randint(0, 40, (40, 5), generator=generator) / 40  # many ties
    kept = postprocess(boxes, scores, conf, threshold, top_k, max_detections)
    expected = plain_postprocess(boxes, scores, conf, threshold, top_k, max_detections)
    a, k = torch.tensor(expected).T
    assert torch.equal(kept.labels, k) and torch.equal(kept.boxes, boxes[a]) and torch.equal(kept.scores, scores[a, k])


@pytest.mark.parametrize(("conf", "threshold", "count"), [(0.3, 0.6, 2), (0.3, 0.4, 1), (0.5, 0.6, 1), (0.95, 0.6, 0)])
def test_conf_and_iou_reach_the_right_place(conf, threshold, count):
    two = always([[0.0, 0, 20, 20], [0, 0, 20, 10]], [[0.9], [0.4]])  # IoU 0.5
    assert len(one(KnownDetector(two), flat(0, 64, 64), conf=conf, iou=threshold)) == count


def test_lists_folders_and_batches_keep_the_order(tmp_path):
    values = range(5, 16)
    answers = {v: (torch.tensor([[8.0, 8.0, 8.0 + v, 60.0]]), torch.tensor([[0.5 + v / 100]])) for v in values}
    expected = [0.5 + v / 100 for v in values]
    images = [flat(v, 64, 64 - v % 2) for v in values]
    model = KnownDetector(by_center_pixel(answers))

    def scores(source, **options):
        found = predict(model, source, **options)
        assert isinstance(found, list)
        return [each.scores.item() for each in found]

    assert scores(images, batch_size=4) == pytest.approx(expected)
    assert [len(batch) for batch in model.inputs] == [4, 4, 3]
    for value, image in zip(values, images):
        Image.fromarray(image).save(tmp_path / f"{value:03}.png")
    (tmp_path / "notes.txt").write_text("no image")
    assert scores(tmp_path) == pytest.approx(expected)
    mixed = [Image.fromarray(images[3]), str(tmp_path / "006.png"), tmp_path / "007.png", images[0]]
    assert scores(mixed) == pytest.approx([expected[i] for i in (3, 1, 2, 0)])
    assert scores([]) == [] and len(scores((images[0],))) == 1


def test_class_names_come_from_the_argument_the_model_or_numbers_and_a_detector_may_be_any_function():
    answer = always([[8.0, 8, 20, 20]], [[0.1, 0.9]])
    assert repr(predict(KnownDetector(answer, ["cat", "dog"]), flat(0))) == "Detections(1: 1 dog)"
    assert repr(predict(KnownDetector(answer, ["cat", "dog"]), flat(0), class_names=["A", "B"])) == "Detections(1: 1 B)"
    theirs = one(KnownDetector(answer, image_size=640), flat(0))
    ours = one(lambda images: (torch.tensor([[[8.0, 8, 20, 20]]]), torch.tensor([[[0.1, 0.9]]])), flat(0))
    torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=0, atol=1e-4)
    assert repr(ours) == repr(theirs) == "Detections(1: 1 class 1)"


def test_every_module_is_left_in_its_mode_also_after_an_error_and_between_frames():
    broken = KnownDetector(lambda image: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(broken, flat(0))
    model = sees()
    frames = detect(model, (NamedImage("frame", flat(0)) for _ in range(3)), batch_size=1)
    assert not next(frames).boxes.requires_grad and model.modes == [False]  # lazy, in eval mode
    for each in (broken, model):
        assert each.training and not each.frozen.training


def test_the_input_has_the_models_type_and_the_models_or_the_callers_size():
    model = sees(image_size=96).to(torch.bfloat16)
    predict(model, flat(0))
    predict(model.float(), flat(0), image_size=128)
    assert [batch.dtype for batch in model.inputs] == [torch.bfloat16, torch.float32]
    assert [batch.shape[-2:] for batch in model.inputs] == [(96, 96), (128, 128)]


some, ok, score = flat(0), torch.rand(3, 4), torch.rand(3, 2)
BAD = [
    (lambda: predict(sees(), some, conf=1.5), "conf .* 1.5"),
    (lambda: predict(sees(), "film.mp4", iou=7), "iou .* 7"),  # at once, not with the first frame
    (lambda: predict(sees(), [], conf=math.nan), "conf .* nan"),
    (lambda: predict(sees(), some, image_size=100), "image_size is 100: .* 32 px"),
    (lambda: predict(sees(), some, batch_size=0), "batch_size .* 0"),
    (lambda: predict(sees(), some, class_names=["a", "b"]), "2 class_names, .* 1 classes"),
    (lambda: predict(sees(math.nan), PHOTO), "grace_hopper.jpg: .* scores contain NaN .* check the weights"),
    (lambda: predict(sees(box=(8, math.nan, 20, 20)), [some, some]), "image 0: .* boxes contain NaN"),
    (lambda: postprocess(torch.rand(1, 3, 4), score), r"boxes .* \(1, 3, 4\)"),
    (lambda: postprocess(ok, torch.rand(2, 2)), r"scores .* \(3, k\).* \(2, 2\)"),
    (lambda: postprocess(ok, score, top_k=0), r"top_k \(0\)"),
    (lambda: postprocess(ok, score, max_detections=0), r"max_detections \(0\)"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
