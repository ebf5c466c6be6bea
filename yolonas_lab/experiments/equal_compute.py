"""Claim: a teacher's lesson is worth the time it takes; a student alone could spend that time on more steps.

Notebook 08. With many and with few labels; where the teacher must first be trained, its training counts too. Beyer et
al., "Knowledge distillation: a good teacher is patient and consistent", arXiv 2106.05237, on how long it takes.
"""

from yolonas_lab.data import CocoDataset
from yolonas_lab.experiments import teachers
from yolonas_lab.experiments.claim import Numbers
from yolonas_lab.models import YoloNAS

QUESTION = "Does a teacher add AP at equal processor time, when the student alone gets more steps instead?"
LABELS = (200, 2000)
SETTINGS = {
    "teachers": teachers.SETTINGS,
    "labels": LABELS,  # images with labels: the first ones in an order of the seed
    "weight": 3.0,  # of both parts
    "step_ratio": 1.25,  # a step with the nano as teacher takes as long as so many steps alone
    "early_steps_alone": 550,  # the early teacher's training takes as long as so many steps of the student
}
METRICS = teachers.METRICS
COMPARISONS = (
    *((f"taught {labels}", f"alone {labels}") for labels in LABELS),
    ("taught long", "alone long"),
    ("taught by early", f"alone {LABELS[-1]}"),
    ("taught by early", "alone long"),
)


def run(seed: int, budget: float = 1.0) -> Numbers:
    """AP and processor time of the student with the nano as teacher ("taught 200") and alone for as long ("alone 200").

    With all labels also taught by the early teacher, which first needs a training of its own: "long" is the time of
    both trainings.
    """
    s = SETTINGS
    taught, ratio = budget * teachers.SETTINGS["steps"], s["step_ratio"]
    alone = taught * ratio
    long = alone + budget * s["early_steps_alone"]
    nano, early = teachers.teacher("nano", seed), teachers.teacher("early", seed, budget)
    numbers = {}
    for labels in LABELS:
        images = teachers.labeled(labels, seed)
        numbers[f"alone {labels}"] = _learn(images, seed, alone)
        numbers[f"taught {labels}"] = _learn(images, seed, taught, nano)
    images = teachers.labeled(LABELS[-1], seed)
    numbers["taught by early"] = _learn(images, seed, taught, early)
    numbers["alone long"] = _learn(images, seed, long)
    numbers["taught long"] = _learn(images, seed, long / ratio, nano)
    return numbers


def _learn(images: CocoDataset, seed: int, steps: float, teacher: YoloNAS | None = None) -> dict[str, float]:
    weight = SETTINGS["weight"]
    return teachers.learn(images, teachers.recipe(seed, steps), teacher, weight, weight)


def data_digest() -> str:
    """Fingerprint of the scenes."""
    return teachers.scenes_digest()
