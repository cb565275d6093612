"""Which column is the query, the text, the group and the id, and which columns come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from onnx_rerank_integrations.core.errors import InputValueError

SCORE, RANK = "score", "rank"
QUERY_ID, DOCUMENT_ID = "query_id", "doc_id"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of columns.

    Attributes:
        query: The query's text.
        text: The document's text.
        group_by: What rows are ranked within.
        id: Decides between equal scores, the lower one first; None for the order of the rows.
        kept: Those that come out, before ``score`` and ``rank``.
    """

    query: str
    text: str
    group_by: str
    id: str | None
    kept: tuple[str, ...]

    @property
    def used(self) -> tuple[str, ...]:
        """All that are read."""
        return (self.query, self.text, self.group_by, *([self.id] if self.id else []), *self.kept)


def choose_columns(
    schema: pa.Schema,
    *,
    query: str,
    text: str,
    group_by: str | None,
    id: str | None,
    keep: Sequence[str] | None,
) -> Columns:
    """The columns to work with, all of which are there and of a type that fits.

    Args:
        schema: What the input has.
        query: The query's text.
        text: The document's text.
        group_by: None for ``query_id`` where that is there, else the query's text.
        id: None for ``doc_id`` where that is there, else no column.
        keep: None for all.

    Raises:
        InputValueError: A column isn't there, or of no type that fits.
    """
    group_by = group_by or (QUERY_ID if QUERY_ID in schema.names else query)
    id = id or (DOCUMENT_ID if DOCUMENT_ID in schema.names else None)
    kept = tuple(schema.names if keep is None else keep)
    for name in (query, text, group_by, *([id] if id else []), *kept):
        if name not in schema.names:
            raise InputValueError(f"there is no column {name!r}; found {', '.join(map(repr, schema.names)) or 'none'}")
    for name in (query, text):
        if not is_text(schema.field(name).type):
            raise InputValueError(f"the column {name!r} must hold text, found {schema.field(name).type}")
    for name in (group_by, *([id] if id else [])):
        if not (is_text(schema.field(name).type) or pa.types.is_integer(schema.field(name).type)):
            raise InputValueError(
                f"the column {name!r} must hold text or whole numbers, found {schema.field(name).type}"
            )
    return Columns(query=query, text=text, group_by=group_by, id=id, kept=kept)


def is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    is_kind = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(test(kind) for test in is_kind)


def output_names(kept: Sequence[str], *added: str) -> list[str]:
    """What the kept columns are called beside the added ones: one that has such a name becomes ``original_NAME``."""
    return [f"original_{name}" if name in added else name for name in kept]
