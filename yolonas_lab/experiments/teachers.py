"""The student of the distillation claims, a pico that starts alike in every arm, and the teachers it listens to.

"nano" and "pico" are the shipped models, trained on other scenes for much longer than the student is. "early" is a nano
that learned from the student's own scenes, with the student's seed, and was stopped early; it is kept in the cache
folder, so that both claims share it.
"""

import dataclasses
import time

import torch

from yolonas_lab.data import CocoDataset, digest
from yolonas_lab.evaluate import evaluate
from yolonas_lab.experiments.claim import plain, settings_digest
from yolonas_lab.experiments.scenes import cache_folder, datasets, draw, shuffled
from yolonas_lab.losses import DistillConfig
from yolonas_lab.models import CONFIGS, YoloNAS, get
from yolonas_lab.training import LAB, TrainConfig, fit

SHIPPED = {"pico": "yolo_nas_pico", "nano": "yolo_nas_nano"}
SETTINGS = {
    "student": "yolo_nas_pico",
    "shipped_teachers": SHIPPED,
    "early_teacher": "yolo_nas_nano",
    "early_steps": 400,
    "steps": 400,
    "image_size": 64,  # px
    "train_images": 2000,
    "val_images": 500,
    "data_seed": 3,  # the shipped teachers have not seen these scenes
    "difficulty": 0.5,
    "temperature": DistillConfig().temperature,
    "gamma": DistillConfig().gamma,
    "recipe": dataclasses.replace(LAB, steps=1).decisive(),  # steps and seed are set in each run
}
"""What decides the student and its teachers; each claim's SETTINGS holds it as "teachers"."""
METRICS = ("ap", "ap50", "cpu_seconds")  # the last one: of the student's training, 0 for a teacher


def scenes() -> tuple[CocoDataset, CocoDataset]:
    """Training and validation images, drawn if they are not there yet."""
    s = SETTINGS
    return datasets(draw(s["train_images"], s["val_images"], s["image_size"], s["difficulty"], s["data_seed"]))


def scenes_digest() -> str:
    """Fingerprint of the scenes; draws them if they are not there yet."""
    s = SETTINGS
    return digest(draw(s["train_images"], s["val_images"], s["image_size"], s["difficulty"], s["data_seed"]).folder)


def labeled(images: int, seed: int) -> CocoDataset:
    """The images with labels: the first ones in an order of the seed."""
    train_set, _ = scenes()
    return train_set.subset(shuffled(train_set, seed)[:images])


def teacher(name: str, seed: int, budget: float = 1.0) -> YoloNAS:
    """The "pico", "nano" or "early" teacher; the last one is trained with this seed and budget times its steps."""
    if name in SHIPPED:
        return get(SHIPPED[name], pretrained_weights="scenes")
    train_set, _ = scenes()
    config = recipe(seed, budget * SETTINGS["early_steps"])
    decisive = ("early_teacher", "image_size", "train_images", "data_seed", "difficulty", "recipe")
    mark = settings_digest(plain({key: SETTINGS[key] for key in decisive} | {"torch": torch.__version__}))
    folder = cache_folder() / f"teachers-{mark}" / f"seed-{seed}-steps-{config.steps}"
    torch.manual_seed(seed)
    model = YoloNAS(CONFIGS[SETTINGS["early_teacher"]], len(train_set.class_names))
    fit(model, train_set, None, dataclasses.replace(config, out_dir=folder))  # one that was finished is only loaded
    return model.eval()


def learn(
    train_set: CocoDataset,
    config: TrainConfig,
    from_teacher: YoloNAS | None = None,
    class_weight: float = 0.0,
    dfl_weight: float = 0.0,
) -> dict[str, float]:
    """AP of the student, trained alone or with a teacher, and the processor time that its training took."""
    torch.manual_seed(config.seed)
    student = YoloNAS(CONFIGS[SETTINGS["student"]], len(train_set.class_names))
    settings = None
    if from_teacher is not None:
        t, gamma = SETTINGS["temperature"], SETTINGS["gamma"]
        settings = DistillConfig(class_weight=class_weight, dfl_weight=dfl_weight, temperature=t, gamma=gamma)
    began = time.process_time()
    fit(student, train_set, None, config, teacher=from_teacher, distillation=settings)
    seconds = time.process_time() - began
    return measured(student) | {"cpu_seconds": seconds}


def measured(model: YoloNAS) -> dict[str, float]:
    """AP and AP50 on the validation images."""
    _, val_set = scenes()
    found = evaluate(model, val_set, image_size=SETTINGS["image_size"], batch_size=50, progress=False)
    return {"ap": found.ap, "ap50": found.ap50, "cpu_seconds": 0.0}


def recipe(seed: int, steps: float) -> TrainConfig:
    """How the student and the early teacher are trained."""
    return dataclasses.replace(
        LAB, steps=max(1, round(steps)), seed=seed, image_size=SETTINGS["image_size"], evaluate_every=None
    )
