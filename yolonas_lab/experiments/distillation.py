"""Claim: a student learns more in the same number of steps when a teacher tells it scores and box distributions.

Notebook 08. Announced for YOLO-NAS, never released. By teacher, by part (classes; boxes, as in Zheng et al.,
"Localization Distillation", arXiv 2102.12252; both) and by weight, to see what the gain depends on.
"""

from typing import NamedTuple

from yolonas_lab.experiments import teachers
from yolonas_lab.experiments.claim import Numbers

QUESTION = "How much AP does a teacher add to a student's training of the same steps, and what does that depend on?"
TEACHERS = ("early", "pico", "nano")


class Lesson(NamedTuple):
    """Whom the student listens to, to what, and how much that weighs."""

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
SETTINGS = {"teachers": teachers.SETTINGS, "lessons": LESSONS}
METRICS = teachers.METRICS
COMPARISONS = (
    *((lesson.arm, "alone") for lesson in LESSONS),
    ("nano both 3", "nano class 3"),
    ("nano both 3", "nano dfl 3"),
    ("nano both 3", "pico both 3"),
    ("nano both 3", "early both 3"),
)


def run(seed: int, budget: float = 1.0) -> Numbers:
    """AP of the teachers ("teacher nano", …), of the student alone and after each lesson ("nano both 3", …)."""
    train_set, _ = teachers.scenes()
    config = teachers.recipe(seed, budget * teachers.SETTINGS["steps"])
    models = {name: teachers.teacher(name, seed, budget) for name in TEACHERS}
    numbers = {f"teacher {name}": teachers.measured(model) for name, model in models.items()}
    numbers["alone"] = teachers.learn(train_set, config)
    for lesson in LESSONS:
        weights = (lesson.weight if lesson.part in (part, "both") else 0.0 for part in ("class", "dfl"))
        numbers[lesson.arm] = teachers.learn(train_set, config, models[lesson.teacher], *weights)
    return numbers


def data_digest() -> str:
    """Fingerprint of the scenes."""
    return teachers.scenes_digest()
