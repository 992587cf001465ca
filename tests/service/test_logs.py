"""No log line holds a token, a secret or a password, wherever it stands."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import ServiceSettings
from engine.service.logs import redact, set_up_logging
from engine.service.tokens import Purchase, sign

TOKEN = sign("k" * 32, Purchase("alice", "PHONE", 2_000, "nonce-1"))


@pytest.fixture
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    loggers = [root, logging.getLogger("uvicorn"), logging.getLogger("asyncio")]
    before = [(each, each.handlers[:], each.level) for each in loggers]
    yield
    for each, handlers, level in before:
        each.handlers[:] = handlers
        each.setLevel(level)


def redacted(**event: object) -> dict[str, object]:
    return dict(redact(None, "", dict(event)))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (f"got {TOKEN}", "got v1...."),
        (f"got {TOKEN[:-5]}, and {TOKEN}.", "got v1...., and v1....."),
        ("Authorization: Bearer canary-1", "Authorization: Bearer ..."),
        ("bearer  canary-1 x", "bearer ... x"),
        ("Basic Y2FuYXJ5", "Basic ..."),
        ("mysql://user:canary@host:3306/db", "mysql://...@host:3306/db"),
        (
            "mysql://canary@host/db and redis://:canary@h:1/0",
            "mysql://...@host/db and redis://...@h:1/0",
        ),
        ("http://127.0.0.1:8080/v1/skus", "http://127.0.0.1:8080/v1/skus"),
        ("sold 5 of v1.2", "sold 5 of v1.2"),
        ("mail to alice@example.org", "mail to alice@example.org"),
    ],
)
def test_secrets_are_taken_out_of_every_text_and_the_rest_stays(text: str, want: str) -> None:
    assert redacted(event=text, detail=text) == {"event": want, "detail": want}


@pytest.mark.parametrize(
    "name",
    [
        *("token", "admin_secret", "shop_secret", "password", "Authorization", "set_cookie"),
        *("token_key", "api_key", "TOKEN_KEY_PREVIOUS"),
    ],
)
@pytest.mark.parametrize("value", ["canary", 5, ["canary"], None, b"canary"])
def test_what_is_called_a_secret_is_never_shown(name: str, value: object) -> None:
    assert redacted(event="x", **{name: value}) == {"event": "x", name: "..."}


def test_what_is_inside_of_lists_and_mappings_is_looked_at_too() -> None:
    event = {
        "headers": {"authorization": "canary", "host": "test", "x": ["Bearer canary"]},
        "urls": ("redis://:canary@h", b"mysql://u:canary@h"),
        "count": 5,
        "error": ValueError("mysql://u:canary@h"),
    }
    assert "canary" not in repr(redacted(**event))
    assert redacted(**event)["count"] == 5


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_token_gets_through_whatever_stands_around_it(before: str, after: str) -> None:
    shown = str(redacted(event=f"{before} {TOKEN} {after}")["event"])
    assert not any(part in shown for part in TOKEN.split(".")[1:])


@pytest.mark.usefixtures("_logging_as_it_was")
def test_lines_of_every_logger_are_json_without_secrets_also_those_of_exceptions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    writer = set_up_logging(ServiceSettings(log_format="json"))
    logger = logging.getLogger("some.library")
    logger.warning("cannot reach %s", "mysql://u:canary@h/db", extra={"sku": "PHONE"})
    try:
        raise ValueError("Bearer canary")
    except ValueError:
        logger.exception("failed with %s", TOKEN)
    logger.debug("not asked for")
    writer.flush()
    lines = capsys.readouterr().err.splitlines()
    first, second = (json.loads(line) for line in lines)
    assert (first["event"], first["sku"]) == ("cannot reach mysql://...@h/db", "PHONE")
    assert (first["level"], first["logger"]) == ("warning", "some.library")
    assert first["timestamp"].endswith("Z")
    assert second["event"] == "failed with v1...."
    assert "ValueError: Bearer ..." in second["exception"]
    assert "canary" not in "".join(lines)


@pytest.mark.usefixtures("_logging_as_it_was")
def test_lines_for_a_terminal_are_text_and_the_level_is_the_one_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    writer = set_up_logging(ServiceSettings(log_format="console", log_level="error"))
    logging.getLogger("engine").warning("not asked for")
    logging.getLogger("engine").error("here with %s", TOKEN)
    writer.flush()
    (line,) = capsys.readouterr().err.splitlines()
    assert "here with v1...." in line
    assert not line.startswith("{")
