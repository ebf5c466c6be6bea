"""The timetable: how many steps, which learning rate, when to evaluate and to save."""

import pytest
from tiny_training import tiny_config

from yolonas_lab.training.optim import Plan, warmup_cosine


def plan(batches=10, **changes):
    return Plan(tiny_config(**{"steps": None, "epochs": 3.0, "evaluate_every": 1.0, **changes}), batches)


def happens(asked, steps):
    return [step for step in range(1, steps + 1) if asked(step)]


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 30),
        ({"accumulate": 4}, 8),  # 30 batches in groups of 4: 7.5
        ({"epochs": 0.25}, 2),
        ({"epochs": 0.001}, 1),
        ({"epochs": None, "steps": 17}, 17),
    ],
)
def test_epochs_and_steps(changes, steps):
    assert plan(**changes).steps == steps


def test_evaluations_are_after_whole_epochs_and_at_the_end():
    assert happens(plan(epochs=2.5).evaluates_after, 25) == [10, 20, 25]
    assert happens(plan(evaluate_every=0.5).evaluates_after, 30) == [5, 10, 15, 20, 25, 30]
    assert happens(plan(batches=3, accumulate=2, epochs=4.0).evaluates_after, 6) == [2, 3, 5, 6]  # 1.5 steps an epoch
    assert happens(plan(evaluate_every=2.0).evaluates_after, 30) == [20, 30]
    assert happens(plan(evaluate_every=None).evaluates_after, 30) == [30]


def test_it_saves_now_and_then_and_whenever_it_evaluates():
    assert happens(plan(checkpoint_every=7).saves_after, 30) == [7, 10, 14, 20, 21, 28, 30]


def test_the_learning_rate_is_the_schedules_and_warm_up_may_be_counted_in_epochs():
    by_steps = plan(warmup_steps=20, lr=0.01, final_lr_ratio=0.2)
    by_epochs = plan(warmup_steps=3, warmup_epochs=2.0, lr=0.01, final_lr_ratio=0.2)
    expected = [warmup_cosine(step, 30, 0.01, 20, 1e-6, 0.2) for step in range(30)]
    assert [by_steps.learning_rate(step) for step in range(30)] == expected
    assert [by_epochs.learning_rate(step) for step in range(30)] == expected
    assert by_steps.learning_rate(20) == 0.01
