"""Every error this package raises, in one tree.

    RerankError
    ├── InputTypeError (TypeError)             an argument or a document of the wrong type
    ├── InputValueError (ValueError)           an argument out of range
    ├── ModelError
    │   ├── UnknownModelError (ValueError)     a name that is no supported model, hub id or folder
    │   ├── ModelNotFoundError (FileNotFoundError)   files that are missing, not cached, or can't be fetched
    │   ├── InvalidModelError (ValueError)     files that are there but broken, or don't match their checksum
    │   └── UnsupportedModelError (ValueError) a sound model this package can't score with as asked
    ├── ProviderError (RuntimeError)           an execution provider that was asked for and isn't active
    ├── ScoreError (ValueError)                no score: NaN, infinity, the wrong number, or a library that fails
    │   └── OutOfMemoryError (MemoryError)     a pair that the device has no memory for
    ├── RerankTimeoutError (TimeoutError)      a call that took longer than its `timeout`
    ├── RemoteError (ConnectionError)          a server that can't be reached, or that answers something else
    ├── WorkerError (RuntimeError)             workers of a batch job that died, again and again
    └── MissingExtraError (ImportError)        an optional dependency that isn't installed

Each is also the builtin named beside it, so code that catches ``ValueError`` or ``FileNotFoundError`` keeps working.
"""

from __future__ import annotations


class RerankError(Exception):
    """Base of every error raised by this package."""


class InputTypeError(RerankError, TypeError):
    """An argument, a query or a document has the wrong type."""


class InputValueError(RerankError, ValueError):
    """An argument has the right type and a value that can't be used."""


class ModelError(RerankError):
    """A model can't be found, fetched, read or used."""


class UnknownModelError(ModelError, ValueError):
    """The name is no supported model, no hub id and no folder."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """Files of the model are missing here and can't be fetched."""


class InvalidModelError(ModelError, ValueError):
    """A file of the model is there but empty, truncated, of another kind, or fails its checksum."""


class UnsupportedModelError(ModelError, ValueError):
    """The model loads, but doesn't give a relevance score in the way that was asked for."""


class ProviderError(RerankError, RuntimeError):
    """An execution provider was asked for and isn't available or didn't start."""


class ScoreError(RerankError, ValueError):
    """The model returned NaN, infinity, or a number of scores that differs from the number of pairs; or the library
    that tokenizes or computes failed on these texts."""


class OutOfMemoryError(ScoreError, MemoryError):
    """A batch doesn't fit into the memory of the device that computes it, not even alone."""


class RerankTimeoutError(RerankError, TimeoutError):
    """The call took longer than its ``timeout``: nothing was ranked, and nothing of it goes on."""


class RemoteError(RerankError, ConnectionError):
    """A reranking server can't be reached, refuses, is overloaded, or answers something else than scores."""


class WorkerError(RerankError, RuntimeError):
    """A block of a batch job wasn't scored, since its workers died again and again."""


class MissingExtraError(RerankError, ImportError):
    """An optional dependency is missing; the message holds the pip command that adds it."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f'{purpose} needs an optional dependency: pip install "onnx-rerank-integrations[{extra}]"')


def printable(text: str) -> str:
    """What somebody else said, without the characters that would work on the terminal that shows it."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)
