"""Prediction end to end: preparation, geometry back to the original image, batches, modes, and bad input."""

import math
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from known_detector import KnownDetector, always, by_center_pixel
from PIL import Image

from yolonas_lab.detect import Detections, detect, predict, prepare
from yolonas_lab.models.yolo_nas import decode
from yolonas_lab.sources import NamedImage

torch.set_num_threads(1)
PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


def one(model, source, **options) -> Detections:
    """predict, which must answer one image with one Detections."""
    found = predict(model, source, **options)
    assert isinstance(found, Detections)
    return found


def many(model, source, **options) -> list[Detections]:
    """predict, which must answer several images with a list."""
    found = predict(model, source, **options)
    assert isinstance(found, list)
    return found


def flat(value, height=40, width=60):
    return np.full((height, width, 3), value, dtype=np.uint8)


def plain_bilinear(image, height, width):
    """Bilinear resizing with pixel centers at .5 and no smoothing, one output pixel after the other."""
    h, w = image.shape[:2]
    result = np.zeros((height, width, 3))
    for row in range(height):
        for column in range(width):
            y = min(max((row + 0.5) * h / height - 0.5, 0), h - 1)
            x = min(max((column + 0.5) * w / width - 0.5, 0), w - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            top = image[y0, x0] * (x0 + 1 - x) + image[y0, x1] * (x - x0)
            bottom = image[y1, x0] * (x0 + 1 - x) + image[y1, x1] * (x - x0)
            result[row, column] = top * (y0 + 1 - y) + bottom * (y - y0)
    return result


# preparation


def test_prepare_by_hand():
    image = flat(200, height=300, width=600)
    image[..., 2] = 10
    inputs, (frame,) = prepare([image], 640)
    assert inputs.shape == (1, 3, 640, 640) and inputs.dtype == torch.float32
    assert (frame.pad_left, frame.pad_top, frame.resized_h, frame.resized_w) == (2, 161, 318, 636)
    content = inputs[0, :, 161:479, 2:638] * 255
    assert content[0].unique().tolist() == content[1].unique().tolist() == pytest.approx([200])
    assert content[2].unique().tolist() == pytest.approx([10])
    inputs[0, :, 161:479, 2:638] = 114 / 255
    torch.testing.assert_close(inputs, torch.full_like(inputs, 114 / 255))


@pytest.mark.parametrize(("height", "width"), [(37, 90), (64, 64), (20, 11), (1, 200)])
def test_prepare_resizes_like_plain_bilinear(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    inputs, (frame,) = prepare([image], 64)
    rows = slice(frame.pad_top, frame.pad_top + frame.resized_h)
    columns = slice(frame.pad_left, frame.pad_left + frame.resized_w)
    ours = (inputs[0, :, rows, columns] * 255).permute(1, 2, 0).numpy()
    expected = plain_bilinear(image, frame.resized_h, frame.resized_w)
    assert np.abs(ours - expected).max() <= 0.501  # rounded to whole values
    assert np.abs(ours - ours.round()).max() < 1e-3


def test_an_image_of_the_right_size_is_not_touched():
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert torch.equal((prepare([image], 64)[0][0] * 255).round().byte(), torch.from_numpy(image).permute(2, 0, 1))


# geometry


def test_a_known_box_comes_back_in_pixels_of_the_photograph():
    with Image.open(PHOTO) as photo:
        width, height = photo.size
    assert (width, height) == (512, 600)
    scale, left = 636 / 600, (640 - 543) // 2
    face = [150.0, 60.0, 340.0, 300.0]  # in the photograph
    in_network = [face[0] * scale + left, face[1] * scale + 2, face[2] * scale + left, face[3] * scale + 2]
    model = KnownDetector(always([in_network], [[0.9, 0.1]]), ["person", "hat"], image_size=640)
    found = one(model, PHOTO)
    assert found.boxes.tolist() == [pytest.approx(face, abs=1e-3)]
    assert found.scores.tolist() == pytest.approx([0.9]) and found.labels.tolist() == [0]
    assert found.image is not None and found.image.shape == (600, 512, 3)
    with Image.open(PHOTO) as photo:
        assert np.array_equal(found.image, np.array(photo.convert("RGB")))


def test_the_stand_in_decodes_to_what_it_was_told():
    boxes, scores = (
        torch.tensor([[3.0, 4.0, 30.0, 50.0], [0.0, 0.0, 64.0, 64.0]]),
        torch.tensor([[0.3, 0.6], [1.0, 0.0]]),
    )
    decoded, probabilities = decode(KnownDetector(lambda _: (boxes, scores))(torch.zeros(1, 3, 64, 64)))
    torch.testing.assert_close(decoded[0].float(), boxes)
    torch.testing.assert_close(probabilities[0].float(), scores)


def test_boxes_are_clipped_to_the_image():
    model = KnownDetector(always([[-100.0, -100.0, 300.0, 300.0]], [[0.9]]))
    found = one(model, flat(0, height=30, width=64))
    assert found.boxes.tolist() == [pytest.approx([0, 0, 64, 30], abs=1e-4)]


def test_conf_and_iou_reach_the_right_place():
    two = always([[0.0, 0, 20, 20], [0, 0, 20, 10]], [[0.9], [0.4]])  # IoU 0.5
    model = KnownDetector(two)
    counts = {
        (conf, iou): len(one(model, flat(0, 64, 64), conf=conf, iou=iou))
        for conf, iou in [(0.3, 0.6), (0.3, 0.4), (0.5, 0.6), (0.95, 0.6)]
    }
    assert counts == {(0.3, 0.6): 2, (0.3, 0.4): 1, (0.5, 0.6): 1, (0.95, 0.6): 0}


# one in, one out; many in, many out


def test_lists_folders_and_batches_keep_the_order(tmp_path):
    answers = {
        value: (torch.tensor([[8.0, 8.0, 8.0 + value, 60.0]]), torch.tensor([[0.5 + value / 100]]))
        for value in range(5, 16)
    }
    expected = [0.5 + value / 100 for value in range(5, 16)]
    images = [flat(value, 64, 64 - value % 2) for value in range(5, 16)]
    model = KnownDetector(by_center_pixel(answers))
    found = many(model, images, batch_size=4)
    assert [f.scores.item() for f in found] == pytest.approx(expected)
    assert [len(batch) for batch in model.inputs] == [4, 4, 3]
    for value, image in zip(range(5, 16), images):
        Image.fromarray(image).save(tmp_path / f"{value:03}.png")
    (tmp_path / "notes.txt").write_text("no image")
    assert [f.scores.item() for f in many(model, tmp_path)] == pytest.approx(expected)
    mixed = [Image.fromarray(images[3]), str(tmp_path / "006.png"), tmp_path / "007.png", images[0]]
    assert [f.scores.item() for f in many(model, mixed)] == pytest.approx([expected[i] for i in (3, 1, 2, 0)])
    assert len(many(model, [images[0]])) == len(many(model, (images[0],))) == 1
    assert many(model, []) == []


def test_class_names_come_from_the_argument_the_model_or_numbers():
    answer = always([[8.0, 8, 20, 20]], [[0.1, 0.9]])
    assert repr(predict(KnownDetector(answer, ["cat", "dog"]), flat(0))) == "Detections(1: 1 dog)"
    assert repr(predict(KnownDetector(answer, ["cat", "dog"]), flat(0), class_names=["A", "B"])) == "Detections(1: 1 B)"
    assert repr(predict(KnownDetector(answer), flat(0))) == "Detections(1: 1 class 1)"


def test_image_size_is_the_models_or_the_callers():
    model = KnownDetector(always([[8.0, 8, 20, 20]], [[0.9]]), image_size=96)
    predict(model, flat(0))
    predict(model, flat(0), image_size=128)
    assert [batch.shape[-2:] for batch in model.inputs] == [(96, 96), (128, 128)]


def test_every_module_is_left_in_its_mode():
    model = KnownDetector(always([[8.0, 8, 20, 20]], [[0.9]]))
    assert model.training and not model.frozen.training
    found = one(model, flat(0))
    assert model.modes == [False]
    assert model.training and not model.frozen.training
    assert not found.boxes.requires_grad
    model.eval()
    predict(model, flat(0))
    assert not model.training


def test_the_mode_is_restored_after_an_error_and_between_frames():
    model = KnownDetector(lambda image: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(model, flat(0))
    assert model.training
    model = KnownDetector(always([[8.0, 8, 20, 20]], [[0.9]]))
    frames = detect(model, (NamedImage("frame", flat(0)) for _ in range(3)), batch_size=1)
    next(frames)
    assert model.training and len(model.inputs) == 1  # lazy


def test_the_input_has_the_models_type():
    model = KnownDetector(always([[8.0, 8, 20, 20]], [[0.9]])).to(torch.bfloat16)
    predict(model, flat(0))
    assert model.inputs[0].dtype == torch.bfloat16


def test_a_real_network_predicts():
    import yolonas_lab as yl

    torch.manual_seed(0)
    model = yl.models.get("yolo_nas_pico", num_classes=3)
    found = many(model, [flat(90), PHOTO], conf=0.0, image_size=64)
    assert [len(f) for f in found] == [len(f) for f in many(model, [flat(90), PHOTO], conf=0.0, image_size=64)]
    assert all(0 < len(f) <= 300 and f.boxes.isfinite().all() for f in found)


# bad input

some = flat(0)
good = KnownDetector(always([[8.0, 8, 20, 20]], [[0.9]]))
nan_scores = KnownDetector(always([[8.0, 8, 20, 20]], [[math.nan]]))
nan_boxes = KnownDetector(always([[8.0, math.nan, 20, 20]], [[0.9]]))
BAD = [
    (lambda: predict(good, some, conf=1.5), r"conf must lie in \[0, 1\], but is 1.5"),
    (lambda: predict(good, some, conf=-0.1), r"conf must lie in \[0, 1\], but is -0.1"),
    (lambda: predict(good, some, iou=70), r"iou must lie in \[0, 1\], but is 70"),
    (lambda: predict(good, "film.mp4", iou=7), r"iou must lie in \[0, 1\]"),  # at once, not with the first frame
    (lambda: predict(good, [], conf=2), r"conf must lie in \[0, 1\]"),
    (lambda: predict(good, some, image_size=100), r"image_size must be a multiple of 32 px, but is 100"),
    (lambda: predict(good, some, image_size=0), r"image_size must be a multiple of 32 px, but is 0"),
    (lambda: predict(good, some, batch_size=0), r"batch_size must be at least 1, but is 0"),
    (lambda: predict(good, some, class_names=["a", "b"]), r"there are 2 class_names, but the model predicts 1 classes"),
    (lambda: predict(nan_scores, some), r"image 0: the predicted scores contain NaN .* check the weights"),
    (lambda: predict(nan_scores, PHOTO), r"grace_hopper.jpg: the predicted scores contain NaN"),
    (lambda: predict(nan_boxes, [some, some]), r"image 0: the predicted boxes contain NaN"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
