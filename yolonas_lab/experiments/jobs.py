"""Several one-thread Python processes side by side, with one progress bar that shows how far each of them is.

At lab size two processes of one thread do more than one process of two threads.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolonas_lab.common import progress_bar

_POLL = 0.2  # seconds between two looks at the processes
_BAR = re.compile(r"([\w ]+): +(\d+)%")  # tqdm's "training:  34%|███▍"
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
_SHOW_BARS = {"YOLONAS_LAB_STATIC": "0", "TQDM_MININTERVAL": "1"}  # in the log, where how_far looks for them


@dataclass(frozen=True)
class Job:
    """One Python process: its name for people, what stands behind `python`, and the file for what it says."""

    name: str
    arguments: tuple[str, ...]
    log: Path


def run_jobs(
    jobs: Sequence[Job], processes: int, description: str, on_done: Callable[[Job], object] | None = None
) -> None:
    """Run all jobs, `processes` at a time, in order; on_done is called after each.

    Raises RuntimeError naming the first job that failed, with the last line of its log; the others are stopped then,
    as they are when this process is interrupted or dies. Raises ValueError for less than one process.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}: give at least 1.")
    waiting, running, shown = list(jobs), {}, ""
    with progress_bar(len(jobs), description, "job") as bar:
        try:
            while waiting or running:
                while waiting and len(running) < processes:
                    job = waiting.pop(0)
                    running[job] = _start(job)
                time.sleep(_POLL)
                for job in [job for job, process in running.items() if process.poll() is not None]:
                    code = running.pop(job).returncode
                    if code != 0:
                        raise RuntimeError(f"{job.name} failed ({_reason(job, code)}): all it said is in {job.log}.")
                    bar.update()
                    if on_done is not None:
                        on_done(job)
                state = ", ".join(f"{job.name} {how_far(job.log)}".strip() for job in running)
                bar.set_postfix_str(state, refresh=state != shown)
                shown = state
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()


def stop_with_parent() -> None:
    """Call in a job's process: it then ends when the process that started it is gone, even by SIGKILL.

    That process holds the other end of standard input, which closes with it.
    """

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def how_far(log: Path) -> str:
    """What the last progress bar in a log shows, such as "training 34 %"; "" where there is none."""
    try:
        found = _BAR.findall(log.read_bytes()[-4096:].decode(errors="replace"))
    except FileNotFoundError:
        return ""
    return f"{found[-1][0].strip()} {found[-1][1]} %" if found else ""


def _start(job: Job) -> subprocess.Popen:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    command, environment = [sys.executable, "-u", *job.arguments], {**os.environ, **_ONE_THREAD, **_SHOW_BARS}
    with open(job.log, "wb") as log:
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)


def _reason(job: Job, code: int) -> str:
    lines = [line.strip() for line in re.split(r"[\r\n]", job.log.read_text(errors="replace"))]
    lines = [line for line in lines if line and not _BAR.match(line)]
    return lines[-1] if lines else f"exit code {code}"
