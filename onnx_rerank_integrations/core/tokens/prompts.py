"""How rerankers that are language models want to be asked: their prompts, as data, and those that a template gives.

Such a model reads one prompt with the query and the document in it; how strongly it would go on with one word rather
than with another ("yes" rather than "no") is the score. A prompt is used where the model's files or name say which, or
where the user gives one; never because of an architecture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from onnx_rerank_integrations.core.checks import NO_PROMPT
from onnx_rerank_integrations.core.errors import (
    InputValueError,
    InvalidModelError,
    MissingExtraError,
    UnsupportedModelError,
)
from onnx_rerank_integrations.core.types import Answers


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt. Each text of a tuple is tokenized alone, as the reference does.

    Attributes:
        before: What stands before the query; ``{instruction}`` is filled in.
        query: The query's own text around ``{query}``.
        instructed_query: The same where an instruction is given and belongs there.
        query_tail: Text that is tokenized together with the query's end, and kept when the query is cut.
        between: What stands between query and document.
        document: The document's text around ``{document}``.
        document_tail: As `query_tail`, of the document.
        after: What stands after the document; never cut off.
        document_first: Whether document and query have changed places.
        framed: Whether the tokenizer's own tokens around a single text belong around it.
        instruction: The default instruction; None where there is none.
    """

    before: tuple[str, ...]
    query: str
    instructed_query: str | None = None
    query_tail: str = ""
    between: tuple[str, ...] = ()
    document: str
    document_tail: str = ""
    after: tuple[str, ...]
    document_first: bool = False
    framed: bool = False
    instruction: str | None = None

    @property
    def takes_instruction(self) -> bool:
        return bool(self.instructed_query) or any("{instruction}" in text for text in self.before)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of rerankers whose prompt is known.

    Attributes:
        prompt: As parts, or as a template.
        answers: For its causal models.
    """

    prompt: Prompt | str
    answers: Answers | None = None


QWEN3 = Prompt(  # model card of Qwen/Qwen3-Reranker-0.6B
    before=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
        "<Instruct>: {instruction}\n<Query>:",
    ),
    query=" {query}",
    query_tail="\n<Document>:",
    document=" {document}",
    after=("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
    instruction="Given a web search query, retrieve relevant passages that answer the query",
)

MXBAI_V2 = Prompt(  # mixedbread-ai/mxbai-rerank, mxbai_rerank_v2.py
    before=(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n",
    ),
    query="query: {query}",
    instructed_query="instruction: {instruction}\nquery: {query}",
    between=("\n",),
    document="document: {document}",
    after=(
        "\n",
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
)

FAMILIES: Mapping[str, Family] = {
    "qwen3": Family(prompt=QWEN3, answers=Answers(positive="yes", negative="no")),
    "mxbai-v2": Family(prompt=MXBAI_V2, answers=Answers(positive="1", negative="0")),
    # model card of nvidia/llama-nemotron-rerank-1b-v2
    "nemotron": Family(prompt="question:{query} \n \n passage:{document}"),
}


def chosen_prompt(
    asked: str | None,
    *,
    family: str | None,
    chat_template: str,
    instruction: str | None,
    default_instruction: str | None,
    chat_options: Mapping[str, Any],
    causal: bool,
) -> Prompt | str | None:
    """The prompt that a model is asked with: the user's, else the one its chat template or its family's name says.

    Args:
        asked: The user's: a template, ``"none"``, or a family's name.
        family: The model's, None where it isn't known.
        chat_template: The tokenizer's, empty where it has none.
        instruction: The user's.
        default_instruction: The model's own.
        chat_options: What sentence-transformers gives the chat template.
        causal: Whether the model has no other way to be asked.

    Returns:
        Parts, a template with ``{query}`` and ``{document}``, or None for an ordinary pair.

    Raises:
        UnsupportedModelError: A language model whose prompt nothing tells.
        InputValueError: An instruction for a model that takes none.
    """
    prompt: Prompt | str | None
    if asked == NO_PROMPT:
        prompt = None
    elif asked is not None:
        prompt = FAMILIES[asked].prompt if asked in FAMILIES else asked
    elif (
        rendered := prompt_of_chat_template(chat_template, instruction, default_instruction, chat_options)
    ) is not None:
        return rendered
    else:
        prompt = FAMILIES[family].prompt if family is not None else None
    if prompt is None and causal and asked is None:
        raise UnsupportedModelError(
            "The model is a language model, and how to ask it for relevance isn't known here: neither its name nor its "
            f"chat template tells. Prompts are known for {', '.join(FAMILIES)}.\n"
            'Give its own as prompt="... {query} ... {document} ...", or use a sequence classification model.'
        )
    takes = prompt.takes_instruction if isinstance(prompt, Prompt) else "{instruction}" in (prompt or "")
    if instruction is not None and not takes:
        raise InputValueError(
            "instruction was given, and this model takes none: "
            + ("its prompt has no place for one" if prompt else "it is an ordinary cross-encoder of query and document")
        )
    if isinstance(prompt, str) and "{instruction}" in prompt:
        if (wanted := instruction or default_instruction) is None:
            raise InputValueError("prompt has a place for {instruction}: give one as instruction=")
        prompt = prompt.replace("{instruction}", wanted)
    return prompt


def chosen_answers(asked: str | None, family: str | None, stated: Answers | None) -> Answers:
    """The tokens that a causal model's score is read from: its LogitScore module's, else its family's.

    Raises:
        UnsupportedModelError: Nothing tells.
    """
    found = [FAMILIES[name].answers for name in (asked or "", family or "") if name in FAMILIES]
    for answers in (stated, *found):
        if answers is not None:
            return answers
    raise UnsupportedModelError(
        "The model is a language model, and nothing says which of its words speak for relevance and against it.\n"
        "Add sentence-transformers' LogitScore module to the folder (modules.json, with true_token_id and "
        "false_token_id), or use a sequence classification model."
    )


_QUERY, _DOCUMENT = "\ue000query\ue001", "\ue000document\ue001"
_PLACE = re.compile(r"\{\{-?\s*(query|document|instruction)\s*-?\}\}")


def prompt_of_chat_template(
    template: str, instruction: str | None, default_instruction: str | None, options: Mapping[str, Any]
) -> str | None:
    """A chat template of the roles query and document, as a prompt; None where it is one for chats.

    It is rendered as sentence-transformers does: a message of each role, the instruction as a system message.

    Raises:
        MissingExtraError: The template holds more than places for texts, and jinja2 isn't installed.
        InvalidModelError: It can't be rendered.
        InputValueError: It leaves the user's instruction out.
    """
    if not all(re.search(rf"[\"'{{ ]{role}[\"'}} ]", template) for role in ("query", "document")):
        return None
    system = instruction or default_instruction
    simple = "{%" not in template and "{#" not in template and not _PLACE.sub("", template).count("{{")
    rendered = _fill(template, system) if simple else _render(template, system, options)
    if rendered.count(_QUERY) != 1 or rendered.count(_DOCUMENT) != 1:
        return None
    if instruction is not None and instruction not in rendered:
        raise InputValueError(
            "instruction was given, and this model takes none: its chat template has no place for one"
        )
    literal = rendered.replace("{query}", "{ query}").replace("{document}", "{ document}")
    return literal.replace(_QUERY, "{query}").replace(_DOCUMENT, "{document}")


def _fill(template: str, instruction: str | None) -> str:
    texts = {"query": _QUERY, "document": _DOCUMENT, "instruction": instruction or ""}
    return _PLACE.sub(lambda place: texts[place[1]], template)


def _render(template: str, instruction: str | None, options: Mapping[str, Any]) -> str:
    try:
        from jinja2.exceptions import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingExtraError("The model's prompt is a chat template, which", "chat-template") from error

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    messages = [{"role": "query", "content": _QUERY}, {"role": "document", "content": _DOCUMENT}]
    if instruction is not None:
        messages.insert(0, {"role": "system", "content": instruction})
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    variables = {
        "query": _QUERY,
        "document": _DOCUMENT,
        "instruction": instruction or "",
        "add_generation_prompt": False,
    }
    try:
        return str(environment.from_string(template).render({**variables, **options, "messages": messages}))
    except (TemplateError, TypeError, ValueError) as error:
        raise InvalidModelError(
            f"The model's chat template can't be rendered for a query and a document: {error}\n"
            'Give the prompt yourself: prompt="... {query} ... {document} ..."'
        ) from error


def split_template(template: str, special_tokens: Iterable[str]) -> Prompt:
    """A template's parts: cut where the tokenizer cuts in any case, so that the parts' tokens are the whole's.

    That is around special tokens; between two texts without one, after a line break, else before a space.
    """
    first, second = sorted(("{query}", "{document}"), key=template.index)
    start, rest = template.split(first, 1)
    middle, end = rest.split(second, 1)
    pattern = "|".join(re.escape(token) for token in sorted(special_tokens, key=len, reverse=True) if token)
    before, lead = _after_last(start, pattern)
    between: tuple[str, ...] = ()
    if pattern and (found := list(re.finditer(pattern, middle))):
        tail, second_lead = middle[: found[0].start()], middle[found[-1].end() :]
        between = (middle[found[0].start() : found[-1].end()],)
    else:
        place = middle.rfind("\n") + 1 or (middle.rfind(" ") if " " in middle else len(middle))
        tail, second_lead = middle[:place], middle[place:]
    cut = re.search(pattern, end) if pattern else None
    second_tail, after = (end[: cut.start()], end[cut.start() :]) if cut else (end, "")
    texts = {first: (lead, tail), second: (second_lead, second_tail)}
    return Prompt(
        before=(_literal(before),) if before else (),
        query=_literal(texts["{query}"][0]) + "{query}",
        query_tail=texts["{query}"][1],
        between=between,
        document=_literal(texts["{document}"][0]) + "{document}",
        document_tail=texts["{document}"][1],
        after=(after,) if after else (),
        document_first=first == "{document}",
        framed=not (pattern and re.match(pattern, template)),
    )


def _after_last(text: str, pattern: str) -> tuple[str, str]:
    found = list(re.finditer(pattern, text)) if pattern else []
    place = found[-1].end() if found else 0
    return text[:place], text[place:]


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
