"""The store's language: scripts and Python name fields, keys and arguments, and say truly what they change."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from outwait.config.settings import Settings
from outwait.worker.model.jobs import TRANSITIONS, Claim, JobState, Step
from outwait.worker.model.lanes import CALLBACK, Lane
from outwait.worker.model.outcomes import Outcome
from outwait.worker.store import fields, keys, scripts
from outwait.worker.store.key_types import needed_types
from outwait.worker.store.keys import Keys

ROOT = Path(__file__).parents[2]
STORE = ROOT / "worker" / "store"
LUA = sorted((STORE / "lua").rglob("*.lua"))
PYTHON = [file for folder in ("worker", "tasks", "outwait") for file in sorted((ROOT / folder).rglob("*.py"))]
CODES = {code.strip("'") for code in fields.lua().values()}
PARTS = re.compile(r"^local function (\w+)|^function (?:verbs\.)(\w+)|^local ([\w, ]+?) =", re.MULTILINE)


def code_of(file: Path) -> str:
    """A Lua file without its comments."""
    return re.sub(r"--.*", "", file.read_text())


@pytest.mark.parametrize("file", LUA, ids=lambda file: str(file.relative_to(STORE / "lua")))
def test_a_script_has_no_bare_code(file: Path) -> None:
    assert not {text for text in re.findall(r"['\"]([^'\"\n]*)['\"]", code_of(file)) if text in CODES}


def bare(file: Path) -> Iterator[str]:
    """Codes in a Python file that read or write a hash: as subscripts, or as arguments of calls."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Subscript(slice=ast.Constant(value=str() | bytes() as value)):
                given = [value]
            case ast.Call(func=ast.Attribute(attr="get" | "hget" | "hmget" | "hset" | "hdel" | "hincrby"), args=args):
                given = [arg.value for arg in args if isinstance(arg, ast.Constant)]
            case _:
                continue
        for code in given:
            text = code.decode(errors="replace") if isinstance(code, bytes) else code
            if text in CODES:
                yield f"{file.name}:{node.lineno} {text!r}"


def test_the_type_of_each_key_that_stands_alone_is_checked() -> None:
    """Keys of single jobs, lanes and providers are behind a name of the namespace's own, which no target can have."""
    table = re.findall(r"^\| ([a-z:-]+) +\| (\w+) ", keys.__doc__ or "", re.MULTILINE)
    settings = Settings(namespace="t", _env_file=None)
    checked = {key.removeprefix("{t}:"): kind for key, kind in needed_types(settings).items() if key.startswith("{t}:")}
    assert checked == dict(table[1:]) | {"in:messages": "hash"}


def test_python_has_no_bare_code() -> None:
    assert [line for file in PYTHON if file.name != "fields.py" for line in bare(file)] == []


@pytest.mark.parametrize("name", scripts.NAMES)
def test_every_name_in_a_script_is_known(name: str) -> None:
    text = scripts.text_of(name, Keys("t"))  # raises KeyError for a field that is none
    assert not re.findall(r"\b\w+_field\b", re.sub(r"--.*", "", text))


@pytest.mark.parametrize("table", fields.TABLES.values(), ids=list(fields.TABLES))
def test_a_code_has_one_name(table: type) -> None:
    assert len(table.__members__) == len(list(table)), "two names of one code"


@pytest.mark.parametrize("name", scripts.NAMES)
def test_a_script_says_what_it_takes(name: str) -> None:
    """Every argument that a script and its parts read stands in a header, and every one in a header is read."""
    parts = [STORE / "lua" / f"{part}.lua" for part in (*scripts._PARTS.get(name, ()), name)]
    read = set(re.findall(r"\barguments\.(\w+)", "".join(map(code_of, parts))))
    header = parts[-1].read_text().partition("\n")[2]
    said = re.search(r"^-- Arguments +((?:.|\n-- {10,})*)", header, re.MULTILINE)
    words = set(re.findall(r"\w+", said[1].replace("\n--", ""))) if said else set()
    assert read <= words


@pytest.mark.parametrize("name", [name for name in scripts.NAMES if name in scripts._PARTS])
def test_a_part_uses_only_what_stands_before_it(name: str) -> None:
    parts = [STORE / "lua" / f"{part}.lua" for part in ("prelude", *scripts._PARTS[name], name)]
    texts = [code_of(part) for part in parts]
    given = [{word for line in PARTS.findall(text) for word in re.findall(r"\w+", " ".join(line))} for text in texts]
    for index, text in enumerate(texts):
        later = set().union(*given[index + 1 :]) - set().union(*given[: index + 1])
        top_level = later - set(re.findall(r"(?:\.|\blocal )(\w+)", text))
        words = set(re.findall(r"(?<![.\w'])(\w+)(?=\()", text))
        assert not words & top_level, f"{parts[index].name} uses what comes after it"


def test_parts_name_each_other_in_their_headers() -> None:
    for file in LUA:
        head = file.read_text().partition("\nlocal ")[0]
        is_part = file.parent.name != "lua" or file.name == "prelude.lua"
        wanted = ("-- Uses", "-- Gives") if is_part else ("-- Returns",)
        assert all(word in head for word in wanted), file.name


def test_claims_are_written_in_the_order_in_which_they_are_read() -> None:
    """The array form of a claim is a contract between releases: Celery's messages carry it."""
    rows = re.findall(r"local claim = \{(.*?)\}", (STORE / "lua" / "claim.lua").read_text(), re.DOTALL)
    known = [name.removesuffix("_ms") for name in Claim.__struct_fields__]
    assert len(rows) == 2
    for row in rows:
        values = [re.search(r"(?:tonumber\()?(\w+)", value) for value in row.split(",") if value.strip()]
        assert [value[1].removesuffix("_ms") for value in values if value] == known
    assert Claim.__struct_fields__ == (
        "work_id", "fence", "provider", "operation", "external_id", "memo", "state", "attempts", "created_ms",
        "submitted_ms", "deadline_ms", "provider_status", "polled_ms", "due_ms", "trace",
            "unknown_polls", "unknown_since_ms", "expires_ms",
    )  # fmt: skip


def written(name: str) -> set[JobState]:
    """The states that a script sets, besides the end that an outcome names."""
    parts = [STORE / "lua" / f"{part}.lua" for part in ("prelude", *scripts._PARTS.get(name, ()), name)]
    text = "".join(map(code_of, parts))
    return {JobState(state) for state in re.findall(r"(?:set_state|finish)\(\w+, '(\w+)'", text)}


def test_what_scripts_say_of_states_is_what_they_set_and_what_the_model_allows() -> None:
    ends = {state for state in JobState if state.ended}
    allowed: dict[JobState, set[JobState]] = {}
    for name in ("record", "claim"):
        head = (STORE / "lua" / f"{name}.lua").read_text().partition("\nlocal ")[0]
        said = re.findall(r"(\w+) -> ([\w |]+)", head)
        assert said
        for before, after in said:
            states = set().union(*(ends if word == "ends" else {JobState(word)} for word in after.split(" | ")))
            allowed.setdefault(JobState(before), set()).update(states)
            if name == "claim":
                assert states <= written("claim")
    model = {state: set(after) for state, after in TRANSITIONS.items() if after}
    assert allowed == model, "`States` in the heads of record.lua and claim.lua and TRANSITIONS differ"
    assert written("record") >= {JobState.QUEUED, JobState.WAITING, JobState.UNCERTAIN, JobState.FAILED}
    assert written("claim") == {JobState.UNCERTAIN, JobState.WAITING}
    setters = {file.name for file in LUA if re.search(r"\bset_state\(|job_field\.state, state", code_of(file))}
    assert setters == {"prelude.lua", "jobs.lua", "repolls.lua", "claim.lua", "enqueue.lua"}, (
        "only these change a job's state"
    )


def test_the_chart_draws_the_transitions_of_the_model() -> None:
    arrows = re.findall(r"^ +(\w+) --> (\w+)", (ROOT / "docs" / "state-chart.md").read_text(), re.MULTILINE)
    drawn = {(JobState(before), JobState(after)) for before, after in arrows if before != after}
    model = {(before, after) for before, ends in TRANSITIONS.items() for after in ends}
    assert drawn == model, "the arrows of docs/state-chart.md and TRANSITIONS differ"


def test_each_outcome_has_its_verb() -> None:
    """No type checker reads Lua: without its verb an outcome fails only when it is recorded."""
    text = "".join(code_of(file) for file in (STORE / "lua" / "record").glob("*.lua"))
    verbs = set(re.findall(r"^(?:function verbs\.|verbs\[')(\w+)", text, re.MULTILINE))
    assert verbs == {outcome.__struct_config__.tag for outcome in get_args(Outcome)}


@pytest.mark.parametrize(
    ("text", "lane"),
    [
        ("submit:unless", Lane(Step.SUBMIT, "unless")),
        ("poll:unless", Lane.of(Step.POLL, "unless")),
        ("callback", CALLBACK),
        ("deliver:https://crm.example.com:8443/hook?a=b", Lane(Step.DELIVER, "https://crm.example.com:8443/hook?a=b")),
        ("held:unless", Lane(None, "unless")),
    ],
)
def test_a_lane_is_its_text(text: str, lane: Lane) -> None:
    assert Lane.parse(text) == lane
    assert str(lane) == text


def test_what_is_no_lane_is_refused() -> None:
    with pytest.raises(ValueError, match="neither"):
        Lane.parse("neither:unless")
    assert Lane.of(Step.CALLBACK, "unless") == CALLBACK
