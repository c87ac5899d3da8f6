import asyncio
import hashlib
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from outwait.sandbox import Fault
from outwait.sandbox.behaviour import Call, FaultKind, Outcome
from outwait.worker.model.errors import AnswerLost, ExternalIdUnknown, Rejected, Unavailable
from outwait.worker.providers.contract import Failed, Pending, SubmitAnswer, Succeeded
from tests.contract.provider_contract import ProviderContract, Start, World, web_app
from tests.patience import PATIENCE

CLIP = bytes(range(256)) * 3000
CHAT = {
    "participants": [{"participant_id": "a", "name": "Ann", "role": "agent"}],
    "messages": [{"participant_id": "a", "timestamp": "2024-01-01T00:00:00Z", "content": "Hello"}],
}
SPEECH = {"phrases": ["Hello"], "phraseSegments": [{"startTimeOffset": 0, "endTimeOffset": 900, "phraseIndex": 0}]}

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]


class TestElevateAI(ProviderContract):
    name = "elevateai"
    operation = "audio"
    params: ClassVar[dict[str, Any]] = {
        "languageTag": "en-us",
        "downloadUri": "https://media.example.com/1.mp3?access_token=abc",
        "includeAiResults": True,
    }
    wrong: ClassVar[dict[str, Any]] = {"api_token": "wrong"}

    @pytest.fixture
    async def serve(self) -> AsyncIterator[Serve]:
        servers: list[TestServer] = []

        async def begin(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> str:
            server = TestServer(web_app(web.get("/call.wav", answer)))
            await server.start_server()
            servers.append(server)
            return str(server.make_url("/call.wav?sig=secret"))

        yield begin
        for server in servers:
            await server.close()

    @pytest.fixture
    def clip(self, tmp_path: Path) -> Path:
        path = tmp_path / "clip.wav"
        path.write_bytes(CLIP)
        return path

    async def test_every_part_of_an_audio_result_is_read(self, start: Start) -> None:
        world = await start()
        answer = await world.finish(await world.submit())
        assert isinstance(answer, Succeeded)
        assert answer.result["interaction"]["status"] == "processed"
        assert answer.result["transcript"]["allParticipants"]
        assert answer.result["punctuated"]["sentenceSegments"]
        assert answer.result["ai"]
        assert (await world.requests())["fetch"] == 3

    async def test_ai_results_that_nobody_asked_for_are_not_read(self, start: Start) -> None:
        world = await start()
        world.params["includeAiResults"] = False
        answer = await world.finish(await world.submit())
        assert isinstance(answer, Succeeded)
        assert answer.result["ai"] is None
        assert (await world.requests())["fetch"] == 2

    async def test_an_empty_punctuated_transcript(self, start: Start) -> None:
        world = await start(behaviour={"punctuated_empty": True})
        answer = await world.finish(await world.submit())
        assert isinstance(answer, Succeeded)
        assert answer.result["punctuated"] == {}
        assert answer.result["transcript"]

    @pytest.mark.parametrize(
        ("operation", "params"),
        [
            ("chat", {"chat": CHAT}),
            ("transcript", {"transcript": {"allParticipants": SPEECH, "participantOne": SPEECH}}),
        ],
    )
    @pytest.mark.parametrize("ai", [True, False])
    async def test_texts_have_ai_results_only(
        self, start: Start, monkeypatch: pytest.MonkeyPatch, operation: str, params: dict[str, Any], *, ai: bool
    ) -> None:
        monkeypatch.setattr(type(self), "operation", operation)
        monkeypatch.setattr(type(self), "params", {"languageTag": "en", "includeAiResults": ai, **params})
        world = await start()
        answer = await world.finish(await world.submit())
        assert isinstance(answer, Succeeded)
        assert (answer.result["transcript"], answer.result["punctuated"]) == (None, None)
        assert bool(answer.result["ai"]) == ai
        assert (await world.requests())["fetch"] == 1

    async def test_a_result_that_comes_late_is_not_given_up(self, start: Start) -> None:
        world = await start(Fault(fault=FaultKind.ERROR, on=Call.FETCH, status=404))
        submitted = await world.submit()
        memos, answer = [], await world.poll(submitted)
        while isinstance(answer, Pending):
            memos.append((answer.warning, answer.memo))
            answer = await world.poll(SubmitAnswer(submitted.external_id, answer.memo or submitted.memo))
        assert memos[-1] == ("processed, but there is no transcript yet", "1.0.1")
        assert isinstance(answer, Succeeded)
        assert answer.result["transcript"]

    async def test_a_result_that_never_comes_is_told_as_absent(self, start: Start) -> None:
        world = await start(Fault(fault=FaultKind.ERROR, on=Call.FETCH, status=404, times=None))
        answer = await world.finish(await world.submit())
        assert isinstance(answer, Succeeded)
        assert [answer.result[part] for part in ("transcript", "punctuated", "ai")] == [None, None, None]
        assert (await world.requests())["fetch"] == 12

    async def test_a_fetch_that_fails_ends_nothing(self, start: Start) -> None:
        world = await start(Fault(fault=FaultKind.ERROR, on=Call.FETCH), behaviour={"duration": 0})
        submitted = await world.submit()
        await self.fails(Unavailable, world.poll(submitted))
        assert isinstance(await world.poll(submitted), Succeeded)
        await self.counted(world)

    async def test_a_file_that_cannot_be_downloaded(self, start: Start) -> None:
        world = await start(behaviour={"outcome": Outcome.DOWNLOAD_FAILURE})
        answer = await world.finish(await world.submit())
        assert isinstance(answer, Failed)
        assert answer.code == "fileDownloadFailed"
        assert "abc" not in answer.message

    async def test_the_job_can_be_found_by_its_id(self, start: Start) -> None:
        world = await start()
        await world.submit()
        assert (await world.jobs())[0]["text"] == "job-1"

    async def test_a_file_of_the_folder_is_uploaded(self, start: Start, clip: Path) -> None:
        world = await self.with_file(start, "clip.wav")
        registry = world.registry(upload_folder=str(clip.parent))
        submitted = await world.submit(registry)
        assert submitted.first_poll == 0
        assert isinstance(await world.finish(submitted, registry), Succeeded)
        assert await self.uploaded(world) == [("clip.wav", len(CLIP), hashlib.sha256(CLIP).hexdigest())]
        await self.counted(world)

    @pytest.mark.parametrize("sized", [True, False])
    async def test_a_file_at_a_url_is_passed_on(self, start: Start, serve: Serve, *, sized: bool) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            assert request.headers["accept-encoding"] == "identity"
            response = web.StreamResponse()
            if sized:
                response.content_length = len(CLIP)
            await response.prepare(request)
            for at in range(0, len(CLIP), 100_000):
                await response.write(CLIP[at : at + 100_000])
            return response

        world = await self.with_file(start, await serve(answer), originalFilename='a "b" ü.wav')
        assert isinstance(await world.finish(await world.submit()), Succeeded)
        assert await self.uploaded(world) == [("a %22b%22 ü.wav", len(CLIP), hashlib.sha256(CLIP).hexdigest())]
        await self.counted(world)

    async def test_a_large_file_is_never_whole_in_memory(self, start: Start, tmp_path: Path) -> None:
        with (tmp_path / "large.wav").open("wb") as file:
            file.truncate(64 << 20)
        world = await self.with_file(start, "large.wav")
        registry = world.registry(upload_folder=str(tmp_path))
        submitted = await world.submit(registry)
        tracemalloc.start()
        answer = await world.poll(submitted, registry)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert isinstance(answer, Pending)
        assert (await self.uploaded(world))[0][1] == 64 << 20
        assert peak < 8 << 20

    async def test_a_failed_upload_is_repeated(self, start: Start, clip: Path) -> None:
        world = await self.with_file(start, str(clip), behaviour={"upload_failures": 2})
        registry = world.registry(upload_folder=str(clip.parent))
        assert isinstance(await world.finish(await world.submit(registry), registry), Succeeded)
        assert len(await self.uploaded(world)) == 3

    async def test_uploads_end(self, start: Start, clip: Path) -> None:
        world = await self.with_file(start, "clip.wav", behaviour={"upload_failures": 99})
        registry = world.registry(upload_folder=str(clip.parent), upload_tries=2)
        answer = await world.finish(await world.submit(registry), registry)
        assert isinstance(answer, Failed)
        assert answer.code == "upload_failed"
        assert "after 2 uploads" in answer.message
        assert (await world.requests())["upload"] == 2

    async def test_a_file_that_is_too_large_for_the_vendor(self, start: Start, clip: Path) -> None:
        world = await self.with_file(start, "clip.wav", upload_max=1000)
        registry = world.registry(upload_folder=str(clip.parent))
        answer = await world.finish(await world.submit(registry), registry)
        assert isinstance(answer, Failed)
        assert answer.code == "upload_refused"
        assert "413" in answer.message

    async def test_an_upload_whose_answer_is_lost_is_not_repeated(self, start: Start, clip: Path) -> None:
        world = await self.with_file(start, "clip.wav", faults=[Fault(fault=FaultKind.DROP_AFTER, on=Call.UPLOAD)])
        registry = world.registry(upload_folder=str(clip.parent))
        submitted = await world.submit(registry)
        await self.fails(AnswerLost, world.poll(submitted, registry))
        assert isinstance(await world.finish(submitted, registry), Succeeded)
        assert len(await self.uploaded(world)) == 1

    async def test_a_file_that_was_uploaded_already(self, start: Start, clip: Path) -> None:
        world = await self.with_file(start, "clip.wav", behaviour={"word": "filePendingUpload", "duration": 60})
        registry = world.registry(upload_folder=str(clip.parent))
        submitted = await world.submit(registry)
        await world.poll(submitted, registry)
        answer = await world.poll(submitted, registry)
        assert isinstance(answer, Pending)
        assert answer.warning == "the file was uploaded already"

    async def test_an_upload_has_a_time_limit_of_its_own(self, start: Start, clip: Path) -> None:
        world = await self.with_file(start, "clip.wav", faults=[Fault(fault=FaultKind.HANG, on=Call.UPLOAD)])
        registry = world.registry(upload_folder=str(clip.parent), upload_time_limit=0.3)
        world.converse(time_limit=2 * PATIENCE)
        async with asyncio.timeout(PATIENCE):
            await self.fails(AnswerLost, world.poll(await world.submit(registry), registry))

    @pytest.mark.parametrize(
        ("source", "folder", "message"),
        [
            ("clip.wav", None, "OUTWAIT_PROVIDERS__ELEVATEAI__UPLOAD_FOLDER, the folder for paths, is not set"),
            ("../secret.wav", "here", "is outside the folder"),
            ("/etc/hosts.wav", "here", "is outside the folder"),
            ("link.wav", "here", "is outside the folder"),
            ("missing.wav", "here", "there is no file"),
        ],
    )
    async def test_a_path_is_refused_before_anything_is_declared(
        self, start: Start, tmp_path: Path, source: str, folder: str | None, message: str
    ) -> None:
        (tmp_path / "secret.wav").write_bytes(CLIP)
        (tmp_path / "here").mkdir()
        (tmp_path / "here" / "link.wav").symlink_to(tmp_path / "secret.wav")
        world = await self.with_file(start, source)
        registry = world.registry(upload_folder=folder and str(tmp_path / folder))
        assert message in str(await self.fails(Rejected, world.submit(registry)))
        assert await world.jobs() == []

    @pytest.mark.parametrize("status", [301, 403, 404, 410])
    async def test_a_source_that_is_gone_fails_the_job(self, start: Start, serve: Serve, status: int) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, headers={"location": "http://169.254.169.254/"})

        world = await self.with_file(start, await serve(answer))
        ended = await world.finish(await world.submit())
        assert isinstance(ended, Failed)
        assert ended.code == "file_unreadable"
        assert str(status) in ended.message
        assert "secret" not in f"{ended}"

    async def test_a_source_inside_our_network_is_never_asked(self, start: Start, serve: Serve) -> None:
        asked = []

        async def answer(request: web.Request) -> web.StreamResponse:
            asked.append(request)
            return web.Response(body=CLIP)

        world = await self.with_file(start, (await serve(answer)).replace("127.0.0.1", "127.0.0.2"))
        ended = await world.finish(await world.submit())
        assert isinstance(ended, Failed)
        assert ended.code == "file_unreadable"
        assert "127.0.0.2 has no public address" in ended.message
        assert "OUTWAIT_OUTBOUND__ALLOW" in ended.message
        assert not asked

    async def test_a_source_that_breaks_off_is_tried_again(self, start: Start, serve: Serve) -> None:
        asked = []

        async def answer(request: web.Request) -> web.StreamResponse:
            asked.append(request)
            if len(asked) == 1:
                return web.Response(status=503)
            response = web.StreamResponse()
            response.content_length = len(CLIP)
            await response.prepare(request)
            await response.write(CLIP if len(asked) > 2 else CLIP[:70_000])
            if len(asked) == 2 and request.transport is not None:
                request.transport.close()
            return response

        world = await self.with_file(start, await serve(answer))
        submitted = await world.submit()
        warnings = []
        while isinstance(ended := await world.poll(submitted), Pending):
            warnings.append(ended.warning)
            submitted = SubmitAnswer(submitted.external_id, ended.memo or submitted.memo)
        assert "answered 503" in (warnings[0] or "")
        assert warnings[1] == "call.wav could not be read completely"
        assert isinstance(ended, Succeeded)
        assert [upload[1] for upload in await self.uploaded(world)] == [len(CLIP)]

    async def test_an_interaction_that_vanished_during_its_upload(self, start: Start, clip: Path) -> None:
        fault = Fault(fault=FaultKind.ERROR, on=Call.UPLOAD, status=404)
        world = await self.with_file(start, "clip.wav", faults=[fault])
        registry = world.registry(upload_folder=str(clip.parent))
        await self.fails(ExternalIdUnknown, world.poll(await world.submit(registry), registry))

    async def test_it_waits_for_a_file_that_nobody_announced(self, start: Start) -> None:
        world = await start(behaviour={"word": "filePendingUpload", "duration": 60})
        answer = await world.poll(await world.submit())
        assert isinstance(answer, Pending)
        assert "the job has none" in (answer.warning or "")

    async def with_file(self, start: Start, source: str, *, faults: Any = (), **options: Any) -> World:
        name = options.pop("originalFilename", None)
        world = await start(*faults, **options)
        world.params = {"languageTag": "en", "source": source}
        if name:
            world.params["originalFilename"] = name
        return world

    async def uploaded(self, world: World) -> list[tuple[str, int, str]]:
        return [(file["filename"], file["size"], file["sha256"]) for file in (await world.jobs())[0]["uploads"]]
