"""The wheel holds the package and nothing else, and says truly what it needs."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import onnx_rerank_integrations

ROOT = Path(__file__).parent.parent
SIZE_LIMIT = 25_000_000
"""Bytes; the embedded model is nearly all of them."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling isn't installed")
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    [path] = out.glob("*.whl")
    return path


def test_it_holds_the_package_and_its_licence_and_nothing_else(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "onnx_rerank_integrations"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    licences = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if "/licenses/" in name}

    assert names == set(tracked.stdout.split())
    assert "onnx_rerank_integrations/py.typed" in names
    assert {f"onnx_rerank_integrations/models/{model}/MODEL_CARD.md" for model in ("embedded", "lexical")} <= names
    assert licences == {"LICENSE", "NOTICE"}


def test_it_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < SIZE_LIMIT


def test_its_metadata_has_one_version_four_dependencies_and_the_extras(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(archive.read(name))
    always = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]

    assert metadata["Version"] == onnx_rerank_integrations.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert {line.split(">")[0].strip() for line in always} == {
        "huggingface-hub",
        "numpy",
        "onnxruntime",
        "tokenizers",
    }
    assert {
        "langchain",
        "llama-index",
        "haystack",
        "cli",
        "evaluate",
        "files",
        "plot",
        "optimize",
        "openvino",
        "export",
        "notebooks",
    } <= set(metadata.get_all("Provides-Extra", []))


def test_the_changelog_has_a_line_for_what_is_to_be_released() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert "## Unreleased" in text or f"## {onnx_rerank_integrations.__version__}" in text


def test_the_changelog_has_the_sections_of_keep_a_changelog_each_once_per_release() -> None:
    _, *releases = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")
    known = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]

    for release in releases:
        title, *sections = re.findall(r"^(?:### )?(.+)$", re.sub(r"^- .*$", "", release, flags=re.M), re.M)
        assert title == "Unreleased" or re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", title)
        assert [one for one in known if one in sections] == [one for one in sections if one in known]
        assert len(re.findall(r"^### ", release, re.M)) == len(set(sections) & set(known))
