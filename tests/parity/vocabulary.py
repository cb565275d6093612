"""Tokenizers of the real kinds, trained on our own sentences to a few hundred tokens.

Special tokens have the ids the original models give them where a model counts on that: RoBERTa's positions
start after the padding id.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE, Unigram, WordPiece
from transformers import (
    BertTokenizer,
    PreTrainedTokenizerBase,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from tests.parity.text import sentences

UNLIMITED = int(1e30)
"""What transformers saves as model_max_length where nobody gave one."""


def bert(max_length: int) -> PreTrainedTokenizerBase:
    """WordPiece, lower case, ``[CLS] query [SEP] document [SEP]`` with token types 0 and 1."""
    learner = Tokenizer(WordPiece(unk_token="[UNK]"))
    learner.normalizer = normalizers.BertNormalizer()
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special_tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=360, special_tokens=special_tokens, show_progress=False)
    return BertTokenizer(vocab=_learn(learner, trainer)["vocab"], model_max_length=max_length)


def roberta(max_length: int) -> PreTrainedTokenizerBase:
    """Byte-level BPE, ``<s> query </s></s> document </s>``, no token types."""
    learned = _byte_level_bpe(["<s>", "<pad>", "</s>", "<unk>"], vocab_size=399)
    vocabulary = learned["vocab"] | {"<mask>": len(learned["vocab"])}
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return RobertaTokenizer(vocab=vocabulary, merges=learned["merges"], mask_token=mask, model_max_length=max_length)


def xlm_roberta(max_length: int) -> PreTrainedTokenizerBase:
    """Unigram over "▁" pieces, ``<s> query </s></s> document </s>``, no token types.

    The original's normalizer is SentencePiece's nmt_nfkc table; alone it is larger than a fixture may be, and left out.
    """
    learner = Tokenizer(Unigram())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    special_tokens = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=320, special_tokens=special_tokens, unk_token="<unk>", show_progress=False
    )
    vocabulary = [(piece, score) for piece, score in _learn(learner, trainer)["vocab"]] + [("<mask>", 0.0)]
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return XLMRobertaTokenizer(vocab=vocabulary, mask_token=mask, model_max_length=max_length)


def _byte_level_bpe(special_tokens: list[str], *, vocab_size: int) -> dict[str, Any]:
    learner = Tokenizer(BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    return _learn(learner, trainer)


def _learn(learner: Tokenizer, trainer: trainers.Trainer) -> dict[str, Any]:
    """Trains and gives the learned model as tokenizer.json writes it: its vocabulary and, for BPE, its merges."""
    learner.train_from_iterator(sentences(), trainer)
    learned = json.loads(learner.to_str())["model"]
    if "merges" in learned:
        learned["merges"] = [tuple(merge) for merge in learned["merges"]]
    return learned
