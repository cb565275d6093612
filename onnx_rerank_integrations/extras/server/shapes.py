"""Requests and answers of Cohere v1 and v2, Jina and TEI: ``texts`` means TEI, ``documents`` the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, StrictBool, StrictInt, StrictStr, Tag

from onnx_rerank_integrations.core.scoring import Floats, best_first, identity, sigmoid

Flag = StrictBool | Literal["true", "false"]
"""Some clients send the word."""


def as_whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[StrictInt, Field(ge=1), BeforeValidator(as_whole)]
"""From 1. JSON knows no difference between 3 and 3.0."""


def is_set(flag: Flag | None) -> bool:
    return flag is True or flag == "true"


class Shape(BaseModel):
    """Unknown fields are taken, and named in the answer's warnings: clients send what other servers know."""

    model_config = ConfigDict(extra="allow")

    @property
    def ignored(self) -> list[str]:
        """Fields that were sent with a value and mean nothing here."""
        return sorted(name for name, value in (self.model_extra or {}).items() if value is not None)


class TextDocument(BaseModel):
    """A document in an object; other fields are left unread."""

    model_config = ConfigDict(extra="ignore")

    text: StrictStr


class DocumentsRequest(Shape):
    """What Cohere's and Jina's clients send."""

    model: StrictStr | None = Field(default=None, description="One of /v1/models; the first of them if left out.")
    query: StrictStr
    documents: list[StrictStr | TextDocument] = Field(min_length=1)
    top_n: WholeNumber | None = Field(default=None, description="Most results; all if left out.")
    return_documents: Flag | None = Field(default=False, description="Whether each result holds its text.")
    max_tokens_per_doc: WholeNumber | None = Field(
        default=None, description="Tokens of a document that are read; as many as the model reads if left out."
    )
    raw_scores: Flag | None = Field(default=False, description="Logits, not 0..1.")
    truncate: Flag | None = Field(default=True, description="False: an error where a document is too long.")

    @property
    def texts(self) -> list[str]:
        return [one if isinstance(one, str) else one.text for one in self.documents]


class TextsRequest(Shape):
    """What Text Embeddings Inference's clients send."""

    model: StrictStr | None = Field(default=None, description="One of /v1/models; the first of them if left out.")
    query: StrictStr
    texts: list[StrictStr] = Field(min_length=1)
    raw_scores: Flag | None = Field(default=False, description="Logits, not 0..1.")
    return_text: Flag | None = Field(default=False, description="Whether each result holds its text.")
    truncate: Flag | None = Field(default=True, description="False: an error where a text is too long.")
    truncation_direction: Literal["right", "Right"] | None = Field(
        default="right", description="The end of a text that is cut."
    )


def dialect(body: Any) -> str:
    """Which shape a request has."""
    found = body if isinstance(body, dict) else getattr(body, "__dict__", {})
    return "texts" if "texts" in found and "documents" not in found else "documents"


RerankRequest = Annotated[
    Annotated[DocumentsRequest, Tag("documents")] | Annotated[TextsRequest, Tag("texts")], Discriminator(dialect)
]


class DocumentText(BaseModel):
    text: str


class Result(BaseModel):
    index: int = Field(description="The document's place in the request, from 0.")
    relevance_score: float = Field(description="0..1, or the logit with raw_scores; higher is better.")
    document: DocumentText | None = None


class Usage(BaseModel):
    total_tokens: int
    prompt_tokens: int


class Meta(BaseModel):
    api_version: dict[str, str]
    billed_units: dict[str, int]
    tokens: dict[str, int]
    warnings: list[str] | None = None


class RerankAnswer(BaseModel):
    """For Cohere and Jina, the best first."""

    id: str
    model: str
    results: list[Result]
    usage: Usage
    meta: Meta


class TextRank(BaseModel):
    """For TEI, the best first."""

    index: int
    score: float
    text: str | None = None


class TokenCount(BaseModel):
    index: int
    tokens: int = Field(description="Tokens that the model reads of this text and the query, special tokens included.")
    truncated: bool = Field(description="Whether the text or the query is longer than the model reads.")


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    max_length: int | None = Field(description="Tokens of query and document; null while the model is being opened.")
    license: str | None
    ready: bool


class ModelDetails(Model):
    config: dict[str, Any] = Field(description="The model's config.json.")


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Info(BaseModel):
    """As TEI has it, of the first model."""

    model_id: str
    max_input_length: int | None
    max_client_batch_size: int
    version: str


class State(BaseModel):
    status: str


class Error(BaseModel):
    """The text is in `message`, `detail` and `error` alike: each client looks for one of them."""

    message: str
    detail: str
    error: str
    error_type: str = Field(description="In TEI's words.")
    code: str = Field(description="The class of the error in onnx_rerank_integrations, where it has one.")


def documents_answer(
    request: DocumentsRequest, model: str, version: str, logits: Floats, tokens: int
) -> dict[str, Any]:
    texts = request.texts
    scores, order = scored(logits, raw=is_set(request.raw_scores), top_n=request.top_n)
    results: list[dict[str, Any]] = [{"index": i, "relevance_score": float(scores[i])} for i in order]
    if is_set(request.return_documents):
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    meta: dict[str, Any] = {
        "api_version": {"version": version},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": tokens, "output_tokens": 0},
    }
    if request.ignored:
        meta["warnings"] = [f"ignored: {', '.join(request.ignored)}"]
    usage = {"total_tokens": tokens, "prompt_tokens": tokens}
    return {"id": str(uuid4()), "model": model, "results": results, "usage": usage, "meta": meta}


def texts_answer(request: TextsRequest, logits: Floats) -> list[dict[str, Any]]:
    scores, order = scored(logits, raw=is_set(request.raw_scores), top_n=None)
    results: list[dict[str, Any]] = [{"index": i, "score": float(scores[i])} for i in order]
    if is_set(request.return_text):
        for result in results:
            result["text"] = request.texts[result["index"]]
    return results


def scored(logits: Floats, *, raw: bool, top_n: int | None) -> tuple[Floats, Sequence[int]]:
    """The scores in the asked scale, and the order, decided on logits."""
    scores = identity(logits) if raw else sigmoid(logits)
    return scores, best_first(logits, scores, top_n=top_n, score_threshold=None)
