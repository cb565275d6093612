"""Tokenizers of the real kinds, trained on our own sentences to a few hundred tokens.

Special tokens have the ids the original models give them where a model counts on that: RoBERTa's positions
start after the padding id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, Unigram, WordPiece
from transformers import (
    BertTokenizer,
    DebertaV2Tokenizer,
    DistilBertTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from tests.parity.prompts import PROMPTS
from tests.parity.text import sentences

UNLIMITED = int(1e30)
"""What transformers saves as model_max_length where nobody gave one."""


def bert(max_length: int) -> PreTrainedTokenizerBase:
    """WordPiece, lower case, ``[CLS] query [SEP] document [SEP]`` with token types 0 and 1."""
    return BertTokenizer(vocab=_word_pieces(), model_max_length=max_length)


def distilbert(max_length: int) -> PreTrainedTokenizerBase:
    """BERT's, but the model takes no token types."""
    return DistilBertTokenizer(vocab=_word_pieces(), model_max_length=max_length)


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
    pieces = _unigram(
        ["<s>", "<pad>", "</s>", "<unk>"],
        unknown="<unk>",
        before=pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
    )
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)], mask_token=mask, model_max_length=max_length)


def deberta_v3(max_length: int) -> PreTrainedTokenizerBase:
    """Unigram as DeBERTa-v3 has it: ``[CLS] query [SEP] document [SEP]``, spaces within the text kept as pieces."""
    pieces = _unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]"], unknown="[UNK]", before=pre_tokenizers.Metaspace())
    return DebertaV2Tokenizer(
        vocab=[*pieces, ("[MASK]", 0.0)], bos_token="[CLS]", eos_token="[SEP]", model_max_length=max_length
    )


def modernbert(max_length: int) -> PreTrainedTokenizerBase:
    """Byte-level BPE with BERT's template, no token types; runs of spaces are tokens of their own, as in ModernBERT."""
    learned = _byte_level_bpe([], vocab_size=390)
    tokenizer = Tokenizer(BPE(vocab=learned["vocab"], merges=learned["merges"]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(" " * width, normalized=True) for width in (4, 3, 2)])
    special_tokens = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    tokenizer.add_special_tokens([*special_tokens, AddedToken("[MASK]", lstrip=True, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token=AddedToken("[MASK]", lstrip=True, special=True),
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=max_length,
    )


def qwen(max_length: int, **options: Any) -> PreTrainedTokenizerBase:
    """Byte-level BPE with Qwen's own splitting and chat tokens, no template. Its words are those of the prompts too.

    Args:
        max_length: Saved as model_max_length.
        options: Further settings of the tokenizer.
    """
    original = Qwen2Tokenizer().backend_tokenizer
    learner = Tokenizer(BPE())
    learner.normalizer = original.normalizer
    learner.pre_tokenizer = original.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    # The answers have to become single tokens, the prompts short.
    learned = _learn(learner, trainer, more=["yes", "no"] * 50 + _prompt_texts() * 30)
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=learned["merges"],
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=max_length,
        **options,
    )
    tokenizer.add_tokens([AddedToken(token, special=True) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken(token, special=False) for token in ("<think>", "</think>")])
    return tokenizer


def _prompt_texts() -> list[str]:
    texts: list[str] = []

    def note(text: str) -> list[int]:
        texts.append(text)
        return []

    for prompt in PROMPTS.values():
        prompt(note, "", "", instruction=None, max_length=0)
    return texts


def _word_pieces() -> dict[str, int]:
    learner = Tokenizer(WordPiece(unk_token="[UNK]"))
    learner.normalizer = normalizers.BertNormalizer()
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special_tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=360, special_tokens=special_tokens, show_progress=False)
    return _learn(learner, trainer)["vocab"]


def _unigram(
    special_tokens: list[str], *, unknown: str, before: pre_tokenizers.PreTokenizer
) -> list[tuple[str, float]]:
    learner = Tokenizer(Unigram())
    learner.pre_tokenizer = before
    trainer = trainers.UnigramTrainer(
        vocab_size=320, special_tokens=special_tokens, unk_token=unknown, show_progress=False
    )
    return [(piece, score) for piece, score in _learn(learner, trainer)["vocab"]]


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


def _learn(learner: Tokenizer, trainer: trainers.Trainer, *, more: Sequence[str] = ()) -> dict[str, Any]:
    """Trains and gives the learned model as tokenizer.json writes it: its vocabulary and, for BPE, its merges."""
    learner.train_from_iterator([*sentences(), *more], trainer)
    learned = json.loads(learner.to_str())["model"]
    if "merges" in learned:
        learned["merges"] = [tuple(merge) for merge in learned["merges"]]
    return learned
