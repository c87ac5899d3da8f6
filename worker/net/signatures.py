"""Signs webhooks according to Standard Webhooks, with a secret for each tenant and receiver. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
"""The start of every receiver's secret."""

_PURPOSE = b"outwait webhook v1\n"
_TENANT_PURPOSE = b"outwait webhook v2\n"


def secret(master: str, receiver: str, tenant: str = "") -> str:
    """The secret of one receiver, as text. Neither the master nor another secret can be derived from it.

    Args:
        master: one of OUTWAIT_WEBHOOKS__SECRETS.
        receiver: the receiver's URL in canonical form, without its query.
        tenant: whose results it gets; "" for jobs without a tenant, and for receivers that serve all tenants.
    """
    return PREFIX + _text(_key(master, receiver, tenant))


def signed(
    masters: Sequence[str],
    receiver: str,
    message_id: str,
    timestamp: int,
    body: bytes,
    tenants: Sequence[str] = ("",),
) -> dict[str, str]:
    """The headers of one attempt.

    Args:
        masters: each of them adds a signature, so that a receiver may use the secret of any of them.
        receiver: the receiver's URL in canonical form, without its query.
        message_id: the same for every attempt. It must not contain a line break or end in a dot and digits, so that
            the signed text can be split in only one way.
        timestamp: when this attempt is sent, seconds since 1970.
        body: the bytes that are sent.
        tenants: each of them adds a signature too.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    keys = (_key(master, receiver, tenant) for master in masters for tenant in tenants)
    signatures = (hmac.digest(key, content, hashlib.sha256) for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{_text(signature)}" for signature in signatures),
    }


def _key(master: str, receiver: str, tenant: str) -> bytes:
    # Without a tenant it is what earlier releases derived. Neither a tenant nor a URL has a line break.
    purpose = _TENANT_PURPOSE + tenant.encode() + b"\n" if tenant else _PURPOSE
    return hmac.digest(master.encode(), purpose + receiver.encode(), hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
