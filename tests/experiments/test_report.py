import dataclasses

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest

from yolonas_lab.experiments import Result, load_result, plot, save_result, table


def made_up(seeds=3):
    arms = {
        seed: {
            "plain": {"ap": 0.40 + 0.01 * seed, "ap75": 0.5},
            "dfl": {"ap": 0.42 + 0.02 * seed, "ap75": 0.45 + 0.05 * seed},
        }
        for seed in range(seeds)
    }
    return Result(
        claim="made_up", question="Is it so?", command="python -m …", git_revisions=("abc",), data_digest="d",
        machine="this one", torch_version="2", settings={"a": 1}, settings_digest="s", budget=1.0,
        metrics=("ap", "ap75"), comparisons=(("dfl", "plain"),), arms=arms, seconds=dict.fromkeys(arms, 1.0),
    )  # fmt: skip


def test_the_table_has_means_spreads_and_intervals():
    lines = table(made_up()).splitlines()
    assert lines[0] == "Is it so?" and lines[1] == "made_up: 3 seeds; this one"
    [dfl] = [line for line in lines if line.startswith("dfl  ")]
    assert "0.440 ± 0.020" in dfl and "0.500 ± 0.050" in dfl
    [difference] = [line for line in lines if line.startswith("dfl − plain")]
    assert "+0.030 [" in difference and "+0.000 [" in difference


def test_a_single_seed_has_no_spread_and_no_interval(tmp_path):
    one = made_up(seeds=1)
    assert "±" not in table(one).split("standard deviation")[1] and "nan" not in table(one)
    assert load_result("made_up", save_result(one, tmp_path).parent) == one  # JSON knows no NaN


def test_the_plot_draws_every_seed_the_mean_and_the_interval():
    result = made_up()
    _, ax = plt.subplots()
    assert plot(result, ax) is ax
    dots, interval, mean = ax.get_lines()[:3]
    assert np.asarray(dots.get_xdata()).tolist() == pytest.approx([0.02, 0.03, 0.04])
    difference = result.difference("dfl", "plain", "ap")
    assert np.asarray(interval.get_xdata()).tolist() == [difference.low, difference.high]
    assert np.asarray(mean.get_xdata()).tolist() == [difference.mean]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dfl − plain"]
    assert "AP75" in plot(result, metric="ap75").get_xlabel()
    plt.close("all")


def test_unknown_arms_and_metrics_are_named():
    with pytest.raises(ValueError, match="did you mean 'plain'"):
        made_up().values("plane", "ap")
    with pytest.raises(ValueError, match="did you mean 'ap75'"):
        plot(made_up(), metric="ap_75")
    plt.close("all")


def test_results_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        made_up().claim = "other"  # type: ignore[misc]
