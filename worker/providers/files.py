"""Files to send to a provider: opened in a folder or at a URL, and streamed as multipart, never held in memory."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import httpx

from outwait.worker.model.errors import AddressRefused, ProviderError, Withheld
from outwait.worker.providers.exchange import Exchange

CHUNK = 1 << 18
"""Bytes that are read at once."""

_ESCAPED = {'"': "%22", "\r": "%0D", "\n": "%0A"}
"""How these characters are written in a part's name, as browsers do it."""


class FileProblem(Exception):
    """The file cannot be read. `lasting`: it cannot be read later either. Of a URL, the message shows only the host."""

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


class File:
    """An open file.

    Args:
        name: its name for the provider; the extension shows the format.
        chunks: its content.
        size: bytes, if that is known.

    Attributes:
        problem: why reading stopped early, if it did; the sender of the file sees only a broken connection.
    """

    def __init__(self, name: str, chunks: AsyncIterable[bytes], size: int | None) -> None:
        self.name = name
        self.size = size
        self.problem: FileProblem | None = None
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._chunks:
                yield chunk
        except (OSError, ProviderError) as error:
            self.problem = FileProblem(f"{self.name} could not be read completely", lasting=False)
            raise self.problem from error


def multipart(file: File) -> dict[str, Any]:
    """The headers and the content of a request that sends one file as `multipart/form-data`."""
    boundary = uuid.uuid4().hex
    name = "".join(_ESCAPED.get(letter, letter) for letter in file.name)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    if file.size is not None:
        headers["content-length"] = str(len(head) + file.size + len(tail))
    return {"headers": headers, "content": _framed(head, file, tail)}


async def _framed(head: bytes, file: File, tail: bytes) -> AsyncIterator[bytes]:
    yield head
    async for chunk in file:
        yield chunk
    yield tail


def is_url(source: str) -> bool:
    """Whether the source is an HTTP URL, and not a path in a folder."""
    return source.lower().startswith(("http://", "https://"))


def file_name(source: str) -> str:
    """The last part of a path or URL."""
    path = unquote(urlsplit(source).path) if is_url(source) else source
    return path.rstrip("/").rpartition("/")[2]


def folder_of(tenant: str, folder: Path | None) -> Path | None:
    """The folder of one tenant's files, which is named after it; of jobs without a tenant it is the whole folder.

    Raises FileProblem, which lasts: of some names there can be no folder.
    """
    if folder is None or not tenant:
        return folder
    if tenant in {".", ".."}:
        raise FileProblem(f"there can be no folder of the tenant {tenant!r}", lasting=True)
    return folder / tenant


async def locate(source: str, folder: Path | None, setting: str) -> Path:
    """The file of a path, which must be inside the folder that the operator allows.

    Args:
        source: a path, relative to the folder or absolute.
        folder: the folder, or that of the job's tenant in it; None allows no paths.
        setting: name of the folder's variable, for the message.

    Raises:
        FileProblem: lasting.
    """
    if folder is None:
        raise FileProblem(f"only URLs are allowed: {setting}, the folder for paths, is not set", lasting=True)
    return await asyncio.to_thread(_inside, source, folder, setting)


def _inside(source: str, folder: Path, setting: str) -> Path:
    root = folder.resolve()
    path = (root / source).resolve()
    if not path.is_relative_to(root):
        raise FileProblem(f"{source!r:.200} is outside the folder of {setting}", lasting=True)
    if not path.is_file():
        raise FileProblem(f"there is no file {source!r:.200} in the folder of {setting} on this machine", lasting=True)
    return path


@asynccontextmanager
async def open_path(path: Path, name: str) -> AsyncIterator[File]:
    """Open a file on this machine. Raises FileProblem."""
    try:
        handle = await asyncio.to_thread(path.open, "rb")
    except OSError as error:
        raise FileProblem(f"{path.name} cannot be read: {error.strerror}", lasting=True) from error
    try:
        yield File(name, _read(handle), os.fstat(handle.fileno()).st_size)
    finally:
        handle.close()


async def _read(handle: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(handle.read, CHUNK):
        yield chunk


@asynccontextmanager
async def open_url(url: str, name: str, exchange: Exchange, timeout: float) -> AsyncIterator[File]:
    """Open a file on another server; redirects are not followed. Raises FileProblem."""
    host = urlsplit(url).hostname
    opened = False
    try:
        # Without compression, Content-Length is the size of the file.
        request = httpx.Request("GET", url, headers={"accept-encoding": "identity"})
        async with exchange.stream(request, timeout=timeout) as answer:
            if answer.status_code != 200:
                raise _refused(host, answer.status_code)
            length = answer.headers.get("content-length", "")
            opened = True
            yield File(name, answer.aiter_raw(), int(length) if length.isdecimal() else None)
    except httpx.InvalidURL as error:
        raise FileProblem("the file's URL is malformed", lasting=True) from error
    except Withheld:
        raise
    except AddressRefused as error:
        raise FileProblem(f"the file's server {error}", lasting=True) from error
    except ProviderError as error:
        if opened:
            raise  # it comes from sending the file on, not from opening it
        raise FileProblem(f"cannot connect to the file's server {host}: {error.code}", lasting=False) from error


def _refused(host: str | None, status: int) -> FileProblem:
    lasting = status < 500 and status not in (408, 425, 429)
    return FileProblem(f"the file's server {host} answered {status}", lasting=lasting)
