"""``onnx-rerank version``."""

from __future__ import annotations

import platform
from importlib.metadata import version as installed

import typer

from onnx_rerank_integrations import __version__


def version() -> None:
    """Show the version, and those of what it stands on."""
    typer.echo(
        f"onnx-rerank-integrations {__version__} (onnxruntime {installed('onnxruntime')}, "
        f"tokenizers {installed('tokenizers')}, Python {platform.python_version()}, {platform.platform()})"
    )


def print_version(asked: bool) -> None:
    """``onnx-rerank --version``."""
    if asked:
        typer.echo(f"onnx-rerank-integrations {__version__}")
        raise typer.Exit
