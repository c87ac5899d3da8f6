import pytest

from outwait.config.errors import ConfigError
from outwait.config.settings import Settings
from outwait.worker.model.errors import InvalidRequest, ProviderNotConfigured
from outwait.worker.providers.contract import Succeeded
from outwait.worker.providers.registry import PROVIDERS, build
from outwait.worker.providers.ringcentral import RingCentral

UNLESS = {"api_key": "k", "user_email": "a@b.example", "account_id": "a", "website_id": "w"}
QUERY = {"query": "q", "sessionId": "s", "visitorId": "v"}


def test_every_provider_is_listed_by_its_own_name() -> None:
    for name, kind in PROVIDERS.items():
        assert kind.name == name
        assert all(operation.name == key for key, operation in kind.operations.items())


def test_what_is_not_configured_is_known_and_cannot_be_asked_for() -> None:
    registry = build({"unless": {"api_key": "k"}})
    assert registry.validate("unless", "query", QUERY)
    assert registry.operation("unless", "query").deadline == 600
    assert registry.limits("ringcentral").rate_limit == 10
    assert dict(registry.providers) == {}
    with pytest.raises(ProviderNotConfigured) as caught:
        registry.get("unless")
    assert str(caught.value) == (
        "provider unless is not configured: set OUTWAIT_PROVIDERS__UNLESS__USER_EMAIL, "
        "OUTWAIT_PROVIDERS__UNLESS__ACCOUNT_ID, OUTWAIT_PROVIDERS__UNLESS__WEBSITE_ID"
    )


def test_what_is_configured_is_there() -> None:
    registry = build({"unless": UNLESS})
    assert registry.get("unless") is registry.providers["unless"]
    assert registry.get("unless").settings.api_key.get_secret_value() == "k"


def test_times_of_the_settings_win() -> None:
    operation = build({"unless": {**UNLESS, "poll_every": "0.5", "deadline": 30}}).operation("unless", "query")
    assert (operation.poll_every, operation.first_poll, operation.deadline) == (0.5, 0.5, 30)
    slow = build({"unless": {**UNLESS, "poll_every": 90}}).operation("unless", "query")
    assert (slow.poll_every, slow.first_poll) == (90, 2)


def test_limits_can_be_lifted() -> None:
    assert build({}).limits("ringcentral").rate_limit == 10
    given = {"client_id": "c", "client_secret": "s", "jwt": "j", "rate_limit": None}
    assert build({"ringcentral": given}).limits("ringcentral").rate_limit is None


def test_a_process_without_credentials_obeys_the_other_settings_and_reads_webhooks() -> None:
    registry = build({"ringcentral": {"rate_limit": None, "trust_webhooks": "true", "deadline": 30}})
    assert registry.limits("ringcentral").rate_limit is None
    assert registry.limits("ringcentral").trust_webhooks
    assert registry.operation("ringcentral", "punctuate").deadline == 30
    answer = registry.read_webhook("ringcentral", b'{"jobId": "j-1", "status": "Success", "response": {"a": 1}}')
    assert answer.external_id == "j-1"
    assert isinstance(answer.answer, Succeeded)
    with pytest.raises(ProviderNotConfigured):
        registry.get("ringcentral")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"unles": {}},
            f"OUTWAIT_PROVIDERS__UNLES: there is no such provider; the providers are {', '.join(PROVIDERS)}",
        ),
        ({"unless": {**UNLESS, "rate_limit": "many"}}, "OUTWAIT_PROVIDERS__UNLESS__RATE_LIMIT: given 'many'"),
        ({"unless": {**UNLESS, "polls": 1}}, "OUTWAIT_PROVIDERS__UNLESS__POLLS: there is no such setting"),
        ({"unless": {**UNLESS, "base_url": "unless.com"}}, "OUTWAIT_PROVIDERS__UNLESS__BASE_URL"),
        ({"unless": {**UNLESS, "base_url": "https://x/?a=b"}}, "OUTWAIT_PROVIDERS__UNLESS__BASE_URL"),
        ({"elevateai": {"api_token": "two\nlines"}}, "OUTWAIT_PROVIDERS__ELEVATEAI__API_TOKEN: given **"),
        ({"elevateai": {"upload_tries": 0}}, "OUTWAIT_PROVIDERS__ELEVATEAI__UPLOAD_TRIES"),
    ],
)
def test_wrong_settings_are_named(raw: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(raw)
    assert message in str(caught.value)
    assert "lines" not in str(caught.value)


def test_settings_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"CLIENT_ID": "c", "CLIENT_SECRET": "s", "JWT": "a.b.c", "RATE_LIMIT": "40", "BASE_URL": "http://x/rc/"}
    for name, value in values.items():
        monkeypatch.setenv(f"OUTWAIT_PROVIDERS__RINGCENTRAL__{name}", value)
    for name, value in {**UNLESS, "account_id": "12345"}.items():
        monkeypatch.setenv(f"OUTWAIT_PROVIDERS__UNLESS__{name.upper()}", value)
    registry = build(Settings(_env_file=None).providers)
    provider = registry.get("ringcentral")
    assert isinstance(provider, RingCentral)
    assert provider.settings.rate_limit == 40
    assert str(provider.request("GET", "/a").url) == "http://x/rc/a"
    assert registry.get("unless").settings.account_id == "12345"


@pytest.mark.parametrize(
    ("provider", "operation", "params", "message"),
    [
        ("nobody", "query", {}, f"provider: given 'nobody'; the providers are {', '.join(PROVIDERS)}"),
        ("unless", "ask", {}, "operation: given 'ask'; the operations of unless are query"),
        ("unless", "query", {**QUERY, "query": ""}, "params.query: given ''; "),
        ("unless", "query", {"query": "q", "visitorId": "v"}, "params.sessionId: is missing"),
        (
            "unless",
            "query",
            {**QUERY, "querry": 1},
            "params.querry: there is no such parameter; the parameters are query, sessionId, ",
        ),
        ("unless", "query", {**QUERY, "segmentId": 7}, "params.segmentId: given 7; must be a valid string"),
        ("ringcentral", "punctuate", {"texts": ["a", 1]}, "params.texts[1]: given 1; must be a valid string"),
        ("ringcentral", "punctuate", {"texts": []}, "params.texts: given []; "),
        (
            "ringcentral",
            "speech-to-text",
            {"contentUri": "https://x/a", "encoding": "mp3"},
            "params.encoding: given 'mp3'; must be 'Mpeg', 'Mp4', 'Wav'",
        ),
        (
            "ringcentral",
            "speech-to-text",
            {"contentUri": "x://h/a?access_token=5ecret", "encoding": "Mpeg"},
            "params.contentUri: given 'x://h/…'; ",
        ),
        (
            "ringcentral",
            "speaker-identify",
            {"contentUri": "http://x", "encoding": "Wav"},
            "params.speakerIds: is missing",
        ),
        ("elevateai", "audio", {"languageTag": "en"}, "exactly one of downloadUri and source must be given"),
        (
            "elevateai",
            "audio",
            {"languageTag": "en", "source": "a.wav", "downloadUri": "https://x"},
            "exactly one of downloadUri and source must be given",
        ),
        ("elevateai", "audio", {"languageTag": "en", "source": "https://x/a?b=.wav"}, "source has no file extension"),
        (
            "elevateai",
            "chat",
            {"languageTag": "en", "chat": {"participants": [{"participant_id": "a", "role": "boss"}], "messages": []}},
            "params.chat.participants[0].role: given 'boss'; must be 'agent' or 'customer'",
        ),
    ],
)
def test_wrong_parameters_are_named(provider: str, operation: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        build({}).validate(provider, operation, params)
    assert message in str(caught.value)
    assert "5ecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"source": "https://x/calls/a%20b.wav?sig=1"}, "a b.wav"),
        ({"source": "deep/er/call.mp3"}, "call.mp3"),
        ({"source": "https://x/download", "originalFilename": "call.ogg"}, "call.ogg"),
    ],
)
def test_what_an_uploaded_file_is_called(params: dict[str, object], name: str) -> None:
    params_model = build({}).validate("elevateai", "audio", {"languageTag": "en", **params})
    assert getattr(params_model, "file_name") == name  # noqa: B009 - the registry knows a model only
