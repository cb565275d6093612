"""`.ci/run` says what its steps say: its own end adds no failure and hides none."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = (ROOT / ".ci" / "run").read_text()

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script of bash")


@cache
def steps() -> tuple[str, ...]:
    listed = subprocess.run(["bash", ROOT / ".ci" / "run", "--help"], capture_output=True, text=True, check=True)
    return tuple(listed.stdout.split())


def run(folder: Path, **bodies: str) -> "subprocess.CompletedProcess[str]":
    """Runs the script with each step replaced by one line, or by the body given."""
    assert bodies.keys() <= set(steps())
    stand_ins = "".join(f"{step}() {{ {bodies.get(step, f'echo ran {step}')}; }}\n" for step in steps())
    functions, ending = SCRIPT.split("case ${1:-} in", 1)
    script = folder / ".ci" / "run"
    script.parent.mkdir()
    script.write_text(f"{functions}make() {{ :; }}\n{stand_ins}case ${{1:-}} in{ending}")
    return subprocess.run(["bash", script], capture_output=True, text=True, timeout=250, check=False)


def test_all_green_is_green_and_prints_every_step(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(steps()) > 5
    for step in steps():
        assert f"ran {step}\n" in done.stdout


@pytest.mark.parametrize("step", ["tests", "parity", "scale", "server"])
def test_one_red_step_is_red(tmp_path: Path, step: str) -> None:
    done = run(tmp_path, **{step: f"echo broke {step}; false"})
    assert done.returncode != 0
    assert f"broke {step}\n" in done.stdout
    assert "== done" not in done.stdout


def test_the_workflows_run_every_step() -> None:
    workflow = (ROOT / ".github" / "workflows" / "checks.yml").read_text(encoding="utf-8")
    [matrix] = re.findall(r"step: \[(.*)\]", workflow)

    assert ("tests", *matrix.split(", ")) == steps()


def test_every_step_is_a_function_of_the_script() -> None:
    assert set(steps()) <= set(re.findall(r"^(\w+)\(\) \{$", SCRIPT, re.M))


def test_windows_installs_what_make_test_does() -> None:
    """It has no make."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "checks.yml").read_text(encoding="utf-8")
    [extras] = re.findall(r"-e '\.\[(.*)\]' --group test", makefile)

    assert f'-e ".[{extras}]" --group test' in workflow
