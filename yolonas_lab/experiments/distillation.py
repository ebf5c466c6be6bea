"""Claims about distillation: a teacher adds AP at equal steps, and its lesson is worth the time that it takes.

Notebook 08. Announced for YOLO-NAS, never released. The student is a pico that starts alike in every arm. "nano" and
"pico" are the shipped teachers, trained on other scenes for much longer; "early" is a nano that learned from the
student's own scenes and was stopped early. On boxes: Zheng et al., "Localization Distillation", arXiv 2102.12252; on
its time: Beyer et al., "A good teacher is patient and consistent", arXiv 2106.05237.
"""

import time
from typing import NamedTuple

from yolonas_lab.data import CocoDataset
from yolonas_lab.experiments import scenes
from yolonas_lab.experiments.harness import Claim, Numbers
from yolonas_lab.losses import DistillConfig
from yolonas_lab.models import CONFIGS, YoloNAS, get
from yolonas_lab.training import TrainConfig, fit

SHIPPED = {"pico": "yolo_nas_pico", "nano": "yolo_nas_nano"}
TEACHERS = {  # what decides the student and its teachers, in the settings of both claims
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
    "recipe": scenes.RECIPE,
}
METRICS = ("ap", "ap50", "cpu_seconds")  # the last one: of the student's training, 0 for a teacher


def teacher(name: str, seed: int, budget: float = 1.0) -> YoloNAS:
    """The "pico", "nano" or "early" teacher; the last one is trained with this seed and budget times its steps."""
    if name in SHIPPED:
        return get(SHIPPED[name], pretrained_weights="scenes")
    s = TEACHERS
    train_set = scenes.dataset(s, "train")
    keys = ("early_teacher", "image_size", "train_images", "data_seed", "difficulty", "recipe")
    how, decisive = scenes.recipe(seed, budget * s["early_steps"]), {key: s[key] for key in keys}
    return scenes.trained_once(CONFIGS[s["early_teacher"]], train_set, how, "teachers", decisive, "")[0].eval()


def learn(
    train_set: CocoDataset,
    config: TrainConfig,
    from_teacher: YoloNAS | None = None,
    class_weight: float = 0.0,
    dfl_weight: float = 0.0,
) -> dict[str, float]:
    """AP of the student, trained alone or with a teacher, and the processor time that its training took."""
    student = scenes.network(CONFIGS[TEACHERS["student"]], len(train_set.class_names), config.seed)
    settings = None
    if from_teacher is not None:
        t, gamma = TEACHERS["temperature"], TEACHERS["gamma"]
        settings = DistillConfig(class_weight=class_weight, dfl_weight=dfl_weight, temperature=t, gamma=gamma)
    began = time.process_time()
    fit(student, train_set, None, config, teacher=from_teacher, distillation=settings)
    seconds = time.process_time() - began
    return _measured(student) | {"cpu_seconds": seconds}


def _measured(model: YoloNAS) -> dict[str, float]:
    return scenes.measured(model, scenes.dataset(TEACHERS, "val")) | {"cpu_seconds": 0.0}


class Lesson(NamedTuple):
    """Whom the student listens to, to what ("class", "dfl" or "both"), and how much that weighs."""

    teacher: str
    part: str
    weight: float

    @property
    def arm(self) -> str:
        return f"{self.teacher} {self.part} {self.weight:g}"


LESSONS = (
    Lesson("early", "both", 3),
    Lesson("pico", "both", 3),
    Lesson("nano", "both", 1),
    Lesson("nano", "both", 3),
    Lesson("nano", "both", 10),
    Lesson("nano", "class", 3),
    Lesson("nano", "dfl", 3),
)


def run_distillation(seed: int, budget: float = 1.0) -> Numbers:
    """AP of the teachers ("teacher nano", …), of the student alone and after each lesson ("nano both 3", …)."""
    train_set = scenes.dataset(TEACHERS, "train")
    config = scenes.recipe(seed, budget * TEACHERS["steps"])
    models = {name: teacher(name, seed, budget) for name in ("early", "pico", "nano")}
    numbers = {f"teacher {name}": _measured(model) for name, model in models.items()}
    numbers["alone"] = learn(train_set, config)
    for lesson in LESSONS:
        weights = (lesson.weight if lesson.part in (part, "both") else 0.0 for part in ("class", "dfl"))
        numbers[lesson.arm] = learn(train_set, config, models[lesson.teacher], *weights)
    return numbers


LABELS = (200, 2000)
EQUAL_COMPUTE = {
    "teachers": TEACHERS,
    "labels": LABELS,  # images with labels: the first ones in an order of the seed
    "weight": 3.0,  # of both parts
    "step_ratio": 1.25,  # a step with the nano as teacher takes as long as so many steps alone
    "early_steps_alone": 550,  # the early teacher's training takes as long as so many steps of the student
}


def run_equal_compute(seed: int, budget: float = 1.0) -> Numbers:
    """AP and processor time of the student with the nano as teacher ("taught 200") and alone for as long ("alone 200").

    With all labels also taught by the early teacher, which first needs a training of its own: "long" is the time of
    both trainings.
    """
    s = EQUAL_COMPUTE
    taught, ratio = budget * TEACHERS["steps"], s["step_ratio"]
    alone = taught * ratio
    long = alone + budget * s["early_steps_alone"]
    nano, early = teacher("nano", seed), teacher("early", seed, budget)

    def after(labels: int, steps: float, from_teacher: YoloNAS | None = None) -> dict[str, float]:
        return learn(labeled(labels, seed), scenes.recipe(seed, steps), from_teacher, s["weight"], s["weight"])

    numbers = {}
    for labels in LABELS:
        numbers[f"alone {labels}"] = after(labels, alone)
        numbers[f"taught {labels}"] = after(labels, taught, nano)
    numbers["taught by early"] = after(LABELS[-1], taught, early)
    numbers["alone long"] = after(LABELS[-1], long)
    numbers["taught long"] = after(LABELS[-1], long / ratio, nano)
    return numbers


def labeled(images: int, seed: int) -> CocoDataset:
    """The images with labels: the first ones in an order of the seed."""
    train_set = scenes.dataset(TEACHERS, "train")
    return train_set.subset(scenes.shuffled(train_set, seed)[:images])


CLAIMS = (
    Claim(
        name="distillation",
        question=(
            "How much AP does a teacher add to a student's training of the same steps, and what does that depend on?"
        ),
        settings={"teachers": TEACHERS, "lessons": LESSONS},
        metrics=METRICS,
        comparisons=(
            *((lesson.arm, "alone") for lesson in LESSONS),
            ("nano both 3", "nano class 3"),
            ("nano both 3", "nano dfl 3"),
            ("nano both 3", "pico both 3"),
            ("nano both 3", "early both 3"),
        ),
        run=run_distillation,
        data_digest=lambda: scenes.scenes_digest(TEACHERS),
    ),
    Claim(
        name="equal_compute",
        question="Does a teacher add AP at equal processor time, when the student alone gets more steps instead?",
        settings=EQUAL_COMPUTE,
        metrics=METRICS,
        comparisons=(
            *((f"taught {labels}", f"alone {labels}") for labels in LABELS),
            ("taught long", "alone long"),
            ("taught by early", f"alone {LABELS[-1]}"),
            ("taught by early", "alone long"),
        ),
        run=run_equal_compute,
        data_digest=lambda: scenes.scenes_digest(TEACHERS),
    ),
)
