"""The shared core: one library, one folder; docs/architecture.md draws it.

Modules that were moved are still found here by their old names.
"""

from importlib import import_module
from types import ModuleType

_MOVED = {
    "cache": "score_cache",
    "files": "model.files",
    "hub": "model.hub",
    "registry": "model.registry",
    "session": "engine.onnxruntime",
    "tokenization": "tokens.pairs",
}


def __getattr__(name: str) -> ModuleType:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{_MOVED[name]}")
