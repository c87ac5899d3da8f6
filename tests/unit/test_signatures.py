import base64
import time

import pytest
import standardwebhooks
import svix.webhooks
from hypothesis import given
from hypothesis import strategies as st

from outwait.worker.net.signatures import secret, signed

OLD, NEW = "old-master-secret-with-32-characters", "new-master-secret-with-32-characters"
RECEIVER = "https://shop.example/hook"


@given(st.binary(max_size=200).map(lambda data: b'"' + base64.b64encode(data) + b'"'), st.integers(1, 99))
def test_two_verifiers_that_no_one_here_wrote_accept_a_signature(body: bytes, number: int) -> None:
    sent = signed([NEW], RECEIVER, f"job-1.5#{number}", int(time.time()), body)
    shown = secret(NEW, RECEIVER)
    standardwebhooks.Webhook(shown).verify(body, sent, json_parse=False)
    svix.webhooks.Webhook(shown).verify(
        b'"' + body + b'"', signed([NEW], RECEIVER, "a#1", int(time.time()), b'"' + body + b'"')
    )


def test_while_secrets_rotate_a_receiver_may_hold_either() -> None:
    sent = signed([NEW, OLD], RECEIVER, "job-1#1", int(time.time()), b"{}")
    assert [part.partition(",")[0] for part in sent["webhook-signature"].split(" ")] == ["v1", "v1"]
    newest = signed([NEW], RECEIVER, "job-1#1", int(sent["webhook-timestamp"]), b"{}")["webhook-signature"]
    assert sent["webhook-signature"].startswith(newest)
    for master in (OLD, NEW):
        standardwebhooks.Webhook(secret(master, RECEIVER)).verify(b"{}", sent)


@pytest.mark.parametrize(
    "receiver", ["https://shop.example/hook2", "https://other.example/hook", "http://shop.example/hook"]
)
def test_no_receiver_can_sign_for_another(receiver: str) -> None:
    sent = signed([NEW], RECEIVER, "job-1#1", int(time.time()), b"{}")
    assert secret(NEW, receiver) != secret(NEW, RECEIVER)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret(NEW, receiver)).verify(b"{}", sent)


@pytest.mark.parametrize("tenant", ["", "mallory", "acm", "acmehttps", "ACME"])
def test_no_tenant_s_result_is_signed_for_another_s_receiver(tenant: str) -> None:
    sent = signed([NEW], RECEIVER, "job-1#1", int(time.time()), b"{}", [tenant])
    standardwebhooks.Webhook(secret(NEW, RECEIVER, tenant)).verify(b"{}", sent)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret(NEW, RECEIVER, "acme")).verify(b"{}", sent)


def test_a_receiver_of_all_tenants_may_hold_the_shared_secret_or_the_tenant_s() -> None:
    sent = signed([NEW, OLD], RECEIVER, "job-1#1", int(time.time()), b"{}", ["", "acme"])
    for master in (OLD, NEW):
        for tenant in ("", "acme"):
            standardwebhooks.Webhook(secret(master, RECEIVER, tenant)).verify(b"{}", sent)


def test_the_signature_covers_id_time_and_body() -> None:
    sent = signed([NEW], RECEIVER, "job-1#1", int(time.time()), b"{}")
    check = standardwebhooks.Webhook(secret(NEW, RECEIVER)).verify
    check(b"{}", sent)
    for body, changed in (
        (b"[]", {}),
        (b"{}", {"webhook-id": "job-2#1"}),
        (b"{}", {"webhook-timestamp": str(int(sent["webhook-timestamp"]) + 1)}),
    ):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            check(body, {**sent, **changed})


def test_a_secret_never_changes() -> None:
    # Receivers hold it: another derivation would make all of them refuse what we send.
    assert secret(NEW, RECEIVER) == "whsec_NCBjGmBo+ZT23MHLZg79tmbpak6O0LcBrQgk6jipJm8="
    assert secret(NEW, RECEIVER, "acme") == "whsec_BNfp3NsriRaLwTz1Qf44MS+Ojo5z4cfXai2yxg1ipvw="
