"""Hostile headers and queries: each is refused, ignored or read by the rules."""

import re
import string
from collections.abc import Callable
from typing import TypeVar

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.request_reader import JSON, ORIGIN, Reader, call_of, request_of
from transferd.domain.api_key import digest_of, id_in
from transferd.domain.ledger import MAIN
from transferd.observability.traceparent import is_traceparent
from transferd.web.calls import origin_of
from transferd.web.past_schemas import StatementQuery, WalletQuery
from transferd.web.problems import Problem
from transferd.web.request_headers import is_known, versions_allowed
from transferd.web.routes.events import _last_event_id
from transferd.web.schemas import ListQuery, NewUser, Query

# aiohttp decodes headers as UTF-8 and replaces invalid bytes by lone surrogates.
ANY_HEADER = st.one_of(
    st.binary(max_size=300).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.text(max_size=300),
    st.text(string.printable, max_size=20),
)
Value = TypeVar("Value")
PRINTABLE = {chr(code) for code in range(0x20, 0x7F)}


def tried(read: Callable[[], Value]) -> tuple[Value | None, str]:
    """The value and None, or None and the code of the problem."""
    try:
        return read(), ""
    except Problem as problem:
        body = orjson.loads(problem.body(ORIGIN))
        assert 400 <= body["status"] < 500
        return None, body["code"]


@given(st.lists(ANY_HEADER | st.text(string.printable, min_size=250, max_size=260), max_size=2))
@example(['"'])
@example(['""'])
@example(["x" * 255])
@example(["x" * 256])
@example(['"' + "x" * 255 + '"'])
@example(["schlüssel"])
@example(["a\x7f"])
@example(["\udcff"])
def test_a_key_is_one_to_255_printable_characters_and_nothing_else(given: list[str]) -> None:
    call = call_of(request_of(headers=[("Idempotency-Key", value) for value in given]))
    key, code = tried(lambda: call.key(required=True))
    if key is None:
        assert code == ("idempotency-key-invalid" if given else "idempotency-key-missing")
        inner = given[0].removeprefix('"').removesuffix('"') if given else ""
        assert len(given) != 1 or not 1 <= len(inner) <= 255 or not set(inner) <= PRINTABLE
    else:
        assert 1 <= len(key[1]) <= 255
        assert set(key[1]) <= PRINTABLE
        assert given[0] in (key[1], f'"{key[1]}"')


TRACE = "00-" + "1" * 32 + "-" + "1" * 16 + "-00"


@given(st.lists(ANY_HEADER, max_size=2), st.lists(ANY_HEADER, max_size=2))
@example(["a" * 128], ["00-" + "0" * 32 + "-" + "0" * 16 + "-00"])
@example(["a" * 129], [TRACE])
@example(["a\n"], ["ff" + TRACE[2:]])
@example(["a", "a"], [TRACE, TRACE])
def test_ids_go_out_only_in_their_shape(request_ids: list[str], traces: list[str]) -> None:
    headers = [("X-Request-Id", each) for each in request_ids]
    origin = origin_of(request_of(headers=headers + [("traceparent", each) for each in traces]))
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", origin.request_id)
    assert is_traceparent(origin.traceparent)
    # Two lines of a header that is not a list are refused.
    assert origin.request_id in (*request_ids[: len(request_ids) == 1], origin.traceparent[3:35])
    assert origin.parent is None or [origin.parent] == traces
    assert orjson.loads(Problem("not-found").body(origin))["request_id"] == origin.request_id


@given(ANY_HEADER)
@example("application/json; charset=\udcff")
@example('application/json; charset="')
@example("application/json; charset*=x''%ff")
@example("application/json; charset*99999999999999999999=utf-8")
def test_a_content_type_is_json_in_utf_8_or_refused(reader: Reader, value: str) -> None:
    _, code = tried(lambda: reader.read(NewUser, b"{}", headers=[("Content-Type", value)]))
    assert code in {"", "unsupported-media-type"}
    assert code or value.strip().lower().startswith("application/json")


@given(st.lists(ANY_HEADER | st.sampled_from(["gzip", "identity", "Identity", "br"]), max_size=3))
@example(["identity", "gzip"])
@example(["identity, gzip"])
@example(["identity, ,Identity", ""])
def test_a_compressed_body_is_refused_in_every_spelling_of_the_header(
    reader: Reader, said: list[str]
) -> None:
    headers = [JSON, *(("Content-Encoding", value) for value in said)]
    _, code = tried(lambda: reader.read(NewUser, b"{}", headers=headers))
    codings = [coding.strip(" \t") for value in said for coding in value.split(",")]
    is_plain = all(coding.lower() == "identity" for coding in codings if coding)
    assert code == ("" if is_plain else "unsupported-media-type")


@given(st.text(max_size=50) | st.from_regex(r'(W/)?"w[0-9]{1,3}"(, ?"[^"]*")?', fullmatch=True))
def test_any_if_none_match_names_the_version_or_does_not(value: str) -> None:
    known = is_known(request_of(headers=[("If-None-Match", value)]), '"w7"')
    tags = [tag.strip().removeprefix("W/") for tag in value.split(",")]
    assert known == ('"w7"' in tags or "*" in tags)


TAGS = st.one_of(
    st.integers(0, 2**70).map('"w{}"'.format),
    st.integers(0, 9).map('W/"w{}"'.format),
    st.text(st.characters(min_codepoint=0x21, exclude_characters='"\x7f')).map('"{}"'.format),
)
BETWEEN = st.sampled_from([",", ", ", " ,\t,"])


@given(st.lists(st.tuples(TAGS, BETWEEN), min_size=1, max_size=5), st.integers(1, 3))
def test_if_match_allows_the_versions_of_its_strong_tags(
    tags: list[tuple[str, str]], lines: int
) -> None:
    pieces = ["".join(tag + between for tag, between in tags[n::lines]) for n in range(lines)]
    allowed = versions_allowed(request_of(headers=[("If-Match", piece) for piece in pieces]))
    ours = re.compile('"w(0|[1-9][0-9]{0,18})"')
    assert allowed == frozenset(int(tag[2:-1]) for tag, _ in tags if ours.fullmatch(tag))


@given(st.lists(ANY_HEADER | st.text('"wW/*, 1\t', max_size=12), min_size=1, max_size=2))
@example(['"' * 5_000])
@example([" ," * 4_000])
@example(['"w1",' * 1_000 + "x"])
def test_any_if_match_is_read_or_refused(lines: list[str]) -> None:
    request = request_of(headers=[("If-Match", line) for line in lines])
    allowed, code = tried(lambda: versions_allowed(request))
    assert code in {"", "malformed-request"}
    if not code and allowed is None:
        assert "".join(lines).strip(" \t") == "*"


@given(ANY_HEADER | st.from_regex(r"[0-9]{1,25}", fullmatch=True))
@example("9" * 5_000)
@example("٣")
def test_a_last_event_id_is_a_version_or_refused(value: str) -> None:
    call = call_of(request_of(headers=[("Last-Event-ID", value)]))
    version, code = tried(lambda: _last_event_id(call))
    assert code == ("" if version is not None else "invalid-request")
    assert version is None or (str(version) == value and 0 <= version < 2**63)


@given(ANY_HEADER | ANY_HEADER.map("td_a_{}".format))
def test_any_token_has_an_id_and_a_digest_or_none(token: str) -> None:
    if id_in(token) is not None:
        assert len(digest_of(token, MAIN)) == 32


QUERIES = st.one_of(
    st.text(max_size=60),
    st.from_regex(r"(limit|cursor|from|to|at|min_version)=[%0-9a-zA-Z:.+\-]{0,40}", fullmatch=True),
    st.sampled_from([b"\xff", b"\xed\xa0\x80", b"\x00"]).map(
        lambda raw: "&".join(f"%{byte:02x}={byte}" for byte in raw)
    ),
)


@pytest.mark.parametrize("model", [ListQuery, StatementQuery, WalletQuery])
@given(query=QUERIES)
@example(query="at=9999-12-31T23:59:59.999999-23:59")
@example(query="at=0001-01-01T00:00:00%2B23:59")
@example(query="from=2024-13-01T00:00:00Z")
@example(query="to=2024-01-01T24:00:00Z&from=2016-12-31T23:59:60Z")
@example(query="limit=" + "9" * 5_000)
@example(query="min_version=" + "9" * 5_000)
@example(query="%ed%a0%80=1")
def test_any_query_is_read_or_refused(model: type[Query], query: str) -> None:
    _, code = tried(lambda: call_of(request_of(f"/?{query}")).query(model))
    assert code in {"", "invalid-request"}
