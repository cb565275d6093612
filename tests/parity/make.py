"""Makes the parity fixtures: tiny models with random weights, their tokenizers, and the logits PyTorch gives.

    python -m tests.parity.make               # all of them
    python -m tests.parity.make bert roberta  # these

Needs torch, transformers and onnx. `build` is all a live check needs: it makes the very same PyTorch model again.
"""

from __future__ import annotations

import json
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from tests.parity.architectures import MAX_LENGTH, RECIPES
from tests.parity.fixtures import folder, session
from tests.parity.text import PAIRS

OPSET = 17
TOLERANCE = 1e-4


def build(name: str) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """Builds the fixture's PyTorch model and tokenizer from its committed files and its seed.

    The tokenizer is read, not trained again, so nothing hangs on how a trainer breaks its ties.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder(name))
    config = AutoConfig.from_pretrained(folder(name), attn_implementation="eager")
    recipe = RECIPES[name]
    model = recipe.model(config) if recipe.model else getattr(transformers, config.architectures[0])(config)
    _fill(model, recipe.seed)
    return model.eval(), tokenizer


def _fill(model: torch.nn.Module, seed: int) -> None:
    """Gives every weight a random value, large enough that each token, type and position shows in the score.

    Only `numpy.random.RandomState` promises the same numbers in every version.
    """
    normal = np.random.RandomState(seed).standard_normal
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            noise = normal(tuple(parameter.shape)).astype(np.float32)
            if parameter.ndim == 1:
                value = 0.3 * noise + (1.0 if name == "weight" else 0.0)
            elif isinstance(module, torch.nn.Embedding):
                value = noise
            else:
                value = 2.0 * noise / np.sqrt(parameter.shape[1])
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(np.asarray(value, dtype=np.float32)))


def encode(
    tokenizer: PreTrainedTokenizerBase, pairs: list[tuple[str, str]], max_length: int
) -> dict[str, torch.Tensor]:
    """Tokenizes as sentence-transformers does: two lists, longest first.

    Lists also for one pair: given ("query", "") alone, transformers takes the empty document for none at all.
    """
    queries, documents = zip(*pairs, strict=True)
    return dict(
        tokenizer(
            list(queries),
            list(documents),
            truncation="longest_first",
            max_length=max_length,
            padding=True,
            return_tensors="pt",
        )
    )


@torch.no_grad()
def score(name: str, pairs: list[tuple[str, str]]) -> list[list[float]]:
    """Gives PyTorch's logits, one pair at a time and so without padding."""
    model, tokenizer = build(name)
    return [model(**encode(tokenizer, [pair], MAX_LENGTH)).logits[0].tolist() for pair in pairs]


class _Logits(torch.nn.Module):
    """A model that takes its inputs in order and gives nothing but its logits, as an ONNX graph does."""

    def __init__(self, model: torch.nn.Module, inputs: list[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.inputs, tensors, strict=True))).logits


def export(name: str, path: Path) -> None:
    """Writes the ONNX graph: batch and sequence dynamic, as inputs what the tokenizer gives and the model uses."""
    model, tokenizer = build(name)
    example = _graph_inputs(name, encode(tokenizer, PAIRS[:2], MAX_LENGTH))
    inputs = list(example)
    axes = {key: {0: "batch_size", 1: "sequence_length"} for key in inputs} | {"logits": {0: "batch_size"}}
    with warnings.catch_warnings():
        # Traced, not torch.export: the new exporter starts at opset 18 and needs onnxscript.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Logits(model, inputs).eval(),
            tuple(example.values()),
            str(path),
            input_names=inputs,
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    _shorten_names(path)


def _graph_inputs(name: str, encoded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return encoded | {key: torch.zeros_like(encoded["input_ids"]) for key in RECIPES[name].zeros}


def _shorten_names(path: Path) -> None:
    """Renames nodes and the values between them; the exporter's names are half of a small file."""
    model = onnx.load(path)
    graph = model.graph
    kept = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    short: dict[str, str] = {name: name for name in kept | {""}}
    for number, node in enumerate(graph.node):
        node.name = f"n{number}"
        for names in (node.input, node.output):
            names[:] = [short.setdefault(name, f"v{len(short)}") for name in names]
    del graph.value_info[:]
    onnx.checker.check_model(model)
    onnx.save(model, path)


def verify(name: str, expected: list[list[float]]) -> float:
    """Gives the largest difference between the graph on one padded batch and PyTorch on single pairs."""
    tokenizer = AutoTokenizer.from_pretrained(folder(name))
    batch = _graph_inputs(name, encode(tokenizer, PAIRS, MAX_LENGTH))
    feed = {key: value.numpy() for key, value in batch.items()}
    graph = session(name)
    (logits,) = graph.run(["logits"], {tensor.name: feed[tensor.name] for tensor in graph.get_inputs()})
    return float(np.abs(logits - np.array(expected)).max())


def make(name: str) -> None:
    """Makes one fixture's folder, or makes it again around the tokenizer that is there.

    The trainers of `tokenizers` don't give the same result twice; remove the folder for a new tokenizer.
    """
    target = folder(name)
    recipe = RECIPES[name]
    if not target.exists():
        recipe.tokenizer().save_pretrained(target)
    recipe.config(AutoTokenizer.from_pretrained(target)).save_pretrained(target)
    export(name, target / "model.onnx")
    logits = score(name, PAIRS)
    difference = verify(name, logits)
    if difference > TOLERANCE:
        raise SystemExit(f"{name}: the exported graph is {difference:.1e} away from PyTorch")
    _write_scores(name, logits)
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{name}: {size / 1000:.0f} kB, logits' std {np.std(logits):.2f}, graph within {difference:.0e} of PyTorch")


def _write_scores(name: str, logits: list[list[float]]) -> None:
    libraries = ("torch", "transformers", "tokenizers")
    report = {
        "made_by": {library: version(library) for library in libraries}
        | {"python": platform.python_version(), "command": f"python -m tests.parity.make {name}"},
        "max_length": MAX_LENGTH,
        "pairs": PAIRS,
        "logits": logits,
    }
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (folder(name) / "scores.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or RECIPES:
        make(chosen)
