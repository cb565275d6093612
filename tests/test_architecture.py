"""The laws of docs/architecture.md, held by reading every import of the package."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Literal

import pytest

import onnx_rerank_integrations

MOST_ROOMS = 16
"""Modules and folders directly in core."""

NAME = onnx_rerank_integrations.__name__
ROOT = Path(onnx_rerank_integrations.__file__).parent

LEAVES = ("types", "errors", "checks", "batching", "scoring", "onnx_format")
DOORS = ("langchain", "llama_index", "haystack")
SHARED_BY_DOORS = ("door", "remote")

EVERYWHERE = ("numpy", "typing_extensions", "tqdm", "filelock")
PLACES: dict[str, tuple[str, ...]] = {
    "huggingface_hub": ("core.model",),
    "tokenizers": ("core.tokens",),
    "jinja2": ("core.tokens",),
    "onnxruntime": ("core.engine",),
    "openvino": ("core.engine",),
    "onnx": ("core.graphs", "extras.quantize", "extras.export"),
    "pydantic": ("door", *DOORS, "extras.server"),
    "langchain_core": ("langchain",),
    "llama_index": ("llama_index",),
    "haystack": ("haystack",),
    "typer": ("extras.cli",),
    "rich": ("extras.cli",),
    "matplotlib": ("extras.plot", "extras.evaluate"),
    "pypdf": ("extras.document_files",),
    "docx": ("extras.document_files",),
    "ir_measures": ("extras.evaluate",),
    "bm25s": ("extras.evaluate",),
    "Stemmer": ("extras.evaluate",),
    "fastapi": ("extras.server", "extras.cli.serve"),
    "starlette": ("extras.server",),
    "pydantic_core": ("door", *DOORS, "extras.server"),
    "uvicorn": ("extras.server", "extras.cli.serve"),
    "prometheus_client": ("extras.server", "extras.cli.serve"),
    "ray": ("extras.ray",),
    "pyspark": ("extras.spark",),
    "pandas": ("extras.ray", "extras.spark"),
    "pyarrow": ("extras.ray", "extras.spark", "extras.batch"),
    "torch": ("extras.export",),
    "transformers": ("extras.export",),
}
"""Where each third-party library may be imported: a module, or a folder with all that is in it."""

ALWAYS_THERE = (*EVERYWHERE, "huggingface_hub", "tokenizers", "onnxruntime")
"""What is installed without any extra; all other libraries are optional."""


@dataclass(frozen=True)
class Import:
    """One import statement's target.

    Attributes:
        importer: The module, without the package's name: ``core.base``; ``""`` for the package itself.
        target: A module of ours, named alike, or a library's first name.
        ours: Which of both.
        at: In the module, inside a function, or for type checkers only.
    """

    importer: str
    target: str
    ours: bool
    at: Literal["module", "function", "types"]

    def __str__(self) -> str:
        return f"{self.importer or NAME} -> {self.target or NAME}" + (f" ({self.at})" if self.at != "module" else "")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports_of(name: str) -> Iterator[Import]:
    def walk(node: ast.AST, at: Literal["module", "function", "types"]) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield one(alias.name, at)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name} imports relatively"
                for alias in child.names:
                    inner = f"{child.module}.{alias.name}"
                    is_module = inner.removeprefix(f"{NAME}.") in MODULES
                    yield one(inner if is_module else str(child.module), at)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from walk(child, "function")
            elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                yield from walk(child, "types")
            else:
                yield from walk(child, at)

    def one(target: str, at: Literal["module", "function", "types"]) -> Import:
        if target == NAME or target.startswith(f"{NAME}."):
            return Import(name, target.removeprefix(NAME).removeprefix("."), True, at)
        return Import(name, target.partition(".")[0], False, at)

    return walk(ast.parse(MODULES[name].read_text(encoding="utf-8")), "module")


IMPORTS = sorted({found for name in MODULES for found in imports_of(name)}, key=str)
OURS = [one for one in IMPORTS if one.ours]


def is_in(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def broken(imports: Iterable[Import]) -> list[str]:
    return [str(one) for one in imports]


def test_the_core_imports_the_core_only() -> None:
    assert broken(one for one in OURS if is_in(one.importer, "core") and not is_in(one.target, "core")) == []


def test_the_package_itself_imports_the_core_only() -> None:
    at_once = [one for one in OURS if one.importer == "" and one.at != "types"]

    assert broken(one for one in at_once if not is_in(one.target, "core")) == []


def test_the_doors_import_the_core_and_what_they_share_and_nobody_imports_them() -> None:
    doors = [one for one in OURS if one.importer in (*DOORS, *SHARED_BY_DOORS)]

    assert broken(one for one in doors if not is_in(one.target, "core") and one.target not in SHARED_BY_DOORS) == []
    assert broken(one for one in OURS if one.target in DOORS) == []
    assert (
        broken(
            one
            for one in OURS
            if one.target in SHARED_BY_DOORS and one.at != "types" and one.importer not in (*DOORS, *SHARED_BY_DOORS)
        )
        == []
    )


def test_leaves_import_only_types_and_errors() -> None:
    leaves = [f"core.{name}" for name in LEAVES]

    assert set(leaves) <= MODULES.keys()
    assert (
        broken(one for one in OURS if one.importer in leaves and one.target not in ("core.types", "core.errors")) == []
    )


def test_each_library_is_imported_in_its_own_place() -> None:
    libraries = [one for one in IMPORTS if not one.ours and one.target not in sys.stdlib_module_names]

    assert {one.target for one in libraries} <= {*EVERYWHERE, *PLACES}, "say in PLACES where the library belongs"
    assert (
        broken(
            one
            for one in libraries
            if one.target in PLACES and not any(is_in(one.importer, place) for place in PLACES[one.target])
        )
        == []
    )


def room(module: str) -> str:
    """core.model.files -> core.model; langchain -> langchain."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("of", [str, room], ids=["modules", "rooms"])
def test_there_is_no_circle(of: type[str]) -> None:
    # A module finds itself where it is a folder's own __init__, and every module the package's.
    arrows = {(of(one.importer), of(one.target)) for one in OURS if one.target}
    graph = TopologicalSorter[str]()
    for importer, target in arrows:
        if importer != target:
            graph.add(importer, target)

    try:
        graph.prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def needs_an_option(module: str, seen: frozenset[str] = frozenset()) -> bool:
    """Whether importing the module imports an optional library."""
    mine = [one for one in IMPORTS if one.importer == module and one.at == "module"]
    if any(
        not one.ours and one.target not in ALWAYS_THERE and one.target not in sys.stdlib_module_names for one in mine
    ):
        return True
    return any(one.ours and one.target not in seen and needs_an_option(one.target, seen | {module}) for one in mine)


def test_a_module_of_ours_is_imported_inside_a_function_only_where_it_needs_an_optional_library() -> None:
    late = [one for one in OURS if one.at == "function"]

    assert broken(one for one in late if not needs_an_option(one.target)) == []


def test_the_core_has_no_more_rooms_than_one_can_keep_in_mind() -> None:
    rooms = {name.split(".")[1] for name in MODULES if is_in(name, "core") and name != "core"}

    assert len(rooms) <= MOST_ROOMS, sorted(rooms)
