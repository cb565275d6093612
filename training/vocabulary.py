"""Learns what the model knows of English from plain text: a tokenizer, and for each token its stem, rarity and kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import Stemmer
from sources import QueryPassage, Section
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

VOCABULARY_SIZE = 24_000
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# A character seen less often than this becomes [UNK], with the word around it.
MINIMUM_CHARACTER_COUNT = 5

QUESTION_WORDS = frozenset(("how", "what", "when", "where", "which", "who", "whom", "whose", "why"))
_STOP_WORDS = """
    a about after again against all also am an and any are as at be because been before being between both but by
    can could did do does doing during each few for from further had has have having he her here hers him his i if in
    into is it its itself just may me might more most must my no nor not now of off on once only or other our ours out
    over own s same shall she should so some such t than that the their theirs them then there these they this those
    through to too under until up very was we were will with would you your yours
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True)
class Lexicon:
    """What is learned from text, V tokens wide.

    Attributes:
        tokenizer: WordPiece with BERT's pair template; it neither pads nor truncates.
        stems: (V,) int32, the stem class of each token; 0 for special tokens, which match nothing.
        rarity: (V,) float64, how rare the token's stem class is over the sources; 0 for special tokens.
        kinds: (V,) str, "word", "stop", "question", "punctuation", "piece" (inside or at the end of a word), "special".
    """

    tokenizer: Tokenizer
    stems: np.ndarray
    rarity: np.ndarray
    kinds: np.ndarray

    def token_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, without special tokens."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]


def learn_lexicon(pairs: Sequence[QueryPassage], sections: Sequence[Section]) -> Lexicon:
    """Everything the model learns from text. The same input gives the same lexicon."""
    passages: dict[str, dict[str, None]] = {}
    for pair in pairs:
        passages.setdefault(pair.source, {})[pair.passage] = None
    for section in sections:
        passages.setdefault(section.source, {})[f"{section.title}. {section.heading}. {section.text}"] = None
    queries = dict.fromkeys(pair.query for pair in pairs)

    tokenizer = train_tokenizer([*(text for texts in passages.values() for text in texts), *queries])
    tokens = [tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size())]
    stems = stem_classes(tokens)
    lexicon = Lexicon(tokenizer, stems, np.zeros(len(tokens)), np.array([token_kind(token) for token in tokens]))
    return Lexicon(tokenizer, stems, _rarity(lexicon, passages), lexicon.kinds)


def train_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """A lower-case WordPiece tokenizer with BERT's pair template; the same texts give the same vocabulary.

    The trainer numbers word-internal characters in the order of a randomly seeded hash map, and breaks ties between
    merges by these numbers. Naming every character as a special token pins the order; the tokenizer given back is
    built anew from the vocabulary, so that no character is special in it.
    """
    scratch = _wordpiece(models.WordPiece(unk_token="[UNK]"))
    characters = Counter(character for text in texts for character in scratch.normalizer.normalize_str(text))
    alphabet = sorted(c for c, count in characters.items() if count >= MINIMUM_CHARACTER_COUNT and not c.isspace())
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[*SPECIAL_TOKENS, *alphabet, *("##" + character for character in alphabet)],
        limit_alphabet=len(alphabet),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    scratch.train_from_iterator(texts, trainer)

    tokenizer = _wordpiece(models.WordPiece(scratch.get_vocab(), unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _wordpiece(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def stem_classes(tokens: Sequence[str]) -> np.ndarray:
    """The stem class (int32) of each token: whole words with one Porter2 stem share it, named by the lowest id.

    Special tokens are of class 0. A piece inside a word is a class of its own.
    """
    stemmer = Stemmer.Stemmer("english")
    first: dict[str, int] = {}
    classes = np.zeros(len(tokens), np.int32)
    for index, token in enumerate(tokens):
        if token not in SPECIAL_TOKENS:
            stem = token if token.startswith("##") else stemmer.stemWord(token)
            classes[index] = first.setdefault(stem, index)
    return classes


def token_kind(token: str) -> str:
    """Which factor of the constants applies to this token's weight."""
    if token in SPECIAL_TOKENS:
        return "special"
    if not any(character.isalnum() for character in token):
        return "punctuation"
    if token.startswith("##"):
        return "piece"
    if token in QUESTION_WORDS:
        return "question"
    return "stop" if token in STOP_WORDS else "word"


def _rarity(lexicon: Lexicon, passages: dict[str, dict[str, None]]) -> np.ndarray:
    """(V,) log of one over the share of passages with the stem class: the mean share over sources.

    Each source counts the same, so that 100,000 dictionary entries don't outvote 1,000 abstracts.
    """
    vocabulary_size = len(lexicon.stems)
    shares = []
    for texts in passages.values():
        ids = lexicon.token_ids(list(texts))
        passage = np.repeat(np.arange(len(ids)), [len(row) for row in ids])
        seen = np.unique(passage * vocabulary_size + lexicon.stems[np.concatenate(ids)])
        shares.append(np.bincount(seen % vocabulary_size, minlength=vocabulary_size) / len(texts))
    unseen = 1 / sum(map(len, passages.values()))
    rarity = np.log((1 + unseen) / (np.mean(shares, axis=0) + unseen))[lexicon.stems]
    return np.where(lexicon.kinds == "special", 0.0, rarity)
