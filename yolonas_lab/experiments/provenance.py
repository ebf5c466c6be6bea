"""Where a number comes from: the revision of the code that made it."""

import subprocess
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def git_revision() -> str | None:
    """The git commit of this code, with "+changes" where a Python file of the package differs from it; None where it
    does not come from a git repository.
    """
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--", "*.py")
    return f"{commit}+changes" if changed else commit


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", *arguments], cwd=PACKAGE, capture_output=True, text=True)
    except OSError:  # no git on this machine
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
