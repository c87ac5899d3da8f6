"""What our Redis URLs mean, and the URLs that Celery gets for them."""

import ssl

import pytest

from outwait.config.celery import celery_config
from outwait.config.settings import Settings
from outwait.config.urls import RedisAddress, address_of

REQUIRED = {"ssl_cert_reqs": ssl.CERT_REQUIRED}


@pytest.mark.parametrize(
    ("url", "address", "kombu"),
    [
        ("redis://h", RedisAddress((("h", 6379),)), "redis://h:6379/0"),
        ("valkey://h:7/3", RedisAddress((("h", 7),), 3), "redis://h:7/3"),
        ("valkeys://h/1", RedisAddress((("h", 6379),), 1, tls=REQUIRED), "rediss://h:6379/1"),
        (
            "redis://us%40er:p%2Fw@[::1]:7/0",
            RedisAddress((("::1", 7),), username="us@er", password="p/w"),
            "redis://us%40er:p%2Fw@[::1]:7/0",
        ),
        (
            "unix://:pw@/run/redis.sock?db=2",
            RedisAddress((), 2, password="pw", socket="/run/redis.sock"),
            "redis+socket://:pw@/run/redis.sock?virtual_host=2",
        ),
        (
            "sentinels://:pw@a:1,b/jobs/4?sentinel_password=s%2Fp&ssl_cert_reqs=none",
            RedisAddress(
                (("a", 1), ("b", 26379)),
                4,
                password="pw",
                tls={"ssl_cert_reqs": ssl.CERT_NONE},
                master="jobs",
                login={"password": "s/p"},
            ),
            "sentinel://:pw@a:1/4;sentinel://:pw@b:26379/4",
        ),
    ],
)
def test_an_address_is_read_and_told_to_celery(url: str, address: RedisAddress, kombu: str) -> None:
    assert address_of(url) == address
    assert address_of(url).kombu_url == kombu


def test_celery_logs_in_to_the_sentinels_too() -> None:
    settings = Settings(redis_url="sentinels://:pw@a,b/jobs?sentinel_password=sp", _env_file=None)
    config = celery_config(settings)
    for options in (config["broker_transport_options"], config["result_backend_transport_options"]):
        assert options["master_name"] == "jobs"
        assert options["sentinel_kwargs"].items() >= {"password": "sp", "ssl": True, **REQUIRED}.items()
    assert config["broker_use_ssl"] == REQUIRED


def test_no_password_is_shown() -> None:
    address = address_of("sentinel://me:pw1@a,b/jobs?sentinel_password=pw2")
    assert address.shown == "a,b (jobs)"


def test_two_urls_of_one_server_are_one_place() -> None:
    same = address_of("redis://:pw@h:6379/0"), address_of("valkey://h")
    assert same[0].place == same[1].place
    assert same[0].place != address_of("redis://h/1").place
