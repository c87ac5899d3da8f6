"""Sentinels, master and replicas that speak TLS only, and ask for certificates: everything works through them.

Protected by `RedisAddress` (config/urls.py), which gives every connection the same options.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx

from outwait.config.exits import Exit
from outwait.worker.local.embedded import free_port
from outwait.worker.model.jobs import JobState
from tests.faults.sentinels import NAME, SENTINEL_PASSWORD, Replicated
from tests.faults.test_failover import ANSWERS, SAFE, UNHURRIED, end_of, killed, produce
from tests.patience import PATIENCE, until
from tests.stack import Stack, query

JOBS, PRODUCERS = 40, 8

PRODUCER = """
import json, ssl, sys
from celery import Celery
urls, queue, options, request = sys.argv[1:]
options = json.loads(options)
tls = {name: value for name, value in options["sentinel_kwargs"].items() if name.startswith("ssl_")}
tls["ssl_cert_reqs"] = ssl.CERT_REQUIRED
app = Celery("shop", broker=urls, backend=urls)
app.conf.update(
    broker_transport_options=options, result_backend_transport_options=options,
    broker_use_ssl=tls, redis_backend_use_ssl=tls,
)
print(app.send_task("tasks.submit", kwargs=json.loads(request), queue=queue).get(timeout=150))
"""
"""A service with nothing but Celery, configured as docs/operations.md says."""


async def test_a_failover_over_tls_loses_nothing_and_pays_nothing_twice(tmp_path: Path) -> None:
    with (
        Replicated(tmp_path / "redis", tls=True) as redis,
        Stack(redis.url, tmp_path, options=ANSWERS, variables={**UNHURRIED, **SAFE}) as stack,
    ):
        workers = [stack.worker(), stack.worker()]
        stack.web()
        assert "by message" in await produced(stack, redis)
        async with stack.client() as client:
            names = [f"job-{number}" for number in range(JOBS)]
            accepted: list[str] = []
            producing = asyncio.gather(*(produce(client, names[n::PRODUCERS], accepted) for n in range(PRODUCERS)))
            await until(lambda: reached(accepted), what="a third of the jobs is accepted")
            await asyncio.to_thread(killed, redis)
            await producing
            assert {await end_of(client, name) for name in names} == {JobState.SUCCEEDED.value}
        assert stack.ledger()["totals"]["unless"]["repeated_submits"] == 0
        assert [worker.poll() for worker in workers] == [None, None]
        ready = await asyncio.to_thread(httpx.get, f"{stack.web_url}/readyz", timeout=PATIENCE)
        assert ready.status_code == 200, ready.text
        found = await asyncio.to_thread(stack.run, "doctor", "--no-providers")
        assert found.returncode == 0, found.stdout + found.stderr
        await flower_shows_the_queues(stack)


async def reached(accepted: list[str]) -> bool:
    return len(accepted) >= JOBS // 3


async def produced(stack: Stack, redis: Replicated) -> str:
    """What a producer in a process of its own gets back."""
    options = {"master_name": NAME, "sentinel_kwargs": {"password": SENTINEL_PASSWORD, **redis.client_options}}
    request = query("by message").model_dump_json(exclude_unset=True)
    urls = stack.settings.redis_address.kombu_url
    words = [sys.executable, "-c", PRODUCER, urls, stack.settings.intake.queue, json.dumps(options), request]
    sent = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return sent.stdout + sent.stderr


async def flower_shows_the_queues(stack: Stack) -> None:
    port, login = free_port(), "ada:lovelace"
    variables = {"OUTWAIT_FLOWER__PORT": str(port), "OUTWAIT_FLOWER__BASIC_AUTH": login}
    stack.start([sys.executable, "-m", "outwait", "flower"], "flower", **variables)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", auth=tuple(login.split(":"))) as flower:

        async def shown() -> bool:
            try:
                return f"{stack.settings.namespace}.submit" in (await flower.get("/broker")).text
            except httpx.HTTPError:
                return False

        await until(shown, what="Flower shows the queues")


def test_doctor_says_what_is_wrong_with_the_url(tmp_path: Path) -> None:
    with Replicated(tmp_path / "redis", replicas=0, tls=True) as redis, Stack(redis.url, tmp_path) as stack:
        authority = redis.tls_options.strip("&").partition("&")[0]
        direct = f"127.0.0.1:{redis.ports[0]}/0"
        for url, advice in (
            (f"sentinels://{redis.place}", "name the authority (ssl_ca_certs)"),
            (f"sentinels://{redis.place}&{authority}", "give ours (ssl_certfile"),
            (f"sentinel://{redis.place}", "with sentinels://"),
            (f"rediss://{direct}", "name the authority (ssl_ca_certs)"),
            (f"redis://{direct}", "with rediss://"),
        ):
            assert advice in doctor(stack, url)


def test_doctor_says_that_a_port_has_no_tls(redis_url: str, tmp_path: Path) -> None:
    with Stack(redis_url, tmp_path) as stack:
        assert "with redis://" in doctor(stack, redis_url.replace("redis://", "rediss://"))


def doctor(stack: Stack, url: str) -> str:
    stack.variables |= {"OUTWAIT_REDIS_URL": url, "OUTWAIT_STORE__TIMEOUT": "5"}
    found = stack.run("doctor", "--no-providers")
    assert found.returncode == Exit.FAILED, url
    assert "0x" not in found.stdout, "the inside of a library is shown"
    return " ".join((found.stdout + found.stderr).split())
