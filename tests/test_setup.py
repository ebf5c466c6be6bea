"""The set-up files say the same: pyproject.toml, constraints.txt, environment.yml, the Makefile and the README."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
CONDA_NAMES = {"pytorch": "torch"}  # conda-forge's name -> the package index's name
SELF = "yolonas-lab"


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements_by_name(lines: list[str]) -> dict[str, Requirement]:
    """Parse requirement lines, refusing a name that appears twice."""
    parsed = [Requirement(line) for line in lines]
    names = [canonicalize_name(requirement.name) for requirement in parsed]
    assert len(set(names)) == len(names), f"a name appears twice: {sorted(names)}"
    return dict(zip(names, parsed))


def all_requirements(project: dict) -> dict[str, Requirement]:
    """Core and every extra of pyproject.toml, without the project's own name (an extra that includes another)."""
    lines = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        lines += [line for line in extra if canonicalize_name(Requirement(line).name) != SELF]
    return requirements_by_name(lines)


def environment_lines() -> tuple[list[str], list[str]]:
    """The conda lines and the pip lines of environment.yml."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    conda = [entry for entry in entries if isinstance(entry, str)]
    [pip_section] = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    return conda, pip_section


def constraint_pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = requirements_by_name([line for line in lines if line.strip() and not line.startswith("#")])
    versions = {}
    for name, requirement in pins.items():
        [specifier] = requirement.specifier
        assert specifier.operator == "==", f"constraints.txt must pin {name} with =="
        versions[name] = Version(specifier.version)
    return versions


def makefile_rule(target: str) -> str:
    """The recipe lines of one Makefile target."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    match = re.search(rf"^{re.escape(target)}:.*\n((?:\t.*\n)*)", text, flags=re.MULTILINE)
    assert match, f"the Makefile has no target {target}"
    return match.group(1)


def test_environment_has_exactly_the_packages_of_pyproject_with_the_same_bounds():
    conda, pip_section = environment_lines()
    assert "-e ." in pip_section, "the environment must install the library itself"
    tools = {"python", "pip"}
    lines = [line for line in [*conda, *pip_section] if line != "-e ." and Requirement(line).name not in tools]
    environment = requirements_by_name([re.sub(r"^[\w-]+", lambda m: CONDA_NAMES.get(m[0], m[0]), x) for x in lines])
    wanted = all_requirements(pyproject()["project"])
    assert environment.keys() == wanted.keys()
    for name, requirement in wanted.items():
        assert environment[name].specifier == requirement.specifier, f"bounds of {name} differ"
        assert str(environment[name].marker) == str(requirement.marker), f"markers of {name} differ"


def test_environment_python_lies_within_requires_python():
    conda, _ = environment_lines()
    [python] = [Requirement(line).specifier for line in conda if Requirement(line).name == "python"]
    required = SpecifierSet(pyproject()["project"]["requires-python"])
    allowed = [f"3.{minor}" for minor in range(8, 20) if python.contains(f"3.{minor}")]
    assert "3.11" in allowed
    assert all(required.contains(version) for version in allowed)


def test_tensorrt_comes_with_pip_and_only_on_linux_x86_64():
    conda, pip_section = environment_lines()
    assert not any(line.startswith("tensorrt") for line in conda)
    [tensorrt] = [Requirement(line) for line in pip_section if re.match(r"tensorrt\b(?!-)", line)]
    assert tensorrt.specifier.contains("10.12.0") and not tensorrt.specifier.contains("8.6.1")
    assert tensorrt.marker is not None
    for system, machine, expected in [
        ("linux", "x86_64", True),
        ("linux", "aarch64", False),
        ("darwin", "arm64", False),
        ("win32", "AMD64", False),
    ]:
        assert tensorrt.marker.evaluate({"sys_platform": system, "platform_machine": machine}) is expected


def test_make_path_stays_light():
    core = requirements_by_name(pyproject()["project"]["dependencies"])
    heavy = {"tensorrt", "tensorrt-rtx", "openvino", "torchvision", "opencv-python", "nbgrader"}
    assert not heavy & core.keys()


def test_constraints_pin_every_core_and_test_dependency_within_the_bounds():
    project = pyproject()["project"]
    pins = constraint_pins()
    everything = all_requirements(project)
    extras = project["optional-dependencies"]
    must_be_pinned = requirements_by_name(
        project["dependencies"] + [line for line in extras["test"] + extras["dev"] if SELF not in line]
    )
    assert must_be_pinned.keys() <= pins.keys()
    for name, version in pins.items():
        assert name in everything, f"constraints.txt pins {name}, which pyproject.toml does not name"
        assert everything[name].specifier.contains(version), f"{name} {version} is outside {everything[name].specifier}"


def test_every_package_the_library_imports_is_declared():
    """Follow the import statements of the package, also those inside functions."""
    declared = all_requirements(pyproject()["project"]).keys()
    owners = packages_distributions()
    for path in sorted((ROOT / "yolonas_lab").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            for top in {module.split(".")[0] for module in modules}:
                if top in sys.stdlib_module_names or top == "yolonas_lab":
                    continue
                distributions = owners.get(top, [top])  # an optional package may be absent: its import name then
                found = {canonicalize_name(name) for name in distributions} & declared
                assert found, f"{path.relative_to(ROOT)} imports {top}, which pyproject.toml does not declare"


def test_second_make_has_nothing_to_do(tmp_path):
    """With a stamp newer than pyproject.toml and constraints.txt, plain `make` installs nothing."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    command = ["make", "--no-print-directory", "-n", f"VENV={venv}"]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "pip install" in first
    (venv / ".installed-core").touch()
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "pip install" not in second and "make lab" in second


def test_old_python_is_refused_in_one_sentence(tmp_path):
    old = tmp_path / "python3.9"  # this Python, made to believe that it is an old one
    pretend = "import sys; sys.version_info = (3, 9, 6)"
    old.write_text(f"""#!/bin/sh
[ "$1" = -V ] && echo "Python 3.9.6" && exit 0
exec {sys.executable} -c "{pretend}; $2"
""")
    old.chmod(0o755)
    command = ["make", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0
    assert "Python 3.11 or newer is needed" in result.stdout and "Python 3.9.6" in result.stdout
    assert not (tmp_path / "venv").exists()


def test_missing_python_is_refused_in_one_sentence(tmp_path):
    command = ["make", "PYTHON=no-such-python", f"VENV={tmp_path / 'venv'}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0
    assert "No 'no-such-python' found" in result.stdout


TARGETS = "lab run test test-all proof notebooks bench weights student lint clean".split()


@pytest.mark.parametrize("target", TARGETS)
def test_makefile_target_is_phony_and_in_the_help(target):
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert phony and target in phony.group(1).split()
    assert f"make {target} " in makefile_rule("help")


def test_readme_names_only_make_targets_and_files_that_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z][a-z-]*)\b", "\n".join(re.findall(r"`([^`\n]+)`", readme)))):
        makefile_rule(target)
    links = re.findall(r"\]\((?!https?://|#)([^)\s]+)\)", readme) + re.findall(r'src="(?!https?://)([^"]+)"', readme)
    assert links
    for link in links:
        assert (ROOT / link).exists(), f"README.md refers to {link}, which does not exist"


def test_ci_runs_make_test_and_is_executable():
    script = ROOT / ".ci" / "run"
    assert re.search(r"^make .*\btest\b", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
