"""COCO average precision: the twelve numbers by which detectors are compared, and the AP of each class.

Notebook 02 computes one of them by hand. Lin et al., "Microsoft COCO", 1405.0312, and the evaluation page of
cocodataset.org; counted by pycocotools, the reference implementation.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from yolonas_lab.common import progress as progress_over
from yolonas_lab.data.coco import read_json
from yolonas_lab.detect import detect
from yolonas_lab.sources import NamedImage

if TYPE_CHECKING:
    from yolonas_lab.data.coco import CocoDataset


@dataclass(frozen=True)
class CocoMetrics:
    """pycocotools' twelve numbers in [0, 1]; NaN where there is no object to find (no such size, an unused class).

    ap: mean over IoU thresholds .50, .55 … .95 and classes. small: area up to 32² px, medium: up to 96², large: above.
    ar1, ar10, ar100: recall with at most that many detections per image and class. per_class: the ap of each class by
    name. AP counts the best 100 detections of an image and class; num_detections counts all that were handed in.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class: dict[str, float]
    num_images: int
    num_detections: int

    def __str__(self) -> str:
        rows = [
            ("AP", self.ap, "AR, 1 detection", self.ar1),
            ("AP at IoU .50", self.ap50, "AR, 10 detections", self.ar10),
            ("AP at IoU .75", self.ap75, "AR, 100 detections", self.ar100),
            ("AP, small", self.ap_small, "AR, small", self.ar_small),
            ("AP, medium", self.ap_medium, "AR, medium", self.ar_medium),
            ("AP, large", self.ap_large, "AR, large", self.ar_large),
        ]
        lines = [f"COCO metrics: {self.num_detections} detections in {self.num_images} images"]
        lines += [f"{left:<14} {_number(a)}   {right:<18} {_number(b)}" for left, a, right, b in rows]
        width = max(map(len, self.per_class), default=0)
        lines += ["AP by class", *(f"  {name:<{width}} {_number(ap)}" for name, ap in self.per_class.items())]
        return "\n".join(lines)


def _number(value: float) -> str:
    return "    –" if np.isnan(value) else f"{value:.3f}"


def evaluate(
    model: nn.Module,
    dataset: CocoDataset,
    conf: float = 0.01,
    iou: float = 0.7,
    top_k: int = 1000,
    max_detections: int = 300,
    image_size: int | None = None,
    batch_size: int = 8,
    progress: bool = True,
) -> CocoMetrics:
    """Predict every image of dataset, those without objects too, and count the result against all its annotations.

    The defaults are those with which YOLO-NAS was published. Raises ValueError for a model with another number of
    classes than the dataset, for bad settings, and as `detect` does.

    >>> import tempfile, yolonas_lab as yl
    >>> model = yl.models.get("yolo_nas_nano", pretrained_weights="scenes")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = yl.data.make_scenes(folder, train=0, val=8, image_size=64)
    ...     metrics = evaluate(model, yl.data.CocoDataset(made.images_dir("val"), made.annotations("val")))
    >>> 0.5 < metrics.ap < 1, metrics.num_images
    (True, 8)
    """
    _check_classes(model, dataset)
    image_ids: list[int] = []

    def images() -> Iterator[NamedImage]:
        indices = range(len(dataset))
        for index in progress_over(indices, "evaluating", "image") if progress else indices:
            sample = dataset[index]
            image_ids.append(sample.image_id)
            yield NamedImage(sample.file_name, sample.image)

    names = dataset.class_names
    found = detect(model, images(), conf, iou, image_size, batch_size, names, top_k, max_detections)
    rows = (each.to_coco(image_ids[index], dataset.category_ids) for index, each in enumerate(found))
    return coco_metrics([row for of_image in rows for row in of_image], dataset.coco_dict)


def coco_metrics(results: Sequence[dict], ground_truth: dict | str | Path) -> CocoMetrics:
    """Count detections against ground truth: entries of a COCO results file, and a COCO annotation file or its content.

    results: dicts with image_id, category_id, bbox (xywh px), score. All images of the ground truth count, also those
    without objects or detections. A missing area is taken as width x height. Annotations are numbered anew from 1,
    because pycocotools takes a match with annotation 0 for none. Raises ValueError for results that do not fit.

    >>> truth = {"images": [{"id": 1}], "categories": [{"id": 7, "name": "cat"}]}
    >>> truth["annotations"] = [{"image_id": 1, "category_id": 7, "bbox": [0, 0, 10, 10]}]
    >>> metrics = coco_metrics([{"image_id": 1, "category_id": 7, "bbox": [0, 0, 10, 8], "score": 0.8}], truth)
    >>> f"AP50 {metrics.ap50:.2f}, AP {metrics.ap:.2f}"  # IoU .8: right at 7 of the 10 thresholds
    'AP50 1.00, AP 0.70'
    """
    from pycocotools.cocoeval import COCOeval

    truth = read_json(Path(ground_truth)) if isinstance(ground_truth, (str, Path)) else ground_truth
    _check_results(results, truth)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = COCOeval(_coco(truth, truth["annotations"]), _coco(truth, results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision: np.ndarray = evaluation.eval["precision"]  # (IoU, recall, k, size, max detections)
    of_classes = [precision[:, :, k, 0, -1].mean() for k in range(precision.shape[2])]
    # pycocotools writes -1 where there was no object to find
    stats, per_class = (np.where(np.equal(x, -1), np.nan, x).tolist() for x in (evaluation.stats, of_classes))
    by_name = dict(zip(_class_names(truth["categories"]), per_class, strict=True))
    return CocoMetrics(*stats, per_class=by_name, num_images=len(truth["images"]), num_detections=len(results))


def _coco(truth: dict, annotations: Sequence[dict]) -> Any:
    """pycocotools' object for these annotations on the images and categories of truth; the input stays untouched."""
    from pycocotools.coco import COCO

    coco = COCO()
    rows = []
    for number, entry in enumerate(annotations, start=1):
        _, _, w, h = entry["bbox"]
        row = {key: entry[key] for key in ("image_id", "category_id", "bbox")}
        row |= {"id": number, "area": entry.get("area", w * h), "iscrowd": entry.get("iscrowd", 0)}
        rows.append(row | ({"score": entry["score"]} if "score" in entry else {}))
    coco.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": rows}
    coco.createIndex()
    return coco


def _check_results(results: Sequence[dict], truth: dict) -> None:
    for key in ("images", "annotations", "categories"):
        if not isinstance(truth, dict) or key not in truth:
            raise ValueError(f'the ground truth has no "{key}"; it must be in COCO format.')
    lists = {"image_id": "images", "category_id": "categories"}
    known = {key: {row["id"] for row in truth[name]} for key, name in lists.items()}
    for index, entry in enumerate(results):
        if missing := {"image_id", "category_id", "bbox", "score"} - entry.keys():
            raise ValueError(f"result {index} lacks {', '.join(sorted(missing))}.")
        for key, ids in known.items():
            if entry[key] not in ids:
                raise ValueError(f"result {index} has {key} {entry[key]}, which the ground truth does not know.")
        if len(entry["bbox"]) != 4 or not np.isfinite([*entry["bbox"], entry["score"]]).all():
            raise ValueError(f"result {index} must have a bbox of 4 finite numbers and a finite score, but is {entry}.")


def _check_classes(model: nn.Module, dataset: CocoDataset) -> None:
    names = list(dataset.class_names)
    num_classes = getattr(model, "num_classes", len(names))
    if num_classes != len(names):
        raise ValueError(f"the model predicts {num_classes} classes, but the dataset has {len(names)}.")
    model_names = getattr(model, "class_names", None)
    if model_names is not None and list(model_names) != names and sorted(model_names) == sorted(names):
        raise ValueError(f"the model has the dataset's classes in another order: {list(model_names)} against {names}.")


def _class_names(categories: Sequence[dict]) -> list[str]:
    """In the order of category ids; a name that occurs twice gets its id."""
    categories = sorted(categories, key=lambda category: category["id"])
    names = [str(category.get("name", category["id"])) for category in categories]
    return [f"{name} ({c['id']})" if names.count(name) > 1 else name for name, c in zip(names, categories)]
