"""The harness, with the seeds run in this process; one test starts, kills and resumes real ones."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import toy_claim
from toy_claim import TOY

from yolonas_lab.experiments import __main__ as command_line
from yolonas_lab.experiments import harness, jobs, load_result, run_claim, save_result, settings_digest
from yolonas_lab.experiments.harness import run_seed, work_folder


@pytest.fixture(autouse=True)
def folder_of_the_toy(monkeypatch, tmp_path):
    monkeypatch.setenv("TOY_FOLDER", str(tmp_path))


@pytest.fixture
def in_this_process(monkeypatch):
    def run_jobs(jobs, processes, description, on_done):
        for job in jobs:
            assert job.arguments[:2] == ("-m", "yolonas_lab.experiments")
            assert command_line.main(list(job.arguments[2:])) == 0
            on_done(job)

    monkeypatch.setattr(harness, "run_jobs", run_jobs)
    monkeypatch.setattr(command_line, "stop_with_parent", lambda: None)


def starts(tmp_path) -> dict[int, int]:
    """How often the toy claim was run with each seed."""
    seeds = [int(path.name.split("_")[1]) for path in tmp_path.glob("start_*")]
    return {seed: seeds.count(seed) for seed in sorted(set(seeds))}


def test_seeds_become_a_result_that_reads_back_the_same(in_this_process, tmp_path):
    told = []
    result = run_claim(TOY, seeds=3, budget=0.5, work_dir=tmp_path / "w", on_seed=told.append)
    assert result.seeds == [0, 1, 2] and [content["seed"] for content in told] == [0, 1, 2]
    assert result.values("b", "ap") == [1.0, 2.1, 1.2] and result.values("a", "ap") == [0.0, 0.1, 0.2]
    assert result.difference("b", "a", "ap").values == pytest.approx((1, 2, 1))
    assert result.command == "python -m yolonas_lab.experiments run toy --seeds 3 --budget 0.5"
    assert result.settings == {"step": 2.0, "sizes": [1, 2]} and result.budget == 0.5 and result.data_digest == "toy"
    path = save_result(result, tmp_path)
    assert load_result("toy", tmp_path) == result
    path.write_text(path.read_text().replace('"metrics"', '"metric"'))
    with pytest.raises(ValueError, match=r"toy\.json is not the result of a claim"):
        load_result("toy", tmp_path)


def test_only_missing_seeds_and_other_settings_are_measured_again(in_this_process, monkeypatch, tmp_path):
    first = run_claim(TOY, seeds=2, work_dir=tmp_path / "w")
    more = run_claim(TOY, seeds=3, work_dir=tmp_path / "w")
    assert starts(tmp_path) == {0: 1, 1: 1, 2: 1} and more.arms[0] == first.arms[0]
    run_claim(TOY, seeds=1, budget=0.5, work_dir=tmp_path / "w")
    assert starts(tmp_path)[0] == 2
    path = work_folder(TOY, 1.0, tmp_path / "w") / "seed_1.json"
    whole = path.read_text()
    for spoilt in (whole[:40], json.dumps(json.loads(whole) | {"torch_version": "0.1"})):
        path.write_text(spoilt)
        run_claim(TOY, seeds=2, work_dir=tmp_path / "w")
    assert starts(tmp_path) == {0: 2, 1: 3, 2: 1}
    monkeypatch.setitem(toy_claim.SETTINGS, "step", 3.0)
    assert not work_folder(TOY, 1.0, tmp_path / "w").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_and_leaves_no_process_behind(monkeypatch, tmp_path):
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    monkeypatch.setenv("TOY_SLOW_FROM", "2")
    work = tmp_path / "w"
    script = "import sys, toy_claim, yolonas_lab as yl; yl.experiments.run_claim(toy_claim.TOY, 4, 2, 1, sys.argv[1])"
    process = subprocess.Popen([sys.executable, "-c", script, str(work)])
    folder = work_folder(TOY, 1.0, work)
    wait_until(lambda: (folder / "seed_1.json").exists() and {2, 3} <= starts(tmp_path).keys())
    process.send_signal(signal.SIGKILL)
    process.wait()
    children = [int(path.name.split("_")[2]) for path in tmp_path.glob("start_[23]_*")]
    assert len(children) == 2  # two processes at a time, both stopped in their long sleep
    wait_until(lambda: not any(alive(child) for child in children))
    assert sorted(path.name for path in folder.glob("*.json*")) == ["seed_0.json", "seed_1.json"]
    monkeypatch.setenv("TOY_FAILS", "2")
    monkeypatch.setenv("TOY_SLOW_FROM", "3")
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=r"seed 2 failed \(ValueError: no luck with seed 2\).*seed_2\.log"):
        run_claim(TOY, seeds=4, work_dir=work)
    assert time.monotonic() - began < 50  # seed 3, which takes 60 s, was stopped
    monkeypatch.delenv("TOY_FAILS")
    result = run_claim(TOY, seeds=3, work_dir=work)
    assert result.seeds == [0, 1, 2] and "1 thread used" in result.machine
    assert {path.read_text() for path in tmp_path.glob("start_*")} == {"1"}
    assert (starts(tmp_path)[0], starts(tmp_path)[1], starts(tmp_path)[2]) == (1, 1, 3)


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


def test_how_far_a_job_is_stands_in_its_log(tmp_path):
    log = tmp_path / "seed_0.log"
    assert jobs.how_far(log) == ""
    log.write_text("a warning\n\rtraining:   3%|▎  | 1/30\rtraining:  34%|███▍  | 10/30 [00:01]")
    assert jobs.how_far(log) == "training 34 %"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"comparisons": (("b", "c"),)}, "toy gave no numbers for c"),
        ({"metrics": ("ap", "ap75")}, "toy gave ap75 None for a"),
    ],
)
def test_incomplete_numbers_are_refused(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        run_seed(replace(TOY, **changed), 0, 1.0, tmp_path / "seed.json")
    assert not (tmp_path / "seed.json").exists()


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"seeds": 0}, "seeds is 0"), ({"seeds": True}, "seeds is True"), ({"processes": 0}, "processes is 0"),
     ({"budget": 0.0}, "budget is 0")],
)  # fmt: skip
def test_bad_arguments_are_refused(tmp_path, bad, message):
    with pytest.raises(ValueError, match=message):
        run_claim(TOY, work_dir=tmp_path, **bad)
    assert list(tmp_path.iterdir()) == []


def test_missing_results_are_named(tmp_path, capsys):
    with pytest.raises(ValueError, match="did you mean 'dfl_head'"):
        load_result("dflhead")
    with pytest.raises(FileNotFoundError, match="experiments run dfl_head"):
        load_result("dfl_head", tmp_path)
    assert command_line.main(["run", "dfl_heads"]) == 2
    assert "did you mean 'dfl_head'" in capsys.readouterr().err


def test_the_command_line_runs_and_reports(in_this_process, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command_line, "find_claim", lambda name, module=None: TOY)
    monkeypatch.setattr(command_line, "RESULTS_DIR", tmp_path / "package")
    work, plot = str(tmp_path / "w"), tmp_path / "toy.png"
    assert command_line.main(["run", "toy", "--seeds", "2", "--work-dir", work, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "seed 0: a ap 0.000, b ap 2.000" in out and "written to" in out
    assert command_line.main(["report", "toy", "--out", str(tmp_path), "--plot", str(plot)]) == 0
    assert "+2.500 [+2.000, +3.000]" in capsys.readouterr().out and plot.stat().st_size > 5000
    assert command_line.main(["run", "toy", "--seeds", "1", "--budget", "0.5", "--work-dir", work]) == 0
    assert (tmp_path / "w" / "toy.json").exists()  # a trial does not replace the package's numbers
    assert command_line.main(["run", "toy", "--seeds", "1", "--work-dir", work]) == 0
    assert (tmp_path / "package" / "toy.json").exists()


def test_settings_digests_follow_the_values_not_the_order():
    assert settings_digest({"a": 1, "b": [2]}) == settings_digest({"b": [2], "a": 1}) != settings_digest({"a": 2})
