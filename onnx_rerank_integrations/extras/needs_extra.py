"""How an optional dependency that isn't installed becomes an error that says what to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onnx_rerank_integrations.core.errors import MissingExtraError


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Around the imports of an extra's own libraries.

    Args:
        extra: The pip extra that brings them.
        purpose: What needs them, as the subject of the message.

    Raises:
        MissingExtraError: One of them isn't installed; the message holds the pip command.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("onnx_rerank_integrations"):  # a mistake of ours, not a missing extra
            raise
        raise MissingExtraError(purpose, extra) from error
