import asyncio
import time
from typing import Any, ClassVar

import pytest

from outwait.sandbox import Fault
from outwait.sandbox.behaviour import Call, FaultKind, Outcome
from outwait.worker.model.errors import NotSent, RateLimited, Unauthorized
from outwait.worker.providers.contract import Failed, Pending, Succeeded
from outwait.worker.providers.exchange import Count
from tests.contract.provider_contract import ProviderContract, Start
from tests.patience import PATIENCE


class TestRingCentral(ProviderContract):
    name = "ringcentral"
    operation = "speech-to-text"
    params: ClassVar[dict[str, Any]] = {"contentUri": "https://media.example.com/1.mp3", "encoding": "Mpeg"}
    wrong: ClassVar[dict[str, Any]] = {"client_secret": "wrong"}

    @pytest.mark.parametrize(
        ("operation", "params"),
        [
            ("speaker-diarize", {"speakerCount": -1}),
            ("speaker-identify", {"speakerIds": ["anna_1"]}),
            ("analyze-interaction", {"insights": ["KeyPhrases", "Topics"]}),
            ("punctuate", {"texts": ["so this is it"]}),
            (
                "summarize",
                {"summaryType": "All", "utterances": [{"speakerId": "1", "text": "hello", "start": 0, "end": 1.5}]},
            ),
            ("summarize", {"utterances": [{"text": "hello"}]}),
        ],
    )
    async def test_every_operation(
        self, start: Start, monkeypatch: pytest.MonkeyPatch, operation: str, params: dict[str, Any]
    ) -> None:
        media = {} if operation in ("punctuate", "summarize") else self.params
        monkeypatch.setattr(type(self), "operation", operation)
        monkeypatch.setattr(type(self), "params", {**media, **params})
        world = await start()
        assert isinstance(await world.finish(await world.submit()), Succeeded)
        assert (await world.jobs())[0]["operation"] == operation

    async def test_a_failed_job_carries_the_vendors_code(self, start: Start) -> None:
        world = await start(behaviour={"outcome": Outcome.DOWNLOAD_FAILURE})
        answer = await world.finish(await world.submit())
        assert isinstance(answer, Failed)
        assert answer.code == "CAI-101"
        assert answer.message.startswith("Media cannot be fetched")
        assert "1.mp3" not in f"{answer}", "a media URL may carry an access token"

    async def test_many_jobs_and_two_processes_share_one_token(self, start: Start) -> None:
        world = await start()
        here, there = world.registry(), world.registry()
        await asyncio.gather(*(world.submit(registry) for registry in (here, there) for _ in range(20)))
        arrived = await world.requests()
        assert arrived["token"] == 1
        assert arrived["submit"] == 40
        await self.counted(world)

    async def test_a_token_is_renewed_before_it_ends(self, start: Start) -> None:
        world = await start(token_ttl=8)
        registry = world.registry()
        begun, submits = time.monotonic(), 0
        while (await world.requests())["token"] < 2:
            await world.submit(registry)
            submits += 1
            await asyncio.sleep(0.05)
        assert time.monotonic() - begun > 5
        assert (await world.requests())["submit"] == submits, "no request was refused with 401 and repeated"

    async def test_a_refused_token_is_replaced_once_and_the_submit_repeated(self, start: Start) -> None:
        world = await start()
        await world.registry().get("ringcentral").prepare(world.exchange)
        registry = world.registry()
        await registry.get("ringcentral").prepare(world.exchange)  # the token of the store, of unknown age
        await world.control("reset", {})
        await asyncio.gather(*(world.submit(registry) for _ in range(5)))
        arrived = await world.requests()
        assert arrived["token"] == 1
        assert arrived["submit"] == 10
        assert len(await world.jobs()) == 5
        await self.counted(world)

    async def test_a_new_token_that_is_refused_too_is_not_replaced_again(self, start: Start) -> None:
        world = await start(Fault(fault=FaultKind.ERROR, on=Call.SUBMIT, status=401, times=None))
        registry = world.registry()
        for _ in range(3):
            await self.fails(Unauthorized, world.submit(registry))
        assert (await world.requests())["token"] == 1

    async def test_without_a_token_nothing_leaves_and_nobody_asks_again_at_once(self, start: Start) -> None:
        world = await start(Fault(fault=FaultKind.ERROR, on=Call.TOKEN, status=503, seconds=3600))
        registry = world.registry()
        for _ in range(3):
            error = await self.fails(NotSent, world.submit(registry))
            assert error.retry_after == pytest.approx(3600, abs=PATIENCE)
            assert world.exchange.pause == pytest.approx(3600, abs=PATIENCE)
        assert (await world.requests())["token"] == 1
        assert world.exchange.ledger.total() == 0
        world.converse(time_limit=0.3)
        await self.fails(NotSent, world.submit(world.registry()))  # another process: the lock keeps it from asking too
        assert (await world.requests())["token"] == 1

    async def test_after_a_failed_token_request_the_silence_ends_when_it_was_said_to(self, start: Start) -> None:
        world = await start(Fault(fault=FaultKind.ERROR, on=Call.TOKEN, status=503, seconds=1))
        registry = world.registry()
        error = await self.fails(NotSent, world.submit(registry))
        assert error.retry_after == pytest.approx(1, abs=0.2)
        await asyncio.sleep(error.retry_after or 0)
        await world.submit(registry)  # a lock of our own that stayed would fail it

    async def test_wrong_credentials_are_told_in_the_vendors_words(self, start: Start) -> None:
        world = await start()
        error = await self.fails(Unauthorized, world.submit(world.registry(jwt="wrong")))
        assert "OAU-210" in str(error)
        assert "Invalid assertion" in str(error)
        assert world.exchange.pause == pytest.approx(60, abs=10)

    async def test_an_old_token_serves_while_none_can_be_had(self, start: Start) -> None:
        world = await start(Fault(fault=FaultKind.ERROR, on=Call.TOKEN, status=500, times=None), token_ttl=3600)
        await world.control("reset", {})
        await world.control("behaviour", {})
        await world.submit()
        registry = world.registry()
        name = registry.get("ringcentral")._token._name  # type: ignore[attr-defined]
        token = (await world.tokens.token(name) or ("", 0))[0]
        await world.tokens.put_token(name, token, ttl_s=60)
        order = {"faults": [{"fault": "error", "on": "token", "status": 500, "times": None}]}
        await world.control("behaviour", order)
        await world.submit(registry)
        assert (await world.requests())["token"] == 2, "one more was asked for, in vain"

    async def test_the_last_request_of_a_window_asks_for_silence(self, start: Start) -> None:
        world = await start(heavy_limit=2, window=33)
        submitted = await world.submit()
        assert world.exchange.pause is None
        await world.poll(submitted)
        assert world.exchange.pause == 33
        await self.fails(RateLimited, world.poll(submitted))

    async def test_a_webhook_is_asked_for_in_the_query(self, start: Start) -> None:
        world = await start(behaviour={"webhook": "never"})
        url = "https://hooks.example.com/outwait/a%20b?token=x&y=ü#z"
        submitted = await world.submit(webhook_url=url)
        assert (await world.jobs())[0]["webhook"] == url
        assert submitted.first_poll == 300
        answer = await world.poll(submitted)
        assert isinstance(answer, Pending)
        assert answer.safety == 300, "polling is the safety net only"

    async def test_an_answer_of_nothing_means_that_the_webhook_follows(self, start: Start) -> None:
        world = await start(Fault(fault=FaultKind.EMPTY, on=Call.SUBMIT))
        assert (await world.submit(webhook_url="https://hooks.example.com/x")).external_id == ""

    async def test_a_503_is_a_refusal(self, start: Start) -> None:
        world = await start()
        assert 503 in world.registry().get("ringcentral").refused

    async def test_a_repeated_submit_is_counted(self, start: Start) -> None:
        world = await start(Fault(fault=FaultKind.ERROR, on=Call.SUBMIT, status=401))
        first = world.registry()
        await first.get("ringcentral").prepare(world.exchange)
        await world.submit(world.registry())  # finds the token in the store, and cannot know how new it is
        assert world.exchange.ledger[Count.SUBMITS] == 2
        assert (await world.requests())["token"] == 2
