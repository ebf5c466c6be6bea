"""How good the latency model is on networks that it has not seen; that multiply-accumulates are not milliseconds."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from yolonas_lab.search import (
    LAB_SPACE,
    error_report,
    fit_latency,
    latency_model,
    measure_table,
    most_unequal_pair,
    sample,
    space_layers,
    spread_sample,
    time_networks,
)

pytestmark = pytest.mark.bench


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "onnxruntime int8"])
def test_error_of_the_latency_model(engine):
    """A third of the networks is fitted to, the others are held out; all are measured side by side, because in the next
    minute the machine can be some percent slower.
    """
    torch.set_num_threads(1)
    table = measure_table(space_layers(LAB_SPACE, 64, 6), 64, engine)
    configs = spread_sample(LAB_SPACE, 36, np.random.default_rng(1))
    measured = time_networks(configs, 64, engine, num_classes=6)
    fitted, held_out = (
        replace(measured, times=tuple(time for i, time in enumerate(measured) if (i % 3 == 1) == mine))
        for mine in (True, False)
    )
    model = fit_latency(table, fitted)
    print(f"\nms = {model.base_ms:.2f} + {model.scale:.2f} · operations + {model.weights_ms:.2f} · million weights")
    print(error_report(model, held_out))
    fewer, more = most_unequal_pair(measured)
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
