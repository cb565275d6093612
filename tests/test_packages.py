"""The thin packages re-export the doors under the names people search for, in the version of the main package.

The tests of their own run in `.ci/packages`, from their wheels in empty environments.
"""

from __future__ import annotations

import email
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import onnx_rerank_integrations

ROOT = Path(__file__).parent.parent
PACKAGES = sorted((ROOT / "packages").iterdir())
MODULES = {
    "langchain-onnx-rerank": "langchain_onnx_rerank",
    "llama-index-postprocessor-onnx-rerank": "llama_index/postprocessor/onnx_rerank",
}


def project(package: Path) -> dict[str, Any]:
    return tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))


def test_they_are_two() -> None:
    assert [package.name for package in PACKAGES] == sorted(MODULES)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_each_needs_the_main_package_of_its_own_series(package: Path) -> None:
    major, minor = onnx_rerank_integrations.__version__.split(".")[:2]
    [needed] = project(package)["project"]["dependencies"]

    assert needed.endswith(f">={major}.{minor},<{major}.{int(minor) + 1}")


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_each_wheel_holds_its_module_and_has_the_version_of_the_main_package(package: Path, tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling isn't installed")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=package, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = {name for name in archive.namelist() if ".dist-info/" not in name}
    [metadata_name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(archive.read(metadata_name))
    module = MODULES[package.name]

    assert names == {f"{module}/__init__.py", f"{module}/py.typed"}
    assert metadata["Version"] == onnx_rerank_integrations.__version__
    assert list(map(Requirement, metadata.get_all("Requires-Dist", []))) == list(
        map(Requirement, project(package)["project"]["dependencies"])
    )
    assert (package / "LICENSE").read_text(encoding="utf-8") == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_hub_of_llama_index_finds_the_class() -> None:
    hub = project(ROOT / "packages" / "llama-index-postprocessor-onnx-rerank")["tool"]["llamahub"]

    assert hub["import_path"].replace(".", "/") == MODULES["llama-index-postprocessor-onnx-rerank"]
    assert list(hub["class_authors"]) == ["OnnxRerank"]
