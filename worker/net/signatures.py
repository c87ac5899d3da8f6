"""Signs webhooks as Standard Webhooks lays down, with a secret for each receiver. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
"""How the text of a receiver's secret begins."""

_PURPOSE = b"outwait webhook v1\n"


def secret(master: str, endpoint: str) -> str:
    """The secret of one receiver, as it is told: nobody gets another one's from it, nor the master.

    Args:
        master: one of OUTWAIT_WEBHOOKS__SECRETS.
        endpoint: the receiver's URL in canonical form, without its query.
    """
    return PREFIX + _text(_key(master, endpoint))


def signed(masters: Sequence[str], endpoint: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of one attempt.

    Args:
        masters: each makes a signature, so that a receiver may hold the secret of any.
        endpoint: the receiver's URL in canonical form, without its query.
        message_id: the same at every attempt. It holds no line break and does not end like a number: then no other
            split of what is signed makes sense.
        timestamp: when this attempt is sent, seconds since 1970.
        body: the bytes that are sent.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = (hmac.digest(_key(master, endpoint), content, hashlib.sha256) for master in masters)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{_text(signature)}" for signature in signatures),
    }


def _key(master: str, endpoint: str) -> bytes:
    return hmac.digest(master.encode(), _PURPOSE + endpoint.encode(), hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
