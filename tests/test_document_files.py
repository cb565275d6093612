"""PDF and Word files on the command line: their text is ranked, and where that can't be, the error says what to do."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import pytest

from onnx_rerank_integrations import InputValueError, MissingExtraError
from onnx_rerank_integrations.extras import document_files

pytest.importorskip("typer", reason="needs the extra [cli]")

from typer.testing import CliRunner

from onnx_rerank_integrations.extras.cli.app import app
from onnx_rerank_integrations.extras.cli.documents import Split, read_documents

WORD = b"PK\x03\x04....word/document.xml"


def pdf(*pages: str) -> bytes:
    """A PDF file by the book: one page of Helvetica per text."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * place} 0 R" for place in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for place, text in enumerate(pages):
        lines = " T* ".join(f"({line}) Tj" for line in text.split("\n"))
        stream = f"BT /F1 12 Tf 14 TL 72 720 Td {lines} ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * place} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    body = b"%PDF-1.4\n"
    places = []
    for number, content in enumerate(objects, start=1):
        places.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return body + f"{end}startxref\n{len(body)}\n%%EOF\n".encode()


def word() -> bytes:
    document = pytest.importorskip("docx", reason="needs the extra [files]").Document()
    document.add_heading("Guide", 0)
    document.add_heading("Offline", 1)
    document.add_paragraph("The cache answers.")
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "bees", "honey"
    document.add_heading("Online", 1)
    document.add_paragraph("The hub\nanswers.")
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def read(path: Path, content: bytes, split: Split = "auto") -> list[tuple[str, str]]:
    path.write_bytes(content)
    return [(one.text, one.source.removeprefix(str(path))) for one in read_documents([str(path)], split, ["text"])]


def test_a_pdf_file_is_read_by_pages(tmp_path: Path) -> None:
    pytest.importorskip("pypdf", reason="needs the extra [files]")
    content = pdf("Bees live on honey", "Soup\nis warm")

    assert read(tmp_path / "a.pdf", content) == [("Bees live on honey", "#page=1"), ("Soup\nis warm", "#page=2")]
    assert read(tmp_path / "named.txt", content, "lines")[1:] == [("Soup", "#page=2:1"), ("is warm", "#page=2:2")]


def test_a_word_file_is_read_by_sections_with_their_headings(tmp_path: Path) -> None:
    content = word()

    assert [text for text, _ in read(tmp_path / "a.docx", content)] == [
        "Guide\nOffline\nThe cache answers.\n\nbees | honey",
        "Online\nThe hub\nanswers.",
    ]
    assert [text for text, _ in read(tmp_path / "a.docx", content, "paragraphs")][-1] == "The hub\nanswers."


def test_files_of_several_kinds_are_ranked_together(tmp_path: Path) -> None:
    pytest.importorskip("pypdf", reason="needs the extra [files]")
    (tmp_path / "a.docx").write_bytes(word())
    (tmp_path / "a.pdf").write_bytes(pdf("Soup is warm", "Bees live on honey in winter"))
    files = [str(tmp_path / name) for name in ("a.docx", "a.pdf")]

    result = CliRunner().invoke(app, ["rank", "bees in winter", *files, "-m", "lexical", "-n", "1"])

    assert result.exit_code == 0
    assert f"{files[1]}#page=2 | Bees live on honey in winter |" in result.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pdf(""), "a PDF file without text, as scans are"),
        (b"%PDF-1.7", "a PDF file that can't be read"),
        (pdf("bees").replace(b"trailer\n<<", b"trailer\n<< /Encrypt 3 0 R"), "a PDF file that can't be read"),
    ],
)
def test_a_pdf_file_that_gives_no_text_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    pytest.importorskip("pypdf", reason="needs the extra [files]")
    with pytest.raises(InputValueError, match=message):
        read(tmp_path / "a.pdf", content)


def test_a_pdf_file_with_a_password_is_called_so(tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf", reason="needs the extra [files]")
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf("bees")))
    writer.encrypt("secret", algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)

    with pytest.raises(InputValueError, match="is a PDF file that is encrypted"):
        read(tmp_path / "a.pdf", file.getvalue())


def test_a_word_file_that_gives_no_text_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = word()
    with pytest.raises(InputValueError, match="a Word document that can't be read"):
        read(tmp_path / "a.docx", WORD)
    with pytest.raises(InputValueError, match="a Word document that can't be read"):
        read(tmp_path / "a.docx", content[: len(content) // 2])
    monkeypatch.setattr(document_files, "LARGEST_FILE", 1000)
    with pytest.raises(InputValueError, match="holds more than"):
        read(tmp_path / "a.docx", content)


def test_a_word_file_of_anything_else_is_no_word_file(tmp_path: Path) -> None:
    pytest.importorskip("docx", reason="needs the extra [files]")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as parts:
        parts.writestr("word/document.xml", "<a/>")

    with pytest.raises(InputValueError, match="a Word document that can't be read"):
        read(tmp_path / "a.docx", file.getvalue())


@pytest.mark.parametrize(("library", "content"), [("pypdf", pdf("bees")), ("docx", WORD)])
def test_without_the_extra_the_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, content: bytes
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / "a.file").write_bytes(content)

    result = CliRunner().invoke(app, ["rank", "bees", str(tmp_path / "a.file"), "-m", "lexical"])

    with pytest.raises(MissingExtraError, match=r"a.file is a .*onnx-rerank-integrations\[files\]"):
        read(tmp_path / "a.file", content)
    assert result.exit_code == 1
    assert '[files]"' in result.stderr
