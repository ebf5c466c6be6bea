"""The scripts that fetch COCO, Objects365 and Pascal VOC, from a local server with tiny archives of that layout."""

import hashlib
import io
import json

import pytest
from archives import tar_of, zip_of
from data_script import load_script
from file_server import running_server
from PIL import Image

from yolonas_lab.data import CocoDataset
from yolonas_lab.data import download as download_module

get_coco, get_objects365, get_pascal_voc = map(load_script, ("get_coco", "get_objects365", "get_pascal_voc"))
BUFFER = io.BytesIO()
Image.effect_noise((40, 30), 64).convert("RGB").save(BUFFER, format="JPEG")
JPEG = BUFFER.getvalue()
SIZE = {"width": 40, "height": 30}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download_module.time, "sleep", lambda seconds: None)
    with running_server() as files:
        yield files


def md5(content):
    return hashlib.md5(content).hexdigest()


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def read(out_dir, split):
    return CocoDataset(out_dir / "images" / split, out_dir / "annotations" / f"instances_{split}.json")


def run(script, server, out_dir, *arguments):
    return script.main([str(out_dir), "--base-url", server.url, *arguments])


# COCO

IDS = {"train2017": range(100, 109), "val2017": range(200, 204), "unlabeled2017": range(300, 303)}


@pytest.fixture
def coco(server, monkeypatch):
    """The server with COCO on it, and the script knowing the digests of these archives."""
    content = {}
    for split, ids in IDS.items():
        names = [f"{number:012d}.jpg" for number in ids]
        images = [{"id": number, "file_name": name, **SIZE} for number, name in zip(ids, names)]
        boxes = [{"id": n, "image_id": n, "category_id": 18, "bbox": [1, 2, 9.5, 8], "iscrowd": 0} for n in ids]
        categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
        content[split] = {"images": images, "annotations": boxes, "categories": categories}
        server.files[f"/zips/{split}.zip"] = zip_of({f"{split}/{name}": JPEG for name in names})
        server.files |= {f"/{split}/{name}": JPEG for name in names}
    unlabeled = json.dumps({"images": content.pop("unlabeled2017")["images"]}).encode()
    labels = {f"annotations/instances_{split}.json": json.dumps(values).encode() for split, values in content.items()}
    server.files[f"/{get_coco.LABELS[0]}"] = zip_of({"annotations/captions_val2017.json": b"{}", **labels})
    server.files[f"/{get_coco.UNLABELED[0]}"] = zip_of({"annotations/image_info_unlabeled2017.json": unlabeled})

    def known(archive):
        return archive[0], md5(server.files[f"/{archive[0]}"])

    monkeypatch.setattr(get_coco, "LABELS", known(get_coco.LABELS))
    monkeypatch.setattr(get_coco, "UNLABELED", known(get_coco.UNLABELED))
    monkeypatch.setattr(get_coco, "IMAGES", {split: known(archive) for split, archive in get_coco.IMAGES.items()})
    return server


def test_coco_comes_in_the_common_layout(coco, tmp_path, capsys):
    assert run(get_coco, coco, tmp_path, "--splits", *IDS, "--delete-archives") == 0
    assert "4 images, 0 of them without boxes" in capsys.readouterr().out
    for split, ids in IDS.items():
        dataset = read(tmp_path, split)
        assert dataset.image_ids == list(ids) and dataset.class_names == ["person", "dog"]
        boxes = [] if split == "unlabeled2017" else [[1, 2, 10.5, 10]]  # the categories are those of the others
        assert dataset[2].boxes.tolist() == boxes and dataset[2].image.shape == (30, 40, 3)
        assert not (tmp_path / f"downloads/{split}.zip").exists()
    requests = len(coco.requests)
    assert run(get_coco, coco, tmp_path, "--splits", *IDS) == 0
    assert len(coco.requests) == requests


def test_a_small_coco_takes_the_same_images_for_everybody_and_goes_on(coco, tmp_path, capsys):
    by_hash = sorted(IDS["train2017"], key=lambda number: hashlib.sha256(str(number).encode()).hexdigest())
    path = f"/train2017/{by_hash[2]:012d}.jpg"
    coco.files[path] = JPEG[:300]
    assert run(get_coco, coco, tmp_path, "--splits", "train2017", "--images", "4") == 1
    assert f"{by_hash[2]:012d}.jpg is broken or cut off" in capsys.readouterr().err
    assert not (tmp_path / "annotations/instances_train2017_mini4.json").exists()
    assert f"{by_hash[2]:012d}.jpg" not in files_below(tmp_path / "images/train2017_mini4")
    coco.files[path] = JPEG
    coco.break_after[path] = [100]  # the first attempt breaks off, the second succeeds
    assert run(get_coco, coco, tmp_path, "--splits", "train2017", "--images", "4") == 0
    dataset = read(tmp_path, "train2017_mini4")
    assert dataset.image_ids == sorted(by_hash[:4]) and dataset.report.boxes == 4
    assert files_below(dataset.images_dir) == dataset.file_names
    requests = [path for path, _ in coco.requests]
    assert "/zips/train2017.zip" not in requests and f"/train2017/{by_hash[4]:012d}.jpg" not in requests
    assert run(get_coco, coco, tmp_path, "--images", "5") == 1
    assert "--images is 5: give a number from 1 to 4" in capsys.readouterr().err


# Objects365


@pytest.mark.parametrize("split", ["train", "val"])
def test_objects365_grows_by_patches(server, tmp_path, capsys, split):
    images, boxes = [], []
    for number in (0, 1, 15, 16, 43):
        version = 1 if number < 16 else 2
        name = f"objects365_v{version}_{number:08d}.jpg"
        images.append({"id": number, "file_name": f"images/v{version}/patch{number}/{name}", **SIZE})
        boxes.append({"id": number + 1, "image_id": number, "category_id": 365, "bbox": [1, 1, 5, 5], "iscrowd": 0})
        patch = tar_of({f"patch{number}/{name}": JPEG}, gzip=True)
        server.files[f"/{get_objects365.patch_path(split, number)}"] = patch
    categories = [{"id": 1, "name": "Person"}, {"id": 365, "name": "Curling"}]
    data = json.dumps({"images": images, "annotations": boxes, "categories": categories}).encode()
    server.files["/train/zhiyuan_objv2_train.tar.gz"] = tar_of({"zhiyuan_objv2_train.json": data}, gzip=True)
    server.files["/val/zhiyuan_objv2_val.json"] = data

    options = ("--splits", split, "--patches")
    assert run(get_objects365, server, tmp_path, *options, "0-1", "--delete-archives") == 0
    output = capsys.readouterr().out
    assert "3 images of the annotation file are not in the patches" in output and "2 images, 0 of" in output
    dataset = read(tmp_path, split)
    assert dataset.file_names == ["patch0/objects365_v1_00000000.jpg", "patch1/objects365_v1_00000001.jpg"]
    assert dataset[1].labels.tolist() == [1] and dataset.class_names == ["Person", "Curling"]
    assert run(get_objects365, server, tmp_path, *options, "16") == 0
    assert read(tmp_path, split).image_ids == [0, 1, 16]
    requests = len(server.requests)
    assert run(get_objects365, server, tmp_path, *options, "0-1") == 0
    assert len(server.requests) == requests
    kept = files_below(tmp_path / "downloads" / split)
    assert "patch16.tar.gz" in kept and "patch0.tar.gz" not in kept and "checksums.json" in kept


def test_objects365_patches_lie_where_they_are_and_others_are_refused():
    lies = {("train", 50): "train", ("val", 15): "val/images/v1", ("val", 16): "val/images/v2"}
    for (split, number), place in lies.items():
        assert get_objects365.patch_path(split, number) == f"{place}/patch{number}.tar.gz"
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
VOC = {  # archive, year, sets and their images
    "voc2007/VOCtrainval_06-Nov-2007.tar": (2007, {"train": "000001", "val": "000002", "trainval": "000001 000002"}),
    "voc2007/VOCtest_06-Nov-2007.tar": (2007, {"test": "000009"}),
    "voc2012/VOCtrainval_11-May-2012.tar": (2012, {"trainval": "2008_000003"}),
}


def put_voc(server, monkeypatch, xml=XML):
    """Put VOC on the server, annotated with this XML, and tell the script the digests."""
    for path, (year, sets) in VOC.items():
        root = f"VOCdevkit/VOC{year}"
        members = {f"{root}/ImageSets/Main/{name}.txt": names.encode() for name, names in sets.items()}
        members[f"{root}/ImageSets/Main/dog_trainval.txt"] = b"000001 1\n"
        for name in {name for names in sets.values() for name in names.split()}:
            members[f"{root}/Annotations/{name}.xml"] = xml.format(name=name).encode()
            members[f"{root}/JPEGImages/{name}.jpg"] = JPEG
            members[f"{root}/SegmentationClass/{name}.png"] = b"no picture of ours"
        server.files[f"/{path}"] = tar_of(members)
    known = {
        split: tuple(part._replace(md5=md5(server.files[f"/{part.archive}"])) for part in parts)
        for split, parts in get_pascal_voc.SPLITS.items()
    }
    monkeypatch.setattr(get_pascal_voc, "SPLITS", known)


def test_voc_joins_the_years_and_converts_the_boxes(server, monkeypatch, tmp_path):
    put_voc(server, monkeypatch)
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
    assert run(get_pascal_voc, server, tmp_path, "--splits", "train2007", "val2007") == 0  # the archives are there
    assert len(server.requests) == 3 and files_below(tmp_path / "images/val2007") == ["000002.jpg"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<name>dog</name>", "<name>wolf</name>", "image 000009 has an object 'wolf', which is no class of VOC"),
        ("</annotation>", "", "annotation of image 000009 is not valid XML"),
    ],
)
def test_voc_annotations_that_cannot_be_understood_are_named(server, monkeypatch, tmp_path, capsys, old, new, message):
    put_voc(server, monkeypatch, XML.replace(old, new))
    assert run(get_pascal_voc, server, tmp_path, "--splits", "test2007") == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("script", [get_coco, get_objects365, get_pascal_voc])
def test_help_shows_how_to_call_it_and_errors_are_one_sentence(script, server, tmp_path, capsys):
    name = script.__name__
    with pytest.raises(SystemExit, match="0"):
        script.main(["--help"])
    assert f"python data_scripts/{name}.py data/" in capsys.readouterr().out
    assert run(script, server, tmp_path / "new") == 1
    error = capsys.readouterr().err
    assert error.startswith(f"{name}: {server.url}/") and "the server answered 404" in error and error.count("\n") == 1
