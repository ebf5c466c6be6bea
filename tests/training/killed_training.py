"""What test_kill.py runs in processes of its own: a training that may be told to hang at a chosen place."""

import os
import threading
import time

import lightning_fabric  # noqa: F401  (what fit imports when it needs it: loaded once, before processes are forked)
import pycocotools.cocoeval  # noqa: F401
import torch
from tiny_training import tiny_config, tiny_model, tiny_scenes
from tqdm import tqdm

from yolonas_lab import common as files
from yolonas_lab.training import Hooks, fit

STEPS = 60


def train(folder, out_dir, place, ready):
    """Train to the end, or tell the pipe `ready` and hang at `place`; with place None it is told after each step."""
    os.environ["YOLONAS_LAB_STATIC"] = "1"
    tqdm.set_lock(threading.RLock())  # its own would be a semaphore that a killed process leaves behind
    torch.set_num_threads(1)
    train_set, val_set = tiny_scenes(folder)
    config = tiny_config(
        steps=STEPS, accumulate=2, evaluate_every=10, checkpoint_every=4, out_dir=out_dir, batch_size=4
    )

    def hang(*_):
        ready.send(True)
        time.sleep(1000)

    def half_a_checkpoint(content, file):
        if place != "in the middle of a checkpoint":
            return whole_checkpoint(content, file)
        file.write(b"half a checkpoint" * 10_000)
        file.flush()
        hang()

    whole_checkpoint, torch.save = torch.save, half_a_checkpoint
    if place == "before a checkpoint gets its name":
        files.os = _Replacing(hang)
    elif place == "after a checkpoint got its name":
        files._sync_folder = hang
    on_step = (lambda _: ready.send(True)) if place is None else None
    fit(tiny_model(len(train_set.class_names)), train_set, val_set, config, Hooks(on_step=on_step))


class _Replacing:
    """The module os, with another `replace`."""

    def __init__(self, replace):
        self.replace = replace

    def __getattr__(self, name):
        return getattr(os, name)
