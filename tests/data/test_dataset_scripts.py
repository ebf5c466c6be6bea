"""The scripts that fetch COCO, Objects365 and Pascal VOC, from a local server with tiny archives of that layout."""

import hashlib
import io
import json

import numpy as np
import pytest
from archives import tar_of, zip_of
from data_script import load_script
from file_server import running_server
from PIL import Image

from yolonas_lab.data import CocoDataset
from yolonas_lab.data import download as download_module

get_coco, get_objects365, get_pascal_voc = map(load_script, ("get_coco", "get_objects365", "get_pascal_voc"))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download_module.time, "sleep", lambda seconds: None)
    with running_server() as files:
        yield files


def jpeg(width, height, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG")
    return buffer.getvalue()


def md5(content):
    return hashlib.md5(content).hexdigest()


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def read(out_dir, split):
    return CocoDataset(out_dir / "images" / split, out_dir / "annotations" / f"instances_{split}.json")


def run(script, server, out_dir, *arguments):
    return script.main([str(out_dir), "--base-url", server.url, *arguments])


# COCO

COUNTS = {"train2017": 9, "val2017": 4, "unlabeled2017": 3}


def coco_images(split):
    first = {"train2017": 100, "val2017": 200, "unlabeled2017": 300}[split]
    return [
        {"id": first + k, "file_name": f"{first + k:012d}.jpg", "width": 24 + k, "height": 20, "license": 1}
        for k in range(COUNTS[split])
    ]


@pytest.fixture
def coco(server, monkeypatch):
    """The server with COCO on it, and the script knowing the digests of these archives."""
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    labels = {"annotations/captions_val2017.json": b"{}"}
    for split in ("train2017", "val2017"):
        annotations = [
            {"id": image["id"], "image_id": image["id"], "category_id": 18, "bbox": [1, 2, 9.5, 8], "iscrowd": 0}
            for image in coco_images(split)
        ]
        content = {"info": {}, "images": coco_images(split), "annotations": annotations, "categories": categories}
        labels[f"annotations/instances_{split}.json"] = json.dumps(content).encode()
    unlabeled = {"annotations/image_info_unlabeled2017.json": {"images": coco_images("unlabeled2017")}}
    server.files[f"/{get_coco.LABELS[0]}"] = zip_of(labels)
    server.files[f"/{get_coco.UNLABELED[0]}"] = zip_of({k: json.dumps(v).encode() for k, v in unlabeled.items()})
    for split in COUNTS:
        pictures = {image["file_name"]: jpeg(image["width"], 20, image["id"]) for image in coco_images(split)}
        server.files[f"/zips/{split}.zip"] = zip_of({f"{split}/{name}": data for name, data in pictures.items()})
        server.files |= {f"/{split}/{name}": data for name, data in pictures.items()}

    def known(archive):
        return archive[0], md5(server.files[f"/{archive[0]}"])

    monkeypatch.setattr(get_coco, "LABELS", known(get_coco.LABELS))
    monkeypatch.setattr(get_coco, "UNLABELED", known(get_coco.UNLABELED))
    monkeypatch.setattr(get_coco, "IMAGES", {split: known(archive) for split, archive in get_coco.IMAGES.items()})
    return server


def test_coco_comes_in_the_common_layout(coco, tmp_path, capsys):
    assert run(get_coco, coco, tmp_path, "--splits", "val2017", "train2017") == 0
    assert "4 images, 0 of them without boxes" in capsys.readouterr().out
    for split in ("val2017", "train2017"):
        dataset = read(tmp_path, split)
        assert len(dataset) == COUNTS[split] and dataset.class_names == ["person", "dog"]
        assert dataset[2].boxes.tolist() == [[1, 2, 10.5, 10]] and dataset[2].image.shape == (20, 26, 3)
    requests = len(coco.requests)
    assert run(get_coco, coco, tmp_path, "--splits", "val2017", "train2017") == 0
    assert len(coco.requests) == requests


def test_unlabeled_coco_gets_the_categories_of_the_others(coco, tmp_path):
    assert run(get_coco, coco, tmp_path, "--splits", "unlabeled2017", "--delete-archives") == 0
    dataset = read(tmp_path, "unlabeled2017")
    assert len(dataset) == 3 and dataset.report.boxes == 0 and dataset.class_names == ["person", "dog"]
    assert not (tmp_path / "downloads/unlabeled2017.zip").exists()
    dataset.annotations_path.unlink()
    assert run(get_coco, coco, tmp_path, "--splits", "unlabeled2017") == 0  # the images need not be fetched again
    assert [path for path, _ in coco.requests].count("/zips/unlabeled2017.zip") == 1


def test_a_small_coco_takes_the_same_images_for_everybody_and_goes_on(coco, tmp_path, capsys):
    by_hash = sorted(range(100, 109), key=lambda number: hashlib.sha256(str(number).encode()).hexdigest())
    path = f"/train2017/{by_hash[2]:012d}.jpg"
    whole, coco.files[path] = coco.files[path], coco.files[path][:300]
    assert run(get_coco, coco, tmp_path, "--splits", "train2017", "--images", "4") == 1
    assert f"{by_hash[2]:012d}.jpg is broken or cut off" in capsys.readouterr().err
    assert not (tmp_path / "annotations/instances_train2017_mini4.json").exists()
    assert f"{by_hash[2]:012d}.jpg" not in files_below(tmp_path / "images/train2017_mini4")
    coco.files[path] = whole
    coco.break_after[path] = [100]  # the first attempt breaks off, the second succeeds
    assert run(get_coco, coco, tmp_path, "--splits", "train2017", "--images", "4") == 0
    dataset = read(tmp_path, "train2017_mini4")
    assert dataset.image_ids == sorted(by_hash[:4]) and dataset.report.boxes == 4
    assert files_below(dataset.images_dir) == dataset.file_names
    requests = [path for path, _ in coco.requests]
    assert "/zips/train2017.zip" not in requests and f"/train2017/{by_hash[4]:012d}.jpg" not in requests
    assert run(get_coco, coco, tmp_path, "--images", "5") == 1
    assert "--images is 5: give a number from 1 to 4" in capsys.readouterr().err


def test_coco_broken_off_goes_on_and_damaged_is_refused(coco, tmp_path, capsys):
    archive = "/zips/val2017.zip"
    coco.break_after[archive] = [1000] + [0] * download_module.ATTEMPTS
    assert run(get_coco, coco, tmp_path) == 1
    error = capsys.readouterr().err
    assert "get_coco: http" in error and "val2017.zip cannot be fetched (the connection broke off" in error
    assert error.count("\n") == 1 and not (tmp_path / "images").exists()
    coco.break_after.clear()
    coco.requests.clear()
    whole, coco.files[archive] = coco.files[archive], coco.files[archive][:-100] + bytes(100)
    assert run(get_coco, coco, tmp_path) == 1  # the server's file is another one now: all of it comes, and is damaged
    assert "val2017.zip is damaged, or not the file it should be" in capsys.readouterr().err
    assert coco.requests == [(archive, "bytes=1000-")]
    coco.files[archive] = whole
    assert run(get_coco, coco, tmp_path) == 0
    assert len(files_below(tmp_path / "images" / "val2017")) == 4


# Objects365


@pytest.fixture
def objects365(server):
    rows = [(number, 1 if number < 16 else 2) for number in (0, 1, 15, 16, 43)]
    names = {number: f"objects365_v{version}_{number:08d}.jpg" for number, version in rows}
    content = {
        "images": [
            {"id": n, "file_name": f"images/v{v}/patch{n}/{names[n]}", "width": 30, "height": 20} for n, v in rows
        ],
        "annotations": [
            {"id": n + 1, "image_id": n, "category_id": 365, "bbox": [1, 1, 5, 5], "iscrowd": 0} for n, _ in rows
        ],
        "categories": [{"id": 1, "name": "Person"}, {"id": 365, "name": "Curling"}],
    }
    data = json.dumps(content).encode()
    server.files["/train/zhiyuan_objv2_train.tar.gz"] = tar_of({"zhiyuan_objv2_train.json": data}, gzip=True)
    server.files["/val/zhiyuan_objv2_val.json"] = data
    for split in ("train", "val"):
        for number, name in names.items():
            patch = tar_of({f"patch{number}/{name}": jpeg(30, 20, number)}, gzip=True)
            server.files[f"/{get_objects365.patch_path(split, number)}"] = patch
    return server


@pytest.mark.parametrize("split", ["train", "val"])
def test_objects365_grows_by_patches(objects365, tmp_path, capsys, split):
    options = ("--splits", split, "--patches")
    assert run(get_objects365, objects365, tmp_path, *options, "0-1", "--delete-archives") == 0
    output = capsys.readouterr().out
    assert "3 images of the annotation file are not in the patches" in output and "2 images, 0 of" in output
    dataset = read(tmp_path, split)
    assert dataset.file_names == ["patch0/objects365_v1_00000000.jpg", "patch1/objects365_v1_00000001.jpg"]
    assert dataset[1].labels.tolist() == [1] and dataset.class_names == ["Person", "Curling"]
    assert run(get_objects365, objects365, tmp_path, *options, "16") == 0
    assert read(tmp_path, split).image_ids == [0, 1, 16]
    requests = len(objects365.requests)
    assert run(get_objects365, objects365, tmp_path, *options, "0-1") == 0
    assert len(objects365.requests) == requests
    kept = files_below(tmp_path / "downloads" / split)
    assert "patch16.tar.gz" in kept and "patch0.tar.gz" not in kept and "checksums.json" in kept


def test_objects365_with_a_damaged_patch(objects365, tmp_path, capsys):
    whole = objects365.files["/train/patch1.tar.gz"]
    objects365.files["/train/patch1.tar.gz"] = whole[: len(whole) // 2]
    assert run(get_objects365, objects365, tmp_path, "--splits", "train", "--patches", "0-1") == 1
    error = capsys.readouterr().err
    assert "patch1.tar.gz is damaged" in error and error.count("\n") == 1
    assert (tmp_path / "images/train/patch0").is_dir() and not (tmp_path / "images/train/patch1").exists()


def test_objects365_patches_lie_where_they_are_and_others_are_refused():
    assert get_objects365.patch_path("train", 50) == "train/patch50.tar.gz"
    assert get_objects365.patch_path("val", 15) == "val/images/v1/patch15.tar.gz"
    assert get_objects365.patch_path("val", 16) == "val/images/v2/patch16.tar.gz"
    assert len(get_objects365.patch_numbers(None, "val")) == 44
    assert list(get_objects365.patch_numbers("2-4", "val")) == [2, 3, 4]
    for text in ("51", "3-2", "-1", "a", "0-", "0-51"):
        with pytest.raises(ValueError, match=rf"--patches is {text}: give numbers from 0 to 50 of train"):
            get_objects365.patch_numbers(text, "train")


# Pascal VOC

XML = """<annotation><filename>{name}.jpg</filename><size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>
<part><name>head</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part></object>
<object><name>person</name><difficult>1</difficult><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>20.5</xmax><ymax>15</ymax></bndbox>
</object></annotation>"""


def voc_tar(year, sets, xml=XML):
    root, members = f"VOCdevkit/VOC{year}", {}
    for name in {name for names in sets.values() for name in names}:
        members[f"{root}/Annotations/{name}.xml"] = xml.format(name=name).encode()
        members[f"{root}/JPEGImages/{name}.jpg"] = jpeg(40, 30, 1)
        members[f"{root}/SegmentationClass/{name}.png"] = b"no picture of ours"
    members[f"{root}/ImageSets/Main/dog_trainval.txt"] = b"000001 1\n"
    members |= {f"{root}/ImageSets/Main/{name}.txt": "\n".join(names).encode() for name, names in sets.items()}
    return tar_of(members)


@pytest.fixture
def voc(server, monkeypatch):
    """A function that puts VOC on the server, annotated with this XML, and tells the script the digests."""

    def serve(xml=XML):
        first = {"train": ["000001"], "val": ["000002"], "trainval": ["000001", "000002"]}
        second = {"train": ["2008_000003"], "val": [], "trainval": ["2008_000003"]}
        server.files["/voc2007/VOCtrainval_06-Nov-2007.tar"] = voc_tar(2007, first, xml)
        server.files["/voc2007/VOCtest_06-Nov-2007.tar"] = voc_tar(2007, {"test": ["000009"]}, xml)
        server.files["/voc2012/VOCtrainval_11-May-2012.tar"] = voc_tar(2012, second, xml)
        known = {
            split: tuple(part._replace(md5=md5(server.files[f"/{part.archive}"])) for part in parts)
            for split, parts in get_pascal_voc.SPLITS.items()
        }
        monkeypatch.setattr(get_pascal_voc, "SPLITS", known)
        return server

    return serve


def test_voc_joins_the_years_and_converts_the_boxes(voc, tmp_path):
    server = voc()
    server.break_after["/voc2007/VOCtest_06-Nov-2007.tar"] = [4000, 5000]
    assert run(get_pascal_voc, server, tmp_path) == 0
    train = read(tmp_path, "train0712")
    assert train.file_names == ["000001.jpg", "000002.jpg", "2008_000003.jpg"]
    assert train.class_names == sorted(train.class_names) and len(train.class_names) == 20
    sample = train[2]
    assert sample.boxes.tolist() == [[0, 0, 40, 30], [10, 5, 20.5, 15]]
    assert [train.class_names[label] for label in sample.labels] == ["dog", "person"]
    assert sample.crowd.tolist() == [False, True]
    assert train.report.boxes == 6 and train.report.clipped_boxes == 0
    test = read(tmp_path, "test2007")
    assert test.file_names == ["000009.jpg"] and test.class_names == train.class_names
    assert [asked for _, asked in server.requests] == [None, None, None, "bytes=4000-", "bytes=9000-"]
    assert run(get_pascal_voc, server, tmp_path, "--splits", "train2007", "val2007") == 0  # the archives are there
    assert len(server.requests) == 5 and files_below(tmp_path / "images/val2007") == ["000002.jpg"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<name>dog</name>", "<name>wolf</name>", "image 000009 has an object 'wolf', which is no class of VOC"),
        ("</annotation>", "", "annotation of image 000009 is not valid XML"),
    ],
)
def test_voc_annotations_that_cannot_be_understood_are_named(voc, tmp_path, capsys, old, new, message):
    assert run(get_pascal_voc, voc(XML.replace(old, new)), tmp_path, "--splits", "test2007") == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("script", [get_coco, get_objects365, get_pascal_voc])
def test_help_shows_how_to_call_it_and_errors_are_one_sentence(script, tmp_path, capsys):
    name = script.__name__
    with pytest.raises(SystemExit, match="0"):
        script.main(["--help"])
    shown = capsys.readouterr().out
    assert f"python data_scripts/{name}.py data/" in shown and "--base-url" in shown and "--splits" in shown
    assert script.main([str(tmp_path / "new"), "--base-url", "nowhere"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"{name}: unknown url type: 'nowhere/") and error.count("\n") == 1
