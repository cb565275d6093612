"""The last line of a model error: which model it was, and what to do next."""

from __future__ import annotations

from onnx_rerank_integrations.core.model import registry


def near_names(model: str) -> str:
    """`` Did you mean ...?`` with names of the registry, empty where none is near. Goes at the end of a sentence."""
    near = registry.similar_names(model)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def how_to_name(model: str) -> str:
    """For a name that stands for nothing."""
    return (
        f"To load {model!r}, give a supported name (`onnx-rerank models` lists them), any hub id with ONNX files "
        "(org/name), or a folder with an .onnx file and tokenizer.json."
    )


def ways_on(model: str) -> str:
    """For a model that isn't here and can't be fetched."""
    return (
        f"To load {model!r}: run `onnx-rerank download {model}` on a machine with network and copy its cache here, "
        'or give a folder with the files, or use model="embedded", which needs no download.'
    )


def how_to_mend(model: str) -> str:
    """For a file that is broken."""
    return f"To load {model!r}, replace the file; one from the hub with `onnx-rerank download {model} --force`."


def how_to_log_in(model: str) -> str:
    """For a repository that asks for a token."""
    return (
        f"To load {model!r}, log in with a token that may read it "
        "(`hf auth login`, or the environment variable HF_TOKEN)."
    )
