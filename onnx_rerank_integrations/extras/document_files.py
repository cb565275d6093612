"""Reads the text of PDF and Word files (extra [files]): pypdf and python-docx are known here alone."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

from onnx_rerank_integrations.core.errors import InputValueError
from onnx_rerank_integrations.extras.needs_extra import needs_extra
from onnx_rerank_integrations.extras.text_files import LARGEST_FILE, PDF, WORD


def pdf_pages(content: bytes, name: str) -> list[str]:
    """The text of each page.

    Args:
        content: The whole file.
        name: For messages.

    Raises:
        InputValueError: The file is damaged, needs a password, or no page has text.
        MissingExtraError: pypdf isn't installed.
    """
    with needs_extra("files", f"{name} is {PDF}; reading it"):
        from pypdf import PdfReader
        from pypdf.errors import DependencyError, FileNotDecryptedError
    pages: list[str] = []
    try:
        for page in PdfReader(io.BytesIO(content)).pages:
            pages.append(page.extract_text())
            _keep_to_limit(sum(map(len, pages)), name)
    except InputValueError:
        raise
    except (FileNotDecryptedError, DependencyError) as error:
        raise InputValueError(f"{name} is {PDF} that is encrypted: save it without a password") from error
    except Exception as error:  # a damaged file leads the library to errors of any class
        raise _damaged(name, PDF, error) from error
    return _with_text(pages, name, PDF)


def word_lines(content: bytes, name: str) -> list[str]:
    """The text as lines of Markdown: headings as such, a blank line between paragraphs, a table's row in one line.

    Args:
        content: The whole file.
        name: For messages.

    Raises:
        InputValueError: The file is damaged, or has no text.
        MissingExtraError: python-docx isn't installed.
    """
    with needs_extra("files", f"{name} is {WORD}; reading it"):
        from docx import Document
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            _keep_to_limit(sum(part.file_size for part in parts.infolist()), name)
        lines = list(_markdown(Document(io.BytesIO(content))))
    except InputValueError:
        raise
    except Exception as error:  # a damaged file leads the library to errors of any class
        raise _damaged(name, WORD, error) from error
    return _with_text(lines, name, WORD)


def _markdown(document: object) -> Iterator[str]:
    from docx.table import Table

    for block in document.iter_inner_content():  # type: ignore[attr-defined]  # python-docx is untyped here
        if isinstance(block, Table):
            yield from (" | ".join(" ".join(cell.text.split()) for cell in row.cells) for row in block.rows)
        else:
            style = (block.style.name if block.style else "") or ""
            level = 1 if style == "Title" else int(style[-1]) if style[:-1] == "Heading " and style[-1].isdigit() else 0
            is_heading = level and block.text.strip()
            yield f"{'#' * min(level, 6)} {' '.join(block.text.split())}" if is_heading else block.text
        yield ""


def _keep_to_limit(size: int, name: str) -> None:
    if size > LARGEST_FILE:
        raise InputValueError(f"{name} holds more than {LARGEST_FILE >> 20} MB, which is the limit of a file")


def _damaged(name: str, kind: str, error: Exception) -> InputValueError:
    return InputValueError(f"{name} is {kind} that can't be read: {str(error) or type(error).__name__}")


def _with_text(parts: list[str], name: str, kind: str) -> list[str]:
    if not any(part.strip() for part in parts):
        raise InputValueError(f"{name} is {kind} without text, as scans are: recognize its text first (OCR)")
    return parts
