"""Questions to ask before a training starts: does the data fit the model? A minute later the answer costs more."""

from typing import Any

from torch import nn

from yolonas_lab.losses.distillation import DistillConfig
from yolonas_lab.training.teacher_boxes import check_teacher


def check_inputs(model: nn.Module, train_set: Any, val_set: Any | None) -> None:
    """Raise ValueError, in one sentence, for data without images or objects, or with other classes than the model."""
    for name, dataset in (("train_set", train_set), ("val_set", val_set)):
        if dataset is not None and len(dataset) == 0:
            raise ValueError(f"{name} has no images: check the annotation file it was made from.")
        if dataset is not None:
            _check_classes(model, name, list(dataset.class_names))
    if val_set is not None and list(val_set.class_names) != list(train_set.class_names):
        raise ValueError(
            f"train_set has the classes {_some(train_set.class_names)} and val_set {_some(val_set.class_names)}: give "
            f"both annotation files the same categories."
        )
    if not any(_objects(train_set, index) for index in range(len(train_set))):
        raise ValueError(
            f"None of the {len(train_set)} images of train_set has an object to learn from: check that the annotation "
            f"file has annotations for these images."
        )


def check_distillation(
    model: nn.Module,
    train_set: Any,
    teacher: nn.Module | None,
    distillation: DistillConfig | None,
    compute_loss: object | None,
) -> DistillConfig:
    """The settings to learn from a teacher with, the usual ones for None. Raises ValueError for a teacher that says
    something else than the model, settings without a teacher, and a teacher beside a loss of the caller's own.
    """
    if teacher is None and distillation is not None:
        raise ValueError("distillation was given without a teacher: give fit the teacher too.")
    if teacher is not None:
        if compute_loss is not None:
            raise ValueError(
                "Both teacher and compute_loss were given: a teacher adds to the YOLO-NAS loss; call "
                "losses.distillation_losses inside your compute_loss instead."
            )
        check_teacher(teacher, train_set.class_names, "train_set")
        bins, own = (getattr(getattr(m, "config", None), "reg_max", None) for m in (teacher, model))
        if bins != own and None not in (bins, own):
            raise ValueError(
                f"The teacher has bins 0 … {bins} and the model 0 … {own}: distributions over other bins cannot be "
                f"compared; take a teacher with reg_max={own}."
            )
    return distillation or DistillConfig()


def _check_classes(model: nn.Module, name: str, class_names: list[str]) -> None:
    num_classes = getattr(model, "num_classes", len(class_names))
    if num_classes != len(class_names):
        raise ValueError(
            f"The model predicts {num_classes} classes, but {name} has {len(class_names)} ({_some(class_names)}): make "
            f"the model with num_classes={len(class_names)}."
        )


def _objects(dataset: Any, index: int) -> int:
    """Boxes of an image that are no crowd; without reading the image where the data set can."""
    if hasattr(dataset, "annotations"):
        _, _, crowd = dataset.annotations(index)
    else:
        crowd = dataset[index].crowd
    return int((~crowd).sum())


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
