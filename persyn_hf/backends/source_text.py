"""Open a user's text file: compressed by gzip or not, in UTF-8 or, with a byte order mark, in UTF-16 or UTF-32."""

import codecs
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast


UTF_8 = "utf-8-sig"
ENCODINGS = {  # what a file begins with -> its encoding; else UTF-8
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, which begins alike
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
PART = 1 << 20  # bytes that are looked through together for one that cannot be read


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file by the encoding that it begins with.

    Raises `UnicodeError` where its first bytes are of UTF-16 or UTF-32 and their mark is missing.
    """
    with _open_bytes(path) as data:
        start = data.read(4)
        data.seek(0)
        encoding = _encoding(start)
        if encoding == UTF_8 and b"\0" in start:
            raise UnicodeError("line 1 holds zero bytes, as UTF-16 and UTF-32 do, and their mark is missing")
        with io.TextIOWrapper(data, encoding=encoding, newline="") as text:
            yield text


def undecoded(path: Path, error: UnicodeError) -> str:
    """Say in which line of a text file a byte is that its encoding does not have.

    The error itself knows its place in a part of the file only, so the file is read again.
    """
    if not isinstance(error, UnicodeDecodeError):
        return str(error)
    line = 1
    with _open_bytes(path) as data:
        part = data.read(PART)
        decoder = codecs.getincrementaldecoder(_encoding(part[:4]))()
        try:
            while part:
                line += decoder.decode(part).count("\n")
                part = data.read(PART)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as found:
            line += found.object[: found.start].decode(found.encoding, "replace").count("\n")
            name = found.encoding.upper().removesuffix("-SIG")
            return f"line {line} has the byte 0x{found.object[found.start]:02x}, which is no {name}"
    return str(error)


@contextmanager
def _open_bytes(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with cast(BinaryIO, gzip.open(raw)) if is_gzip else raw as data:
            yield data


def _encoding(start: bytes) -> str:
    return next((name for mark, name in ENCODINGS.items() if start.startswith(mark)), UTF_8)
