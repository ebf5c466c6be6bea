"""Runs a claim on hardly any images and steps, as the harness does."""

import json
from typing import Any

import torch

from yolonas_lab.experiments import find_claim
from yolonas_lab.experiments.harness import Numbers, run_seed


def shrink(monkeypatch: Any, settings: dict[str, Any], **few: Any) -> None:
    """Change entries of a claim's settings for one test."""
    for name, value in few.items():
        monkeypatch.setitem(settings, name, value)


def arms_of(name: str, tmp_path: Any, budget: float = 1.0, seed: int = 0) -> Numbers:
    """The numbers of one seed; ValueError for a comparison or metric that has none."""
    torch.set_num_threads(1)
    run_seed(find_claim(name), seed, budget, tmp_path / "seed.json")
    return json.loads((tmp_path / "seed.json").read_text())["arms"]
