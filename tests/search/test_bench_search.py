"""How good the latency model is on networks that it has not seen; that multiply-accumulates are not milliseconds."""

import time

import numpy as np
import pytest
import torch

from yolonas_lab.search import (
    LAB_SPACE,
    error_report,
    latency_model,
    most_unequal_pair,
    sample,
    spread_sample,
    time_networks,
)

pytestmark = pytest.mark.bench


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "onnxruntime int8"])
def test_error_of_the_latency_model(engine):
    torch.set_num_threads(1)
    start = time.perf_counter()
    model = latency_model(LAB_SPACE, 64, engine, num_classes=6)
    print(f"\nmeasured and fitted in {time.perf_counter() - start:.0f} s")
    print(f"ms = {model.base_ms:.2f} + {model.scale:.2f} · operations + {model.weights_ms:.2f} · million weights")
    held_out = time_networks(spread_sample(LAB_SPACE, 24, np.random.default_rng(1)), 64, engine, num_classes=6)
    print(error_report(model, held_out))
    fewer, more = most_unequal_pair(held_out)
    for network in (fewer, more):
        print(f"  {network.macs / 1e6:.2f} M multiply-accumulates, {network.ms:.2f} ms")


def test_time_of_a_prediction():
    torch.set_num_threads(1)
    model = latency_model(LAB_SPACE, 64, num_classes=6, networks=3)
    configs = [sample(LAB_SPACE, np.random.default_rng(i)) for i in range(500)]
    start = time.process_time()
    for config in configs:
        model.predict(config)
    print(f"\n{(time.process_time() - start) / len(configs) * 1e6:.0f} µs for a prediction")
