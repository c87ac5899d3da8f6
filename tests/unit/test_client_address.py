"""Whose request it is behind proxies: what a caller writes into the header itself never counts."""

import pytest
from starlette.datastructures import Headers

from outwait.config.http_groups import WebSettings
from outwait.web.client_address import caller_of
from outwait.worker.model.networks import subscriber

PROXIES = "10.0.0.5,10.1.0.0/16,2001:db8:a::/48"


def headers(name: str, *values: str) -> Headers:
    return Headers(raw=[(name.encode(), value.encode()) for value in values])


@pytest.mark.parametrize(
    ("connected", "values", "caller"),
    [
        ("192.0.2.7", ["203.0.113.9"], "192.0.2.7"),  # no proxy of ours: it may say what it likes
        ("10.0.0.5", [], "10.0.0.5"),
        ("10.0.0.5", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.5", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),  # the caller wrote the first
        ("10.0.0.5", ["1.1.1.1", "203.0.113.9"], "203.0.113.9"),  # HAProxy adds a line of its own
        ("10.0.0.5", ["1.1.1.1, 203.0.113.9, 10.1.2.3"], "203.0.113.9"),  # two proxies
        ("10.0.0.5", ["10.1.0.9, 10.1.2.3"], "10.1.0.9"),  # the caller is in a trusted network
        ("10.0.0.5", ["203.0.113.9, unknown"], "10.0.0.5"),
        ("10.0.0.5", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.5", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.5", ["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.5", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.5", ["203.0.113.9"], "203.0.113.9"),
        ("2001:db8:a::1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.5", ["203.0.113.9,"], "10.0.0.5"),
        ("10.0.0.5", ['"><script>'], "10.0.0.5"),
        ("", ["203.0.113.9"], ""),
    ],
)
def test_the_last_address_that_is_no_proxy_counts(connected: str, values: list[str], caller: str) -> None:
    web = WebSettings(trusted_proxies=PROXIES)
    assert caller_of(connected, headers("x-forwarded-for", *values), web) == caller


@pytest.mark.parametrize(
    ("values", "caller"),
    [
        (["for=203.0.113.9"], "203.0.113.9"),
        (['for=1.1.1.1, For="[2001:db8::7]:4711";proto=https;by=10.0.0.5'], "2001:db8::7"),
        (['for="1.1.1.1', "proto=https; for=203.0.113.9 "], "203.0.113.9"),
        (["for=203.0.113.9, for=_hidden"], "10.0.0.5"),
        (["203.0.113.9"], "10.0.0.5"),
    ],
)
def test_the_other_header_is_read_if_the_proxies_write_it(values: list[str], caller: str) -> None:
    web = WebSettings(trusted_proxies=PROXIES, proxy_header="forwarded")
    assert caller_of("10.0.0.5", headers("forwarded", *values), web) == caller
    assert caller_of("10.0.0.5", headers("forwarded", *values), WebSettings(trusted_proxies=PROXIES)) == "10.0.0.5"


def test_without_trusted_proxies_no_header_is_read() -> None:
    assert caller_of("10.0.0.5", headers("x-forwarded-for", "203.0.113.9"), WebSettings()) == "10.0.0.5"


def test_an_ipv6_network_is_one_caller() -> None:
    assert subscriber("2001:db8:0:1::7") == subscriber("2001:db8:0:1:ffff::1") != subscriber("2001:db8:0:2::7")
    assert (subscriber("192.0.2.7"), subscriber(""), subscriber("testclient")) == ("192.0.2.7", "", "testclient")


def test_a_wrong_network_is_told() -> None:
    with pytest.raises(ValueError, match="addresses or networks"):
        WebSettings(trusted_proxies="proxy.internal")


def test_an_ipv4_address_has_one_form() -> None:
    assert caller_of("::ffff:192.0.2.7", Headers(raw=[]), WebSettings()) == "192.0.2.7"
