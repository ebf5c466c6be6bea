"""COCO-format folders: labels, boxes and counts by hand, and every kind of bad file refused by name."""

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from yolonas_lab.data import CocoDataset, write_coco


def good() -> dict:
    """Two images and an empty one; category ids with gaps and out of order, one of them unused."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 3, "file_name": "sub/b.png", "width": 20, "height": 50},
            {"id": 9, "file_name": "empty.png", "width": 16, "height": 16},
        ],
        "categories": [
            {"id": number, "name": name}
            for number, name in ((90, "toothbrush"), (1, "person"), (0, "unused"), (18, "dog"))
        ],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 18, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 90, "bbox": [0.5, 1.5, 10, 20], "area": 200, "iscrowd": 0},
            {"id": 3, "image_id": 3, "category_id": 1, "bbox": [0, 0, 20, 50], "area": 1000, "iscrowd": 1},
        ],
    }


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    for row in good()["images"]:
        pixels = np.full((row["height"], row["width"], 3), row["id"], np.uint8)
        Image.fromarray(pixels).save(images / row["file_name"])
    return tmp_path


def load(folder, content) -> CocoDataset:
    path = folder / "instances.json"
    content = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return CocoDataset(folder / "images", path)


# --- what a good file gives


def test_samples_by_hand(folder):
    data = load(folder, good())
    assert len(data) == 3
    assert data.category_ids == [0, 1, 18, 90]
    assert data.class_names == ["unused", "person", "dog", "toothbrush"]
    first, second, empty = data
    assert (first.image_id, first.file_name, first.image.shape) == (7, "a.png", (30, 40, 3))
    assert first.image.dtype == np.uint8 and (first.image == 7).all()
    assert first.boxes.dtype == np.float32 and first.boxes.tolist() == [[0.5, 1.5, 10.5, 21.5]]
    assert first.labels.dtype == np.int64 and first.labels.tolist() == [3]
    assert second.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 20, 50]]
    assert second.labels.tolist() == [2, 1] and second.crowd.tolist() == [False, True]
    assert empty.boxes.shape == (0, 4) and empty.labels.shape == (0,) and empty.crowd.shape == (0,)
    assert data[-1].image_id == 9 and data[np.int64(1)].image_id == 3
    assert data.image_size(0) == (30, 40) and data.image_path(1) == folder / "images" / "sub" / "b.png"
    assert data.coco_dict == good() and data.annotations_path == folder / "instances.json"
    first.boxes[:] = data.annotations(0)[1][:] = -1  # samples are copies
    assert data[0].boxes.min() == 0.5 and data[0].labels.tolist() == [3]
    for index in (3, -4):
        with pytest.raises(IndexError):
            data[index]


def test_report_counts_everything_that_is_left_out(folder):
    content = good()
    extra = [
        ([5, 5, 0, 3], 7),  # no width
        ([5, 5, 3, -1], 7),  # negative height
        ([40, 5, 3, 3], 7),  # begins where the image ends
        ([-9, -9, 5, 5], 7),
        ([-5, 10, 10, 100], 7),  # partly outside
        ([38, 28, 2.005, 2], 7),  # rounding, not worth a remark
        ([1, 1, 1, 1], 555),  # image is not in the file
    ]
    for k, (bbox, image_id) in enumerate(extra):
        content["annotations"].append({"id": 10 + k, "image_id": image_id, "category_id": 1, "bbox": bbox})
    data = load(folder, content)
    report = data.report
    assert (report.images, report.images_without_boxes) == (3, 1)
    assert (report.categories, report.categories_without_boxes) == (4, 1)
    assert (report.annotations, report.boxes, report.crowd_boxes) == (10, 5, 1)
    assert (report.dropped_without_area, report.dropped_outside) == (2, 2)
    assert (report.clipped_boxes, report.dropped_unknown_image) == (1, 1)
    np.testing.assert_allclose(data[0].boxes[1:], [[0, 10, 5, 30], [38, 28, 40, 30]])
    for line in ("3 images, 1 of them without boxes", "2 boxes dropped: no width", "1 boxes reached out"):
        assert line in str(report)


def test_labels_are_the_same_in_every_split(folder):
    few = good()
    few["annotations"] = [a for a in few["annotations"] if a["category_id"] == 90]
    few["categories"].reverse()
    one, other = load(folder, good()), load(folder, few)
    assert one.class_names == other.class_names and one.category_ids == other.category_ids
    assert other[0].labels.tolist() == one[0].labels.tolist() == [3]


def test_a_file_without_annotations_with_a_byte_order_mark_and_a_whole_float_is_accepted(folder):
    content = good()
    del content["annotations"]
    content["images"][0]["width"] = 40.0
    data = load(folder, "\ufeff" + json.dumps(content))
    assert data.report.annotations == 0 and data.report.images_without_boxes == 3
    assert data.image_size(0) == (30, 40) and data[0].boxes.shape == (0, 4)


def test_many_annotations_keep_the_order_of_the_file(folder):
    content = good()
    rows = [(int(k), 7 if k % 3 else 3) for k in np.random.default_rng(0).permutation(500) + 1]
    content["annotations"] = [{"id": k, "image_id": i, "category_id": 1, "bbox": [0, 0, k / 500, 1]} for k, i in rows]
    data = load(folder, content)
    for index, image_id in enumerate(data.image_ids):
        np.testing.assert_allclose(data.annotations(index)[0][:, 2] * 500, [k for k, i in rows if i == image_id], 1e-5)


boxes_anywhere = st.tuples(*[st.floats(-60, 60)] * 2, *[st.floats(-5, 90)] * 2)


@given(st.lists(st.tuples(boxes_anywhere, st.sampled_from([7, 3, 9, 555])), max_size=40))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_boxes_end_up_inside_their_image_or_counted(folder, entries):
    content = good()
    content["annotations"] = [
        {"id": k, "image_id": image_id, "category_id": 1, "bbox": list(box)}
        for k, (box, image_id) in enumerate(entries)
    ]
    data = load(folder, content)
    sizes = {row["id"]: (row["width"], row["height"]) for row in content["images"]}
    expected = {image_id: [] for image_id in sizes}
    for (x, y, w, h), image_id in entries:  # the same in plain words, one box at a time
        if image_id in sizes and w > 0 and h > 0:
            width, height = sizes[image_id]
            x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
            if x2 > x1 and y2 > y1:
                expected[image_id].append([x1, y1, x2, y2])
    for index, image_id in enumerate(data.image_ids):
        boxes = np.array(expected[image_id], np.float32).reshape(-1, 4)
        np.testing.assert_array_equal(data.annotations(index)[0], boxes)
    r = data.report
    assert r.boxes + r.dropped_without_area + r.dropped_outside + r.dropped_unknown_image == len(entries)


# --- weights of boxes, and subsets


def weighted(*weights) -> dict:
    """good() with these weights of its annotations; ... leaves one out."""
    content = good()
    for row, weight in zip(content["annotations"], weights, strict=True):
        if weight is not ...:
            row["weight"] = weight
    return content


def test_weights_follow_their_boxes(folder):
    content = weighted(0.25, ..., 1)
    data = load(folder, content)
    first, second, empty = data
    assert first.weights.dtype == np.float32 and first.weights.tolist() == [1]
    assert second.labels.tolist() == [2, 1] and second.weights.tolist() == [0.25, 1] and empty.weights.shape == (0,)
    second.weights[:] = 9
    assert data.weights(1).tolist() == data.weights(-2).tolist() == [0.25, 1]
    content["annotations"][0]["bbox"] = [1, 2, 0, 4]  # no width: dropped with its weight
    assert load(folder, content).weights(1).tolist() == [1]


def test_a_subset_is_what_its_own_file_gives(folder):
    content = weighted(0.25, ..., 1)
    whole = load(folder, content)
    part = whole.subset([2, 1])
    assert (part.image_ids, part.file_names) == ([9, 3], ["empty.png", "sub/b.png"]) and len(part) == 2
    assert part.class_names == whole.class_names and part.category_ids == whole.category_ids
    assert [row["id"] for row in part.coco_dict["images"]] == [9, 3]
    assert [row["id"] for row in part.coco_dict["annotations"]] == [1, 3]
    assert part.coco_dict["categories"] == content["categories"]
    assert part.subset([1]).image_ids == [3] and whole.image_ids == [7, 3, 9]  # of a subset; the whole stays
    own_file = folder / "own"
    own_file.write_text(json.dumps(part.coco_dict))
    for again in (CocoDataset(folder / "images", own_file), pickle.loads(pickle.dumps(part))):
        assert again.report == part.report
        for a, b in zip(part, again, strict=True):
            for name in ("image", "boxes", "labels", "crowd", "weights"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_subsets_that_cannot_be(folder):
    whole = load(folder, good())
    for indices in ([], [0, -3]):
        with pytest.raises(ValueError, match="indices of a subset are empty or name an image twice"):
            whole.subset(indices)
    with pytest.raises(IndexError):
        whole.subset([3])


# --- bad files


def changed(*steps) -> dict:
    """good() with the value at a path of keys replaced, or removed where the value is `...`."""
    content = good()
    *keys, last, value = steps
    target = content
    for key in keys:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return content


def duplicated(table: str) -> dict:
    content = good()
    content[table].append(copy.deepcopy(content[table][0]))
    return content


BOX, FILE, WEIGHT = ("annotations", 1, "bbox"), ("images", 0, "file_name"), ("annotations", 1, "weight")
BAD_FILES = [
    (b"{'images': 1}", "instances.json is not valid JSON .*line 1"),
    (b"[" * 200_000, "instances.json is not valid JSON"),
    (b"\xff\xfe\x00\x81", "instances.json is not valid JSON"),
    ([{"image_id": 1, "score": 0.5}], "instances.json holds a JSON list.*results"),
    (changed("images", ...), "'images' in .*instances.json is empty or missing"),
    (changed("categories", []), "'categories' in .*instances.json is empty"),
    (changed("images", {"a": 1}), "'images' in .*instances.json is not a list of objects"),
    (changed("annotations", 1, "box"), "'annotations' in .*instances.json is not a list of objects"),
    (changed("images", 1, "id", ...), "entry 1 .file_name sub/b.png. of 'images' .* no 'id'"),
    (changed("images", 1, "width", ...), "id 3 .* of 'images' in .* has no 'width'"),
    (changed("images", 0, "height", "30"), "a.png.* of 'images' in .* has height '30'"),
    (changed("images", 0, "height", 0), "a.png.* in .* has height 0"),
    (changed("images", 0, "id", 2**70), "has id 1180"),
    (duplicated("images"), "id 7 .file_name a.png. of 'images' in .* more than once"),
    (duplicated("categories"), "id 90 .name toothbrush. of 'categories' in .* more than once"),
    (duplicated("annotations"), "id 1 .image_id 3. of 'annotations' in .* more than once"),
    (changed("categories", 1, "name", ...), "id 1 of 'categories' in .* has no 'name'"),
    (changed("annotations", 0, "category_id", 44), "id 1 .image_id 3. .*category_id 44.*categor"),
    (changed("annotations", 2, "bbox", ...), "id 3 .image_id 3. of 'annotations' in .* has no 'bbox'"),
    *[
        (changed(*BOX, box), "id 2 .image_id 7. .*instances.json has bbox .*four finite numbers")
        for box in ([1, 2, 3], [1, 2, 3, "4"], [1, float("nan"), 3, 4], [1, 1, float("inf"), 4], [1, 1, 10**400, 4])
    ],
    *[
        (changed(*FILE, name), "id 7 .*instances.json has file_name .*below the images")
        for name in ("../../etc/passwd", "sub/../../x.png", "/etc/passwd", "C:\\x.png", "..\\x.png", "", 12)
    ],
    *[
        (changed(*WEIGHT, weight), "id 2 .image_id 7. .*instances.json has weight .*at most 1")
        for weight in (0, -0.5, 1.5, float("nan"), 10**400, "0.5", None, True, [1])
    ],
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_bad_annotation_files_are_refused_by_name(folder, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(folder, content)
    assert "\n" not in str(caught.value)


def test_missing_folders_and_files_are_named(folder):
    with pytest.raises(FileNotFoundError, match=r"no images folder .*elsewhere"):
        CocoDataset(folder / "elsewhere", folder / "instances.json")
    with pytest.raises(FileNotFoundError, match=r"no annotation file .*absent\.json"):
        CocoDataset(folder / "images", folder / "absent.json")
    (folder / "images" / "sub" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images .* are missing, first .*sub/b\.png"):
        load(folder, good())


# --- writing


def test_written_files_read_back_and_failed_writes_leave_the_old_file(folder):
    path = folder / "written.json"
    write_coco(path, **good())
    before = path.read_bytes()
    assert json.loads(before) == good()
    for value, error in ((float("nan"), ValueError), ({1, 2}, TypeError)):
        with pytest.raises(error, match="JSON"):
            write_coco(path, [{"id": value}], [], [])
    assert path.read_bytes() == before and not list(folder.glob("*partial*"))
