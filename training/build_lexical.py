"""Builds the lexical model from training text and lexical.json; the same input gives the same bytes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import onnx
from formula import Constants, token_weights
from lexical_graph import build_graph
from sources import read_pairs, read_sections
from tune_lexical import CONSTANTS, TRAINING
from vocabulary import Lexicon, learn_lexicon

OUTPUT = TRAINING.parent / "onnx_rerank_integrations" / "models" / "lexical"
# Tokens of query and passage together. The formula has no limit, but its memory grows with query tokens x all tokens.
MAX_LENGTH = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/")
    parser.add_argument("--constants", type=Path, default=CONSTANTS)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    lexicon = learn_lexicon(read_pairs(arguments.data), read_sections(arguments.data))
    write_model(lexicon, Constants.read(arguments.constants), arguments.output)
    for path in sorted(arguments.output.iterdir()):
        print(f"{path.stat().st_size:>9,} bytes  {path.name}")


def write_model(lexicon: Lexicon, constants: Constants, folder: Path) -> None:
    """Writes model.onnx, tokenizer.json, config.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"constants": constants.to_json(), "license": "Apache-2.0"}
    graph = build_graph(lexicon.stems, token_weights(lexicon, constants), constants, metadata)
    onnx.save(graph, folder / "model.onnx")
    (folder / "tokenizer.json").write_text(lexicon.tokenizer.to_str(), encoding="utf-8")
    write_json(
        folder / "config.json",
        {
            "model_type": "lexical-cross-encoder",
            "architectures": ["LexicalCrossEncoder"],
            "num_labels": 1,
            "id2label": {"0": "relevance"},
            "label2id": {"relevance": 0},
            "vocab_size": lexicon.tokenizer.get_vocab_size(),
            "type_vocab_size": 2,
            "pad_token_id": lexicon.tokenizer.token_to_id("[PAD]"),
            "max_position_embeddings": MAX_LENGTH,
            "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
        },
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": MAX_LENGTH,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            "padding_side": "right",
            "truncation_side": "right",
            "do_lower_case": True,
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        },
    )


def write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
