"""Training: the loop that turns images and boxes into a detector. Notebook 06 reads it line by line.

The recipe is that of YOLO-NAS (super-gradients, `coco2017_yolo_nas_s`): AdamW, warm-up and cosine, moving average of
the weights. A teacher may add to the loss (notebook 08). Lightning Fabric supplies devices, precision and several
processes; everything else is here.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from yolonas_lab.common import check_same_classes
from yolonas_lab.data.coco import Batch
from yolonas_lab.data.loader import Loader
from yolonas_lab.evaluate import CocoMetrics, evaluate
from yolonas_lab.losses import DetectionLoss, LossParts
from yolonas_lab.losses.distillation import DistillConfig, DistilledParts, distillation_losses
from yolonas_lab.models.checkpoint import LoadReport
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.models.yolo_nas import RawPredictions
from yolonas_lab.training.checkpoint import TrainState, fingerprint_of, restore, save
from yolonas_lab.training.config import Plan, TrainConfig
from yolonas_lab.training.devices import make_fabric, resolve_device, shared_normalizer
from yolonas_lab.training.history import History, Report
from yolonas_lab.training.optim import WeightAverage, make_optimizer, start_with_small_boxes
from yolonas_lab.training.pseudo_labels import check_teacher

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ComputeLoss = Callable[[RawPredictions, Batch], Any]  # a NamedTuple of scalars, `total` among them


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Functions of the caller's own that `fit` calls on its way; None for none."""

    compute_loss: ComputeLoss | None = None  # instead of the YOLO-NAS loss
    on_start: Callable[[TrainState], object] | None = None  # before the first step, also of a training that goes on
    on_step: Callable[[TrainState], object] | None = None  # after every step
    on_evaluation: Callable[[TrainState, CocoMetrics], object] | None = None  # after every evaluation


def fit(
    model: nn.Module,
    train_set: Any,
    val_set: Any | None,
    config: TrainConfig,
    hooks: Hooks = Hooks(),
    teacher: nn.Module | None = None,
    distillation: DistillConfig | None = None,
) -> History:
    """Train a copy of `model`, while `model` itself follows as the moving average of the copy's weights.

    `model` is put in eval mode on the training's device and takes over train_set.class_names and config.image_size; it
    stays usable when training is interrupted. Without val_set no AP is measured. Where config.out_dir holds a
    checkpoint of the same training, it goes on from there; one that was finished is only loaded. A `teacher` adds to
    the YOLO-NAS loss how far the model is from what it says about each batch; it stays as it is, and `distillation`
    (default: DistillConfig()) says how much it counts. Raises ValueError for a model, data and teacher that do not fit
    each other, FloatingPointError when the loss explodes, OSError when a file cannot be written; the last checkpoint is
    intact then.
    """
    _check(model, train_set, val_set, teacher)
    if teacher is not None and hooks.compute_loss is not None:
        raise ValueError("Both teacher and compute_loss were given: call losses.distillation_losses in the latter.")
    config = resolve_device(config, model)
    fabric = make_fabric(config)
    loader = Loader(
        train_set, config.batch_size, config.image_size, config.augmentation, config.seed, workers=config.workers,
        rank=fabric.global_rank, world_size=fabric.world_size, cache=config.cache,
    )  # fmt: skip
    plan = Plan(config, len(loader))
    state = _start(model, train_set, config, fabric)
    state.fingerprint = fingerprint_of(model, train_set, config, fabric.world_size, teacher, distillation)
    state.total_steps = plan.steps
    network, optimizer = fabric.setup(state.network, state.optimizer)  # the same two, as Fabric runs them
    if config.out_dir is not None:
        restore(state, config.out_dir)
    yolo_nas_loss = DetectionLoss(len(train_set.class_names), normalizer=shared_normalizer(fabric))
    compute_loss = hooks.compute_loss or (lambda raw, batch: yolo_nas_loss(raw, batch.targets))
    if teacher is not None:
        compute_loss = with_teacher(compute_loss, teacher, distillation or DistillConfig(), fabric)
    batches = _batches_from(loader, state.step * config.accumulate)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    if hooks.on_start is not None:
        hooks.on_start(state)

    with Report(state.history, config, fabric, plan) as report:
        while state.step < plan.steps:
            lr = plan.learning_rate(state.step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            losses, image_ids = [], []
            for part in range(config.accumulate):
                batch = next(batches)
                images = batch.images.to(fabric.device, memory_format=layout, non_blocking=True)  # (b, 3, h, w)
                # processes need to exchange gradients only once, after the last batch of the step
                with fabric.no_backward_sync(network, enabled=part < config.accumulate - 1):
                    loss = compute_loss(network(images), batch._replace(images=images))
                    fabric.backward(loss.total / config.accumulate)
                losses.append(loss)
                image_ids += batch.image_ids
            report.step(state.step + 1, lr, losses, image_ids)  # raises before a loss that is not finite does harm
            if config.grad_clip is not None:
                fabric.clip_gradients(network, optimizer, max_norm=config.grad_clip, error_if_nonfinite=False)
            optimizer.step()
            optimizer.zero_grad()
            state.step += 1
            state.average.update(state.step)
            if hooks.on_step is not None:
                hooks.on_step(state)
            if val_set is not None and plan.evaluates_after(state.step):
                _evaluate(state, val_set, config, fabric, report, hooks)
            if config.out_dir is not None and plan.saves_after(state.step):
                report.flush()  # what is saved must be known to be finite
                if fabric.is_global_zero:
                    save(state, config.out_dir, config.image_size)
    return state.history


def _start(model: nn.Module, train_set: Any, config: TrainConfig, fabric: "Fabric") -> TrainState:
    """The state before the first step."""
    if config.box_bias_slope is not None:
        start_with_small_boxes(model, config.box_bias_slope)
    model.load_report = LoadReport("a training", tuple(model.state_dict()), ())  # type: ignore[assignment]
    model.class_names = list(train_set.class_names)  # type: ignore[assignment]
    model.image_size = config.image_size  # type: ignore[assignment]
    model.to(fabric.device).eval()
    network = copy.deepcopy(model)
    if fabric.world_size > 1 and fabric.device.type == "cuda":  # on a processor each normalises its own images
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if config.channels_last:  # the copy alone: the caller's model keeps its layout
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = make_optimizer(network.train(), config.lr, config.weight_decay)
    return TrainState(model, network, optimizer, WeightAverage(model, network, config.ema_decay), History(), {})


def _batches_from(loader: Loader, position: int) -> Iterator[Batch]:
    """Batches without end, epoch after epoch, beginning with number `position` of the training."""
    epoch, start = divmod(position, len(loader))
    while True:
        yield from loader.batches(epoch, start)
        epoch, start = epoch + 1, 0


def with_teacher(
    compute_loss: Callable[[RawPredictions, Batch], LossParts],
    teacher: nn.Module,
    config: DistillConfig,
    fabric: "Fabric",
) -> Callable[[RawPredictions, Batch], DistilledParts]:
    """The loss and what a teacher adds to it, which is asked once per batch, about the same augmented images.

    The teacher is a copy, fused and in eval mode.
    """
    fused, normalizer = reparameterize(teacher).to(fabric.device), shared_normalizer(fabric)

    def compute(raw: RawPredictions, batch: Batch) -> DistilledParts:
        parts = compute_loss(raw, batch)
        with torch.no_grad(), fabric.autocast():
            wanted = fused(batch.images)
        added = distillation_losses(raw, wanted, config, normalizer)
        return DistilledParts(parts.total + sum(added), *parts[1:], *added)

    return compute


def _evaluate(
    state: TrainState, val_set: Any, config: TrainConfig, fabric: "Fabric", report: Report, hooks: Hooks
) -> None:
    """AP of the averaged weights, on the first process; the others wait for it."""
    report.flush()
    if fabric.is_global_zero:
        size, batch_size = config.image_size, config.batch_size
        metrics = evaluate(state.model, val_set, image_size=size, batch_size=batch_size, progress=False)
        report.evaluation(state.step, metrics)
        if hooks.on_evaluation is not None:
            hooks.on_evaluation(state, metrics)
    fabric.barrier()


def _check(model: nn.Module, train_set: Any, val_set: Any | None, teacher: nn.Module | None) -> None:
    """Raise ValueError for data without objects, and for other classes somewhere."""
    k = len(train_set.class_names)
    if getattr(model, "num_classes", k) != k:
        raise ValueError(
            f"The model predicts {model.num_classes} classes, but train_set has {k}: give num_classes={k}."
        )
    if val_set is not None:
        check_same_classes(train_set.class_names, "train_set", val_set.class_names, "val_set")
    if teacher is not None:
        check_teacher(teacher, train_set.class_names, "train_set")
    cheap = hasattr(train_set, "annotations")  # without reading the image
    if all((train_set.annotations(i)[2] if cheap else train_set[i].crowd).all() for i in range(len(train_set))):
        raise ValueError(f"No image of train_set ({len(train_set)}) has an object: check the annotation file.")
