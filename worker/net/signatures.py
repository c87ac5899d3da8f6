"""Signs webhooks according to Standard Webhooks, with a secret for each receiver. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
"""The start of every receiver's secret."""

_PURPOSE = b"outwait webhook v1\n"


def secret(master: str, receiver: str) -> str:
    """The secret of one receiver, as text. Neither the master nor another receiver's secret can be derived from it.

    Args:
        master: one of OUTWAIT_WEBHOOKS__SECRETS.
        receiver: the receiver's URL in canonical form, without its query.
    """
    return PREFIX + _text(_key(master, receiver))


def signed(masters: Sequence[str], receiver: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of one attempt.

    Args:
        masters: each of them adds a signature, so that a receiver may use the secret of any of them.
        receiver: the receiver's URL in canonical form, without its query.
        message_id: the same for every attempt. It must not contain a line break or end in a dot and digits, so that
            the signed text can be split in only one way.
        timestamp: when this attempt is sent, seconds since 1970.
        body: the bytes that are sent.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = (hmac.digest(_key(master, receiver), content, hashlib.sha256) for master in masters)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{_text(signature)}" for signature in signatures),
    }


def _key(master: str, receiver: str) -> bytes:
    return hmac.digest(master.encode(), _PURPOSE + receiver.encode(), hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
