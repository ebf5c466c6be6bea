import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search.small_supernet import SHARED
from yolonas_lab.search import LAB_SPACE, sample
from yolonas_lab.search.evolve import Candidate, Frontier, load_frontier, pareto_front

FEW = st.integers(0, 5).map(float)  # so few values that there are ties


def frontier(pairs, space=SHARED):
    rng = np.random.default_rng(0)
    return Frontier(space.name, tuple(Candidate(sample(space, rng), ap, ms) for ap, ms in pairs))


PAIRS = [(0.3, 2.0), (0.5, 4.0), (0.4, 5.0), (0.6, 7.0), (0.2, 2.5)]


def test_a_frontier_by_hand():
    assert pareto_front(PAIRS) == [0, 1, 3]
    assert [(point.ap, point.ms) for point in frontier(PAIRS).points] == [(0.3, 2.0), (0.5, 4.0), (0.6, 7.0)]
    assert pareto_front([]) == [] and pareto_front([(0.1, 1.0), (0.1, 1.0)]) == [0]


@given(st.lists(st.tuples(FEW, FEW), max_size=12))
def test_the_frontier_against_brute_force(points):
    def beaten(i):
        ap, ms = points[i]
        better = any(a >= ap and m <= ms and (a > ap or m < ms) for a, m in points)
        return better or points[i] in points[:i]

    front = pareto_front(points)
    assert sorted(front) == [i for i in range(len(points)) if not beaten(i)]
    assert [points[i] for i in front] == sorted(points[i] for i in front)


def test_the_best_under_a_budget():
    found = frontier(PAIRS)
    assert [found.best(ms).ap for ms in (2.0, 3.99, 4.0, 6.9, 100.0)] == [0.3, 0.3, 0.5, 0.5, 0.6]
    assert found.best(4.0).config == found.candidates[1].config


def test_an_impossible_budget_names_the_fastest():
    with pytest.raises(ValueError, match=r"No network fits under 1\.9 ms; the fastest there is takes 2 ms\."):
        frontier(PAIRS).best(1.9)
    with pytest.raises(ValueError, match=r"No network fits under nan ms"):
        frontier(PAIRS).best(float("nan"))
    with pytest.raises(ValueError, match=r"No network fits under 5 ms\.$"):
        frontier([]).best(5)


def test_the_hypervolume_by_hand():
    assert frontier(PAIRS).hypervolume(10) == pytest.approx(0.3 * 2 + 0.5 * 3 + 0.6 * 3)
    assert frontier(PAIRS).hypervolume(6) == pytest.approx(0.3 * 2 + 0.5 * 2)
    assert frontier(PAIRS).hypervolume(2) == frontier([]).hypervolume(9) == 0


@given(st.lists(st.tuples(FEW, FEW), max_size=8), st.tuples(FEW, FEW))
def test_the_hypervolume_against_a_grid_and_never_smaller_for_one_more_network(points, another):
    def best(ms):
        return max((ap for ap, m in points if m <= ms), default=0.0)

    cells = np.arange(0.125, 6, 0.25)
    assert frontier(points).hypervolume(6) == pytest.approx(sum(best(ms) * 0.25 for ms in cells))
    assert frontier([*points, another]).hypervolume(6) >= frontier(points).hypervolume(6)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        pareto_front([(0.5, 1.0), (float("nan"), 1.0)])


def test_it_comes_back_from_its_file(tmp_path):
    found = frontier(PAIRS)
    path = found.save(tmp_path / "frontier.json")
    assert load_frontier(path, SHARED) == found
    assert [p.name for p in tmp_path.iterdir()] == ["frontier.json"]


def test_other_files_are_refused_by_name(tmp_path):
    path = frontier(PAIRS).save(tmp_path / "frontier.json")
    with pytest.raises(ValueError, match=r"frontier.json is a frontier of the space shared, not of lab"):
        load_frontier(path, LAB_SPACE)
    content = json.loads(path.read_text())
    content["candidates"][0]["choices"]["stem_channels"] = 9
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"frontier.json holds a network that is not in shared: stem_channels is 9"):
        load_frontier(path, SHARED)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"frontier.json is not a frontier"):
        load_frontier(path, SHARED)
    with pytest.raises(FileNotFoundError):
        load_frontier(tmp_path / "none.json", SHARED)


def test_the_plot_shows_every_network_and_the_stairs():
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    assert frontier(PAIRS).plot(ax, label="searched") is ax
    (cloud,), (line,) = ax.collections, ax.get_lines()
    assert np.shape(cloud.get_offsets()) == (5, 2) and np.array_equal(line.get_ydata(), [0.3, 0.5, 0.6])
    assert line.get_label() == "searched" and ax.get_xlabel() == "latency in ms"
    plt.close(figure)
