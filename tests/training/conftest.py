"""Each test of a training: one thread, no progress bars, and a few scenes that are drawn once."""

import matplotlib
import pytest
import torch
from tiny_training import tiny_model, tiny_scenes

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def one_thread_without_bars(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "1")


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    return tiny_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def train_set(sets):
    return sets[0]


@pytest.fixture
def model():
    return tiny_model(6)
