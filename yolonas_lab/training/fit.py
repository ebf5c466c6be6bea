"""Training: the loop that turns images and boxes into a detector. Notebook 06 reads it line by line.

The recipe is that of YOLO-NAS (super-gradients, `coco2017_yolo_nas_s`): AdamW, warm-up and cosine, moving average of
the weights. Lightning Fabric supplies devices, precision and several processes; everything else is here.
"""

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from yolonas_lab.data.loader import Loader
from yolonas_lab.data.targets import Batch
from yolonas_lab.evaluate import CocoMetrics, evaluate
from yolonas_lab.losses import DetectionLoss, LossParts
from yolonas_lab.losses.distillation import DistillConfig
from yolonas_lab.models.checkpoint import LoadReport
from yolonas_lab.models.heads import RawPredictions
from yolonas_lab.training.config import TrainConfig
from yolonas_lab.training.distill import teacher_identity, with_teacher
from yolonas_lab.training.ema import WeightAverage
from yolonas_lab.training.hardware import settle
from yolonas_lab.training.history import History
from yolonas_lab.training.inputs import check_distillation, check_inputs
from yolonas_lab.training.optimizer import make_optimizer, start_with_small_boxes
from yolonas_lab.training.plan import Plan
from yolonas_lab.training.processes import SharedNormalizer, connect, with_shared_statistics
from yolonas_lab.training.report import Report
from yolonas_lab.training.state import TrainState, identity, restore, save

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ComputeLoss = Callable[[RawPredictions, Batch], Any]


def fit(
    model: nn.Module,
    train_set: Any,
    val_set: Any | None,
    config: TrainConfig,
    compute_loss: ComputeLoss | None = None,
    on_step: Callable[[TrainState], object] | None = None,
    on_evaluation: Callable[[TrainState, CocoMetrics], object] | None = None,
    on_start: Callable[[TrainState], object] | None = None,
    teacher: nn.Module | None = None,
    distillation: DistillConfig | None = None,
) -> History:
    """Train a copy of `model`, while `model` itself follows as the moving average of the copy's weights.

    `model` is put in eval mode on the training's device and takes over train_set.class_names and config.image_size; it
    stays usable when training is interrupted. Without val_set no AP is measured. Where config.out_dir holds a
    checkpoint of the same training, it goes on from there; one that was finished is only loaded. `compute_loss`
    replaces the YOLO-NAS loss: RawPredictions and Batch -> NamedTuple of scalars, `total` among them. `on_start` is
    called before the first step, also that of a training that goes on, `on_step` after every step, `on_evaluation`
    after every evaluation. A `teacher` adds to the YOLO-NAS loss how far the model is from what it says about each
    batch; it stays as it is, and `distillation` (default: DistillConfig()) says how much it counts.
    Raises ValueError for data that does not fit the model, for a teacher with other classes or bins and for an
    accelerator that is not there, FloatingPointError when the loss explodes, OSError when a file cannot be written; the
    last checkpoint is intact then.
    """
    check_inputs(model, train_set, val_set)
    distillation = check_distillation(model, train_set, teacher, distillation, compute_loss)
    config = settle(config, model)
    fabric = connect(config)
    loader = Loader(
        train_set, config.batch_size, config.image_size, config.augmentation, config.seed, workers=config.workers,
        rank=fabric.global_rank, world_size=fabric.world_size, cache=config.cache,
    )  # fmt: skip
    plan = Plan(config, len(loader))
    state = _start(model, train_set, config, fabric)
    if teacher is not None:
        state.identity |= teacher_identity(teacher, distillation)
    network, optimizer = fabric.setup(state.network, state.optimizer)
    if config.out_dir is not None:
        restore(state, config.out_dir)
    compute_loss = compute_loss or _yolo_nas_loss(len(train_set.class_names), fabric)
    if teacher is not None:
        compute_loss = with_teacher(compute_loss, teacher, distillation, fabric)
    batches = _batches_from(loader, state.step * config.accumulate)
    state.total_steps = plan.steps
    if on_start is not None:
        on_start(state)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format

    with Report(state.history, config, fabric, plan) as report:
        while state.step < plan.steps:
            lr = plan.learning_rate(state.step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            losses, image_ids = [], []
            for last in [False] * (config.accumulate - 1) + [True]:
                batch = next(batches)
                images = batch.images.to(fabric.device, memory_format=layout, non_blocking=True)
                batch = batch._replace(images=images)
                with fabric.no_backward_sync(network, enabled=not last):
                    loss = compute_loss(network(batch.images), batch)
                    fabric.backward(loss.total / config.accumulate)
                losses.append(loss)
                image_ids += batch.image_ids
            report.step(state.step + 1, lr, losses, image_ids)  # raises where a loss is not finite
            if config.grad_clip is not None:
                fabric.clip_gradients(network, optimizer, max_norm=config.grad_clip, error_if_nonfinite=False)
            optimizer.step()
            optimizer.zero_grad()
            state.step += 1
            state.average.update(state.step)
            if on_step is not None:
                on_step(state)
            if val_set is not None and plan.evaluates_after(state.step):
                _evaluate(state, val_set, config, fabric, report, on_evaluation)
            if config.out_dir is not None and plan.saves_after(state.step):
                report.look()  # what is saved must be known to be finite
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
    network = with_shared_statistics(copy.deepcopy(model), fabric).train()
    if config.channels_last:  # the copy alone: the caller's model keeps its layout
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return TrainState(
        model=model,
        network=network,
        optimizer=make_optimizer(network, config.lr, config.weight_decay),
        average=WeightAverage(model, network, config.ema_decay),
        history=History(),
        identity=identity(model, train_set, config, fabric.world_size),
    )


def _yolo_nas_loss(num_classes: int, fabric: "Fabric") -> Callable[[RawPredictions, Batch], LossParts]:
    """The loss of YOLO-NAS, which with several processes is that of the whole batch."""
    loss = DetectionLoss(num_classes, normalizer=SharedNormalizer(fabric) if fabric.world_size > 1 else None)
    return lambda raw, batch: loss(raw, batch.targets)


def _batches_from(loader: Loader, position: int) -> Iterator[Batch]:
    """Batches without end, epoch after epoch, beginning with number `position` of the training."""
    epoch, start = divmod(position, len(loader))
    while True:
        yield from loader.batches(epoch, start)
        epoch, start = epoch + 1, 0


def _evaluate(
    state: TrainState,
    val_set: Any,
    config: TrainConfig,
    fabric: "Fabric",
    report: Report,
    on_evaluation: Callable[[TrainState, CocoMetrics], object] | None,
) -> None:
    """AP of the averaged weights, on the first process; the others wait for it."""
    report.look()
    if fabric.is_global_zero:
        size, batch_size = config.image_size, config.batch_size
        metrics = evaluate(state.model, val_set, image_size=size, batch_size=batch_size, progress=False)
        report.evaluation(state.step, metrics)
        if on_evaluation is not None:
            on_evaluation(state, metrics)
    fabric.barrier()
