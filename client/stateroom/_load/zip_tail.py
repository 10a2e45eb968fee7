"""The directory at the end of a zip, read without the rest of the file."""

from __future__ import annotations

import io
import zipfile

from .._errors import DigestMismatch
from .._printable import one_line


def crc32s_in(tail: bytes) -> dict[str, int]:
    """Return the CRC-32 of each record by its name. Raises DigestMismatch if the tail is not that of a zip."""
    try:
        with zipfile.ZipFile(io.BytesIO(tail)) as archive:
            return {each.filename: each.CRC for each in archive.infolist()}
    except Exception as error:  # noqa: BLE001  zipfile meets damage with whatever error it stumbles into
        raise DigestMismatch(f"the download is damaged: {one_line(error) or type(error).__name__}") from None
