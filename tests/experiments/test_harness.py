import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_claim

from yolonas_lab.experiments import CLAIMS, find_claim, load_result, run_claim, save_result
from yolonas_lab.experiments.__main__ import main
from yolonas_lab.experiments.claim import settings_digest
from yolonas_lab.experiments.harness import work_folder

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def children_find_the_toy_claim(monkeypatch, tmp_path):
    paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    monkeypatch.setenv("TOY_FOLDER", str(tmp_path))


def starts(tmp_path):
    """Seed -> (time, threads) of each time that the toy claim was run, one entry per process."""
    found: dict[int, list[tuple[float, str]]] = {}
    for path in tmp_path.glob("start_*"):
        began, threads = path.read_text().split()
        found.setdefault(int(path.name.split("_")[1]), []).append((float(began), threads))
    return found


def test_seeds_become_a_result_that_reads_back_the_same(tmp_path):
    told = []
    result = run_claim(toy_claim, seeds=3, processes=2, budget=0.5, work_dir=tmp_path / "w", on_seed=told.append)
    assert result.seeds == [0, 1, 2] and sorted(content["seed"] for content in told) == [0, 1, 2]
    assert result.values("b", "ap") == [1.0, 2.1, 1.2] and result.values("a", "ap") == [0.0, 0.1, 0.2]
    assert result.difference("b", "a", "ap").values == pytest.approx((1, 2, 1))
    assert result.command == "python -m yolonas_lab.experiments run toy_claim --seeds 3 --budget 0.5"
    assert result.settings == {"step": 2.0, "sizes": [1, 2]} and result.budget == 0.5
    assert "1 thread used" in result.machine and result.data_digest == "toy"
    assert {threads for runs in starts(tmp_path).values() for _, threads in runs} == {"1"}
    assert load_result("toy_claim", save_result(result, tmp_path).parent) == result


def test_two_processes_run_side_by_side_and_one_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_SECONDS", "1.5")
    for processes, together in ((2, True), (1, False)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        monkeypatch.setenv("TOY_FOLDER", str(folder))
        result = run_claim(toy_claim, seeds=2, processes=processes, work_dir=folder / "w")
        runs = starts(folder)
        ends = [runs[seed][0][0] + result.seconds[seed] for seed in (0, 1)]
        assert (runs[1][0][0] < ends[0] - 0.2) is together


def test_only_missing_seeds_and_other_settings_are_measured_again(tmp_path, monkeypatch):
    first = run_claim(toy_claim, seeds=2, work_dir=tmp_path / "w")
    more = run_claim(toy_claim, seeds=3, work_dir=tmp_path / "w")
    assert {seed: len(runs) for seed, runs in starts(tmp_path).items()} == {0: 1, 1: 1, 2: 1}
    assert more.arms[0] == first.arms[0]
    run_claim(toy_claim, seeds=1, budget=0.5, work_dir=tmp_path / "w")
    assert len(starts(tmp_path)[0]) == 2
    path = work_folder(toy_claim, 1.0, tmp_path / "w") / "seed_1.json"
    path.write_text(path.read_text()[:40])  # what a file system may leave after a power cut
    run_claim(toy_claim, seeds=2, work_dir=tmp_path / "w")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"torch_version": "0.1"}))
    run_claim(toy_claim, seeds=2, work_dir=tmp_path / "w")
    assert {seed: len(runs) for seed, runs in starts(tmp_path).items()} == {0: 2, 1: 3, 2: 1}
    other = dict(toy_claim.SETTINGS, step=3.0)
    monkeypatch.setattr(toy_claim, "SETTINGS", other)
    assert not work_folder(toy_claim, 1.0, tmp_path / "w").exists()


def test_a_killed_run_goes_on_and_leaves_no_process_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_SLOW_FROM", "2")
    arguments = [sys.executable, str(HERE / "killed_run.py"), str(tmp_path / "w"), "4", "2"]
    process = subprocess.Popen(arguments)
    folder = work_folder(toy_claim, 1.0, tmp_path / "w")
    wait_until(lambda: (folder / "seed_1.json").exists() and {2, 3} <= starts(tmp_path).keys())
    process.send_signal(signal.SIGKILL)
    process.wait()
    children = [int(path.name.split("_")[2]) for path in tmp_path.glob("start_[23]_*")]
    assert len(children) == 2
    wait_until(lambda: not any(alive(child) for child in children))
    assert sorted(path.name for path in folder.glob("*.json*")) == ["seed_0.json", "seed_1.json"]
    monkeypatch.delenv("TOY_SLOW_FROM")
    result = run_claim(toy_claim, seeds=4, work_dir=tmp_path / "w")
    assert result.seeds == [0, 1, 2, 3]
    assert {seed: len(runs) for seed, runs in starts(tmp_path).items()} == {0: 1, 1: 1, 2: 2, 3: 2}


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended but was not waited for (its parent is gone) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_seed_that_fails_is_named_with_its_reason_and_the_rest_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FAILS", "1")
    monkeypatch.setenv("TOY_SLOW_FROM", "2")
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=r"seed 1 failed \(ValueError: no luck with seed 1\).*seed_1\.log"):
        run_claim(toy_claim, seeds=3, processes=2, work_dir=tmp_path / "w")
    assert time.monotonic() - began < 50  # seed 2, which takes 60 s, was stopped
    assert (work_folder(toy_claim, 1.0, tmp_path / "w") / "seed_0.json").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"COMPARISONS": (("b", "c"),)}, "gave no numbers for c"),
        ({"METRICS": ("ap", "ap75")}, "gave ap75 None for a"),
    ],
)
def test_incomplete_numbers_are_refused(monkeypatch, changed, message):
    from yolonas_lab.experiments.measure import measure

    for name, value in changed.items():
        monkeypatch.setattr(toy_claim, name, value)
    with pytest.raises(ValueError, match=message):
        measure(toy_claim, seed=0, budget=1.0)


def test_wrong_arguments(tmp_path, capsys):
    with pytest.raises(ValueError, match="did you mean 'dfl_head'"):
        find_claim("dfl_heads")
    with pytest.raises(ValueError, match="did you mean 'dfl_head'"):
        load_result("dflhead")
    with pytest.raises(FileNotFoundError, match="experiments run dfl_head"):
        load_result("dfl_head", tmp_path)
    for seeds, processes, budget, message in [
        (0, 2, 1.0, "seeds"),
        (True, 2, 1.0, "seeds"),
        (5, 0, 1.0, "processes"),
        (5, 2, 0.0, "budget"),
    ]:
        with pytest.raises(ValueError, match=message):
            run_claim(toy_claim, seeds, processes, budget, work_dir=tmp_path)
    assert main(["run", "dfl_heads"]) == 2
    assert "did you mean 'dfl_head'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_runs_and_reports(tmp_path, monkeypatch, capsys):
    from yolonas_lab.experiments import __main__ as command_line

    monkeypatch.setattr(command_line, "find_claim", lambda name: toy_claim)
    work, plot = str(tmp_path / "w"), tmp_path / "toy.png"
    assert main(["run", "toy_claim", "--seeds", "2", "--work-dir", work, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "seed 0: a ap 0.000, b ap 2.000" in out and "written to" in out
    assert main(["report", "toy_claim", "--out", str(tmp_path), "--plot", str(plot)]) == 0
    assert "+2.500 [+2.000, +3.000]" in capsys.readouterr().out
    assert plot.stat().st_size > 5000


def test_a_trial_does_not_replace_the_package_s_numbers(tmp_path, monkeypatch):
    from yolonas_lab.experiments import __main__ as command_line

    monkeypatch.setattr(command_line, "find_claim", lambda name: toy_claim)
    monkeypatch.setattr(command_line, "RESULTS_DIR", tmp_path / "package")
    assert main(["run", "toy_claim", "--seeds", "1", "--budget", "0.5", "--work-dir", str(tmp_path / "w")]) == 0
    assert (tmp_path / "w" / "toy_claim.json").exists() and not (tmp_path / "package").exists()


def test_settings_digests_follow_the_values_not_the_order():
    assert settings_digest({"a": 1, "b": [2]}) == settings_digest({"b": [2], "a": 1})
    assert settings_digest({"a": 1}) != settings_digest({"a": 2})


def test_every_claim_is_complete():
    for name in CLAIMS:
        claim = find_claim(name)
        assert claim.QUESTION.endswith("?") and claim.METRICS and claim.COMPARISONS and callable(claim.run)
        json.dumps(claim.SETTINGS)
