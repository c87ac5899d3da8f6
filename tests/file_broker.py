"""Kombu's file transport, mended for tests: a message appears in its folder whole, or not yet."""

import os
import uuid
from pathlib import Path
from time import monotonic_ns
from typing import Any

from kombu.transport import filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):  # type: ignore[misc] # kombu is typed in part
    """Kombu's own creates the file first and then writes it, and a reader may come in between."""

    def _put(self, queue: str, payload: Any, **_options: Any) -> None:
        name = f"{monotonic_ns()}_{uuid.uuid4()}.{queue}.msg"
        written = Path(self.control_folder) / name
        written.write_text(dumps(payload))
        os.replace(written, Path(self.data_folder_out) / name)  # noqa: PTH105 - said so: it is atomic


class Transport(filesystem.Transport):  # type: ignore[misc] # kombu is typed in part
    """Named in `broker_transport`."""

    Channel = Channel
