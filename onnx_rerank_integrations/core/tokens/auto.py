"""The tokenizer that transformers' ``AutoTokenizer`` makes of a folder: tokenizer.json, and what other files say of it.

transformers takes the vocabulary from tokenizer.json, and lets the tokenizer's class and tokenizer_config.json decide
how texts are normalized, split and paired. Read off transformers 5.24 (``models/auto/tokenization_auto.py`` and the
classes that cross-encoders use), and compared with it in tests/test_parity_live.py. Where its version 5 lost what
version 4, sentencepiece and the models' authors have, the authors are followed; each place says so.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from onnx_rerank_integrations.core.errors import InvalidModelError, UnsupportedModelError

Side = Literal["left", "right"]
Json = Mapping[str, Any]

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
TOKEN_FLAGS = ("lstrip", "rstrip", "normalized", "single_word", "special")


@dataclass(frozen=True, kw_only=True)
class TokenizerClass:
    """What one of transformers' classes brings along.

    Attributes:
        model: The kind of vocabulary it is made for; another kind is left as its file has it.
        set_up: Sets normalizer and pre-tokenizer by tokenizer_config.json; None where the file's stay.
        template: How it joins a pair, as `TemplateProcessing` has it, its tokens by what they are; None where the class
            has none of its own and texts are just joined.
        keeps_template: Whether tokenizer.json's own template stays where it has one.
        padding_side: Where the class pads.
        tokens: Its special tokens, where tokenizer_config.json doesn't name others.
    """

    model: str = ""
    set_up: Callable[[Any, Json], None] | None = None
    template: str | None = None
    keeps_template: bool = False
    padding_side: Side = "right"
    tokens: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """What a folder says beside tokenizer.json.

    Attributes:
        name: The class's name, empty for tokenizer.json as it is.
        config: tokenizer_config.json, ``{}`` where there is none.
        joins_plainly: Whether texts are joined without a token between them where no template is known, as decoders do.
    """

    name: str = ""
    config: Json = field(default_factory=dict)
    joins_plainly: bool = False

    @property
    def padding_side(self) -> Side:
        return CLASSES[self.name].padding_side if self.name in CLASSES else "right"


def _bert(tokenizer: Any, settings: Json) -> None:
    from tokenizers import normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=_flag(settings, "tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=_flag(settings, "do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()


def _byte_level(tokenizer: Any, settings: Json) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=_flag(settings, "add_prefix_space", False))


def _sentencepiece(tokenizer: Any, settings: Json) -> None:
    from tokenizers import normalizers, pre_tokenizers

    charsmap = _precompiled(tokenizer)
    tokenizer.normalizer = None if charsmap is None else normalizers.Precompiled(charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), _metaspace(settings, otherwise="never")]
    )


def _quotes(*, lower: bool, keep_accents: bool | None) -> Callable[[Any, Json], None]:
    """The sentencepiece of ALBERT and XLNet, which makes two single quotes one double quote.

    Args:
        lower: What ``do_lower_case`` is where it isn't stated.
        keep_accents: The same of that; None where it isn't looked at.
    """

    def set_up(tokenizer: Any, settings: Json) -> None:
        from tokenizers import normalizers

        charsmap = _precompiled(tokenizer)
        _sentencepiece(tokenizer, settings if keep_accents is not None else {})
        steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        if keep_accents is None or not _flag(settings, "keep_accents", keep_accents):
            steps += [normalizers.NFKD(), normalizers.StripAccents()]
        if _flag(settings, "do_lower_case", lower):
            steps.append(normalizers.Lowercase())
        if charsmap is not None:
            steps.append(normalizers.Precompiled(charsmap))
        tokenizer.normalizer = normalizers.Sequence(steps)

    return set_up


def _rembert(tokenizer: Any, settings: Json) -> None:
    from tokenizers import Regex, normalizers

    _quotes(lower=False, keep_accents=True)(tokenizer, settings)
    steps = list(tokenizer.normalizer)
    tokenizer.normalizer = normalizers.Sequence([*steps[:2], normalizers.Replace(Regex(" {2,}"), " "), *steps[2:]])
    tokenizer.pre_tokenizer = _metaspace(settings, otherwise="never")


def _big_bird(tokenizer: Any, settings: Json) -> None:
    from tokenizers import Regex, normalizers

    if _precompiled(tokenizer) is None:  # transformers 5 drops it, as of DeBERTa-v2
        tokenizer.normalizer = normalizers.Replace(Regex(" {2,}"), "▁")
    tokenizer.pre_tokenizer = _metaspace(settings, otherwise="never")


def _metaspace(settings: Json, *, otherwise: str, **options: Any) -> Any:
    """Marks words' beginnings: of the first one always, unless ``add_prefix_space`` is false."""
    from tokenizers import pre_tokenizers

    scheme = "always" if _flag(settings, "add_prefix_space", True) else otherwise
    return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, **options)


def _deberta_v2(tokenizer: Any, settings: Json) -> None:
    from tokenizers import Regex, normalizers, pre_tokenizers

    steps: list[Any] = [normalizers.Lowercase()] if _flag(settings, "do_lower_case", False) else []
    if _precompiled(tokenizer) is not None:
        # transformers 5 drops it; version 4 and sentencepiece, with which the models were trained, apply it
        steps.append(tokenizer.normalizer)
    else:
        steps += [
            normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "),
            normalizers.NFC(),
            normalizers.Strip(left=False, right=True),
        ]
    tokenizer.normalizer = normalizers.Sequence(steps)
    splits: list[Any] = [_metaspace(settings, otherwise="first")]
    if _flag(settings, "split_by_punct", False):
        splits.insert(0, pre_tokenizers.Punctuation(behavior="isolated"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)


def _llama(tokenizer: Any, settings: Json) -> None:
    from tokenizers import pre_tokenizers

    if any(step.get("type") == "ByteLevel" for step in _steps(tokenizer.pre_tokenizer, "pretokenizers")):
        return  # of Llama 3, whose files name the class of Llama 2
    scheme = "always" if _flag(settings, "legacy", False) else "first"
    if not _flag(settings, "add_prefix_space", True):
        scheme = "never"
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)


def _gemma(tokenizer: Any, settings: Json) -> None:
    from tokenizers import normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")


def _prefix_space(tokenizer: Any, settings: Json) -> None:
    """Sets ``add_prefix_space`` where the file's byte-level step has another."""
    from tokenizers import pre_tokenizers

    wanted = settings.get("add_prefix_space")
    if wanted is None or tokenizer.pre_tokenizer is None:
        return
    state = json.loads(tokenizer.pre_tokenizer.__getstate__())
    for step in (state, *state.get("pretokenizers", ())):
        if step.get("type") == "ByteLevel":
            step["add_prefix_space"] = _flag(settings, "add_prefix_space", False)
    changed = pre_tokenizers.ByteLevel()
    changed.__setstate__(json.dumps(state).encode())
    tokenizer.pre_tokenizer = changed


_BERT_TOKENS = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
}

_ALBERT_TOKENS = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "<pad>", "unk_token": "<unk>"}
_CORNERED_TOKENS = {"cls_token": "<cls>", "sep_token": "<sep>", "pad_token": "<pad>", "unk_token": "<unk>"}

_TYPED = "{cls} $A {sep} $B:1 {sep}:1"
_UNTYPED = "{cls} $A {sep} $B {sep}"
_DOUBLE = "{cls} $A {sep} {sep} $B {sep}"

_BERT = TokenizerClass(model="WordPiece", set_up=_bert, template=_TYPED, tokens=_BERT_TOKENS)
_ROBERTA = TokenizerClass(model="BPE", set_up=_byte_level, template=_DOUBLE, tokens=_ROBERTA_TOKENS)
_XLM_ROBERTA = TokenizerClass(model="Unigram", set_up=_sentencepiece, template=_DOUBLE, tokens=_ROBERTA_TOKENS)
_ALBERT = TokenizerClass(
    model="Unigram",
    set_up=_quotes(lower=True, keep_accents=False),
    template=_TYPED,
    keeps_template=True,
    tokens=_ALBERT_TOKENS,
)
_DECODER = TokenizerClass(model="BPE", set_up=_prefix_space)

CLASSES: Mapping[str, TokenizerClass] = {
    "BertTokenizer": _BERT,
    "DistilBertTokenizer": _BERT,
    "ConvBertTokenizer": _BERT,
    "MPNetTokenizer": TokenizerClass(
        model="WordPiece", set_up=_bert, template=_DOUBLE, tokens=_ROBERTA_TOKENS | {"unk_token": "[UNK]"}
    ),
    "FunnelTokenizer": TokenizerClass(
        model="WordPiece", set_up=_bert, template="{cls}:2 $A {sep} $B:1 {sep}:1", tokens=_CORNERED_TOKENS
    ),
    "RobertaTokenizer": _ROBERTA,
    "XLMRobertaTokenizer": _XLM_ROBERTA,
    "CamembertTokenizer": _XLM_ROBERTA,
    "DebertaV2Tokenizer": TokenizerClass(model="Unigram", set_up=_deberta_v2, template=_TYPED, tokens=_BERT_TOKENS),
    # transformers 5 puts two [SEP] between the texts and gives no types; version 4 and the files of the models don't
    "DebertaTokenizer": TokenizerClass(
        model="BPE", set_up=_byte_level, template=_TYPED, keeps_template=True, tokens=_BERT_TOKENS
    ),
    "AlbertTokenizer": _ALBERT,
    "FNetTokenizer": _ALBERT,
    "RemBertTokenizer": TokenizerClass(model="Unigram", set_up=_rembert, template=_TYPED, tokens=_ALBERT_TOKENS),
    "BigBirdTokenizer": TokenizerClass(model="Unigram", set_up=_big_bird, template=_TYPED, tokens=_ALBERT_TOKENS),
    "XLNetTokenizer": TokenizerClass(
        model="Unigram",
        set_up=_quotes(lower=False, keep_accents=None),
        template="$A {sep} $B:1 {sep}:1 {cls}:2",
        padding_side="left",
        tokens=_CORNERED_TOKENS,
    ),
    "ModernBert": TokenizerClass(template=_UNTYPED, keeps_template=True, tokens=_BERT_TOKENS),
    "Qwen2Tokenizer": _DECODER,
    "GPT2Tokenizer": _DECODER,
    "GPTNeoXTokenizer": _DECODER,
    "LlamaTokenizer": TokenizerClass(model="BPE", set_up=_llama, padding_side="left"),
    "GemmaTokenizer": TokenizerClass(model="BPE", set_up=_gemma, padding_side="left"),
    "CohereTokenizer": TokenizerClass(model="BPE", set_up=_prefix_space, padding_side="left"),
}
"""By name. "ModernBert" is ours: transformers has no class for it, its files name the tokens of its template."""

_SAME_CLASS = {
    **dict.fromkeys(
        ("ElectraTokenizer", "MobileBertTokenizer", "SqueezeBertTokenizer", "LayoutLMTokenizer", "LxmertTokenizer"),
        "BertTokenizer",
    ),
    **dict.fromkeys(("LongformerTokenizer", "BartTokenizer", "LEDTokenizer", "MvpTokenizer"), "RobertaTokenizer"),
}

_CLASS_OF_TYPE = {
    **dict.fromkeys(
        (
            "bert",
            "distilbert",
            "electra",
            "convbert",
            "mobilebert",
            "squeezebert",
            "layoutlm",
            "nomic_bert",
            "megatron-bert",
            "ernie",
            "nezha",
            "qdqbert",
            "retribert",
            "realm",
            "bros",
            "lxmert",
            "visual_bert",
        ),
        "BertTokenizer",
    ),
    **dict.fromkeys(
        (
            "roberta",
            "longformer",
            "bart",
            "led",
            "mvp",
            "data2vec-text",
            "ibert",
            "mra",
            "roberta-prelayernorm",
            "lilt",
            "mega",
        ),
        "RobertaTokenizer",
    ),
    **dict.fromkeys(("xlm-roberta", "gte", "xmod", "jina_embeddings_v3"), "XLMRobertaTokenizer"),
    "camembert": "CamembertTokenizer",
    "mpnet": "MPNetTokenizer",
    "deberta": "DebertaTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "albert": "AlbertTokenizer",
    "yoso": "AlbertTokenizer",
    "fnet": "FNetTokenizer",
    "rembert": "RemBertTokenizer",
    "big_bird": "BigBirdTokenizer",
    "xlnet": "XLNetTokenizer",
    "funnel": "FunnelTokenizer",
    "modernbert": "ModernBert",
    "modernbert-decoder": "ModernBert",
    **dict.fromkeys(("qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "qwen3_next"), "Qwen2Tokenizer"),
    **dict.fromkeys(
        ("gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n_text", "recurrent_gemma", "t5gemma"), "GemmaTokenizer"
    ),
    **dict.fromkeys(("gpt2", "gpt_neo", "gptj", "codegen", "opt", "phi", "starcoder2"), "GPT2Tokenizer"),
    **dict.fromkeys(("gpt_neox", "mpt", "olmo", "olmoe", "mamba", "mamba2", "rwkv"), "GPTNeoXTokenizer"),
    **dict.fromkeys(("cohere", "cohere2"), "CohereTokenizer"),
}
"""By the config's model_type, where no class is named."""

_BY_TYPE_ALONE = frozenset(
    (
        *("modernbert", "modernbert-decoder", "qwen2", "xlm-roberta-xl", "nystromformer", "umt5", "bigbird_pegasus"),
        *("mistral", "mistral3", "ministral", "ministral3", "mixtral", "nemotron", "phi3", "phimoe", "granite"),
        *("granitemoe", "olmo2", "olmo3", "stablelm", "persimmon", "gpt_bigcode", "glm", "glm4", "glm4_moe", "jamba"),
        *("arctic", "ernie4_5", "ernie4_5_moe", "internlm2", "internlm3", "minicpm3", "hyperclovax"),
    )
)
"""Model types with which transformers passes over the class that a file names, as it is often a wrong one."""


def class_name(config: Json, tokenizer_config: Json) -> str:
    """The class that AutoTokenizer takes, as a key of `CLASSES`; empty for tokenizer.json as it is."""
    model_type = str(config.get("model_type") or "")
    of_type = _CLASS_OF_TYPE.get(model_type, "")
    stated = tokenizer_config.get("tokenizer_class") or config.get("tokenizer_class")
    if not isinstance(stated, str) or not stated:
        return of_type
    stated = stated.removesuffix("Fast")
    stated = _SAME_CLASS.get(stated, stated)
    if model_type in _BY_TYPE_ALONE:
        return of_type
    return stated if stated in CLASSES else ""


def adapt(tokenizer: Any, settings: TokenizerSettings, *, has_prompt: bool = False) -> None:
    """Changes a tokenizer that was read from tokenizer.json into the one that AutoTokenizer makes of the folder.

    Args:
        tokenizer: A ``tokenizers.Tokenizer``, changed in place.
        settings: What the folder says of it.
        has_prompt: Whether a prompt takes the pair template's place.

    Raises:
        InvalidModelError: tokenizer_config.json holds a value of another type than its name asks for.
        UnsupportedModelError: The tokenizer has no pair template, and nothing says which one it should have.
    """
    chosen = CLASSES.get(settings.name, TokenizerClass())
    named = {name: value for name, value in settings.config.items() if value is not None}
    for name in NAMED_TOKENS:
        if name in named and token_text(named[name]) is None:
            raise InvalidModelError(
                f'tokenizer_config.json has {name}={named[name]!r}, which is neither a text nor {{"content": text}}.\n'
                "Correct the file, or fetch it again."
            )
    config = {**chosen.tokens, **named}
    of_its_kind = type(tokenizer.model).__name__ == chosen.model
    if of_its_kind and chosen.set_up:
        chosen.set_up(tokenizer, settings.config)
    _add_tokens(tokenizer, config)
    has_template = tokenizer.num_special_tokens_to_add(True) > 0
    if chosen.template and (not has_template or (of_its_kind and not chosen.keeps_template)):
        _set_template(tokenizer, chosen, config)
    elif not (has_template or has_prompt or settings.joins_plainly):
        raise UnsupportedModelError(
            "tokenizer.json has no pair template (post_processor), so that query and document would be joined without "
            "a token between them; and neither its tokenizer class nor its model type is one whose template is known.\n"
            'Save the tokenizer again with its post_processor, or name its "tokenizer_class" in tokenizer_config.json.'
        )


def _set_template(tokenizer: Any, chosen: TokenizerClass, config: Json) -> None:
    from tokenizers import processors

    first, last = (token_text(config.get(name)) for name in ("cls_token", "sep_token"))
    ids = [tokenizer.token_to_id(token) for token in (first, last) if token]
    if len(ids) < 2 or None in ids:
        raise UnsupportedModelError(
            f"The pair template of this model needs its tokens {first!r} and {last!r}, and the vocabulary lacks them.\n"
            "Use the tokenizer.json and the tokenizer_config.json that belong to the model."
        )
    pair = [piece.format(cls=first, sep=last) for piece in str(chosen.template).split()]
    query, document = (next(i for i, piece in enumerate(pair) if piece.startswith(text)) for text in ("$A", "$B"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=pair[: query + 2] + pair[document + 2 :],  # each text has a separator after it
        pair=pair,
        special_tokens=list({first: ids[0], last: ids[1]}.items()),
    )


def _add_tokens(tokenizer: Any, config: Json) -> None:
    """Adds the tokens that tokenizer_config.json lists, and makes the named ones special.

    A named token that isn't in the vocabulary is left out: the model can't have an embedding of it.
    """
    listed = config.get("added_tokens_decoder")
    if isinstance(listed, Mapping):
        known = {repr(token) for token in tokenizer.get_added_tokens_decoder().values()}
        places = sorted((int(place), token) for place, token in listed.items() if str(place).isdigit())
        tokens = [_added_token(token) for _, token in places if isinstance(token, Mapping)]
        tokenizer.add_tokens([token for token in tokens if repr(token) not in known])
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    extra = list(extra.values()) if isinstance(extra, Mapping) else extra
    named = [config.get(name) for name in NAMED_TOKENS] + (list(extra) if isinstance(extra, (list, tuple)) else [])
    by_content = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
    special = []
    for value in named:
        text = token_text(value)
        if text and tokenizer.token_to_id(text) is not None:
            known_token = by_content.get(text)
            if known_token is None:
                fields = value if isinstance(value, Mapping) else {"content": text, "normalized": False}
                special.append(_added_token({**fields, "special": True}))
            elif not known_token.special:
                special.append(known_token)
    if special:
        tokenizer.add_special_tokens(special)


def _added_token(fields: Json) -> Any:
    from tokenizers import AddedToken

    content = token_text(fields)
    if content is None:
        raise InvalidModelError(f"tokenizer_config.json lists an added token without its text: {dict(fields)!r}")
    flags = {name: bool(fields[name]) for name in TOKEN_FLAGS if name in fields}
    return AddedToken(content, **flags)


def token_text(token: Any) -> str | None:
    """A special token's text from tokenizer_config.json: a str or ``{"content": str}``; None for neither."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else None


def side(config: Json, name: str, stored: Mapping[str, Any] | None, default: Side) -> Side:
    """Which end of a text is cut off, or padded: by tokenizer_config.json, else as tokenizer.json stores it."""
    stated = config.get(name)
    if stated is None and stored is not None:
        stated = str(stored.get("direction", default)).lower()
    if stated is None:
        return default
    if stated not in ("left", "right"):
        raise InvalidModelError(
            f'tokenizer_config.json has {name}={stated!r}; "left" and "right" are the ends that there are.\n'
            "Correct the file."
        )
    return "left" if stated == "left" else "right"


def _flag(settings: Json, name: str, default: bool) -> bool:
    value = settings.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidModelError(f"tokenizer_config.json has {name}={value!r}, not true or false.\nCorrect the file.")
    return value


def _precompiled(tokenizer: Any) -> bytes | None:
    """The character map that a sentencepiece normalizer holds."""
    for step in _steps(tokenizer.normalizer, "normalizers"):
        if step.get("type") == "Precompiled" and step.get("precompiled_charsmap"):
            return base64.b64decode(step["precompiled_charsmap"])
    return None


def _steps(part: Any, name: str) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer and the parts that it is a sequence of, as tokenizer.json has them."""
    state = {} if part is None else json.loads(part.__getstate__())
    return [state, *state.get(name, ())]
