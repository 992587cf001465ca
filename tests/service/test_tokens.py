"""A purchase token says what its shop signed, in one form only, until its time is over."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.service.tokens import (
    TOKEN_LENGTH_MAX,
    BadToken,
    Purchase,
    _base64,
    _mac,
    sign,
    verify,
)

KEY, OLD, OTHER = "k" * 32, "o" * 32, "x" * 32
PURCHASE = Purchase("alice", "PHONE", 2_000, "nonce-1")
TOKEN = sign(KEY, PURCHASE)

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=64)


def signed(payload: bytes) -> str:
    """A token of ours with any payload."""
    text = f"v1.{_base64(payload)}"
    return f"{text}.{_base64(_mac(KEY, text))}"


@given(names, names, st.integers(0, 2**53), names)
def test_what_was_signed_is_read_whatever_the_names(
    buyer: str, sku: str, exp: int, nonce: str
) -> None:
    purchase = Purchase(buyer, sku, exp, nonce)
    token = sign(KEY, purchase)
    assert len(token) <= TOKEN_LENGTH_MAX
    assert token.isascii()
    assert verify(token, [KEY], exp - 1) == purchase


@given(st.integers(0, len(TOKEN) - 1), st.characters(max_codepoint=255))
def test_a_token_with_any_character_changed_is_refused(at: int, character: str) -> None:
    changed = TOKEN[:at] + character + TOKEN[at + 1 :]
    if changed != TOKEN:
        with pytest.raises(BadToken):
            verify(changed, [KEY], 0)


def test_a_token_whose_last_bits_stand_for_nothing_is_refused() -> None:
    # The last character of 32 bytes in base64 has two bits that decode to nothing.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(TOKEN[-1])
    for bits in (1, 2, 3):
        twin = TOKEN[:-1] + alphabet[last ^ bits]
        assert base64.urlsafe_b64decode(twin[-43:] + "=") == base64.urlsafe_b64decode(
            TOKEN[-43:] + "="
        )
        with pytest.raises(BadToken, match="not signed by this shop"):
            verify(twin, [KEY], 0)


@given(st.integers(0, len(TOKEN)), st.characters(max_codepoint=255))
def test_a_token_with_a_character_more_is_refused(at: int, character: str) -> None:
    with pytest.raises(BadToken):
        verify(TOKEN[:at] + character + TOKEN[at:], [KEY], 0)


@given(st.integers(0, len(TOKEN) - 1))
def test_a_token_with_a_character_less_is_refused(at: int) -> None:
    with pytest.raises(BadToken):
        verify(TOKEN[:at] + TOKEN[at + 1 :], [KEY], 0)


@given(st.text(max_size=200))
def test_no_text_that_is_no_token_is_read_or_breaks_anything(text: str) -> None:
    for each in (text, "v1." + text, f"v1.{text}.{text}"):
        with pytest.raises(BadToken):
            verify(each, [KEY], 0)


def test_a_token_of_another_key_or_of_no_key_is_refused() -> None:
    for keys in ([OTHER], [OTHER, OLD], []):
        with pytest.raises(BadToken, match="not signed by this shop"):
            verify(TOKEN, keys, 0)


def test_while_keys_are_changed_tokens_of_both_are_good() -> None:
    before = sign(OLD, PURCHASE)
    for token in (before, TOKEN):
        assert verify(token, [KEY, OLD], 0) == PURCHASE
    with pytest.raises(BadToken):
        verify(before, [KEY], 0)


@pytest.mark.parametrize("now", [2_000, 2_000.5, 1e12])
def test_from_its_first_second_a_token_that_has_expired_buys_no_more(now: float) -> None:
    with pytest.raises(BadToken, match="has expired"):
        verify(TOKEN, [KEY], now)
    # It still says whose reservations may be looked at.
    assert verify(TOKEN, [KEY], now, expired_ok=True) == PURCHASE
    assert verify(TOKEN, [KEY], 1_999.999) == PURCHASE


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"buyer":"alice","sku":"PHONE","exp":2000}',
        b'{"buyer":"alice","sku":"PHONE","exp":2000,"nonce":"n","admin":true}',
        b'{"buyer":"alice","sku":"PHONE","exp":"2000","nonce":"n"}',
        b'{"buyer":"alice","sku":"PHONE","exp":2000.5,"nonce":"n"}',
        b'{"buyer":"alice","sku":"PHONE","exp":null,"nonce":"n"}',
        b'{"buyer":"","sku":"PHONE","exp":2000,"nonce":"n"}',
        b'{"buyer":"alice","sku":"PHONE","exp":2000,"nonce":"%s"}' % (b"n" * 65),
        msgspec.msgpack.encode(PURCHASE),
    ],
)
def test_a_payload_that_is_no_purchase_is_refused_even_when_we_signed_it(payload: bytes) -> None:
    with pytest.raises(BadToken, match="malformed"):
        verify(signed(payload), [KEY], 0)
    assert verify(signed(msgspec.json.encode(PURCHASE)), [KEY], 0) == PURCHASE


def test_a_signed_payload_that_is_not_base64_is_refused() -> None:
    for payload in ("v1.%%%", "v1.é", "v1.a", "v1.ab=="):
        with pytest.raises(BadToken, match="malformed"):
            verify(f"{payload}.{_base64(_mac(KEY, payload))}", [KEY], 0)


def test_a_text_of_any_length_is_looked_at_only_up_to_the_longest_token() -> None:
    with pytest.raises(BadToken, match="too long"):
        verify("v1." + "a" * TOKEN_LENGTH_MAX, [KEY], 0)


@pytest.mark.parametrize("token", [TOKEN[:-1], TOKEN + "x", sign(OTHER, PURCHASE), TOKEN])
def test_no_refusal_quotes_the_token(token: str) -> None:
    with pytest.raises(BadToken) as caught:
        verify(token, [KEY], 2_000)
    assert not any(part in str(caught.value) for part in token.split("."))
    assert caught.value.__cause__ is None
