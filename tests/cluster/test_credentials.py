"""A file of credentials, as nsc makes it, lets a node in; one that cannot be used is told in a line."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import nkeys
import pytest

from engine.cluster.broker import Broker
from engine.cluster.credentials import check_credentials
from engine.cluster_settings import ClusterSettings
from engine.errors import ConfigError
from engine.testing.nats_server import NatsServer, nats_server
from tests.cluster.test_broker import connected, settings_of
from tests.servers import need_nats

NO_LIMIT = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
JETSTREAM = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}


def pair(prefix: int) -> Any:
    """A new key."""
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))


def token(issuer: Any, subject: Any, kind: str, **claims: object) -> str:
    """What `issuer` says of `subject`, signed."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    said = {
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "jti": kind,
        "iat": 1,
        "name": kind,
        "nats": {"type": kind, "version": 2, **claims},
    }
    text = ".".join(part(json.dumps(each).encode()) for each in (head, said))
    return f"{text}.{part(issuer.sign(text.encode()))}"


def credentials(jwt: str, seed: str) -> str:
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


class Guarded(NamedTuple):
    """A broker, and a file that lets its user in."""

    server: NatsServer
    file: Path


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    need_nats()
    operator, user = pair(nkeys.PREFIX_BYTE_OPERATOR), pair(nkeys.PREFIX_BYTE_USER)
    account, system = (pair(nkeys.PREFIX_BYTE_ACCOUNT) for _ in range(2))
    limits = {**NO_LIMIT, "wildcards": True}
    accounts = {
        account: token(operator, account, "account", limits={**limits, **JETSTREAM}),
        system: token(operator, system, "account", limits=limits),
    }
    known = ", ".join(f"{each.public_key.decode()}: {jwt}" for each, jwt in accounts.items())
    file = tmp_path / "user.creds"
    jwt = token(account, user, "user", subs=-1, data=-1, payload=-1)
    file.write_text(credentials(jwt, user.seed.decode()))
    with nats_server(
        tmp_path / "nats",
        operator=token(operator, operator, "operator"),
        system_account=system.public_key.decode(),
        resolver="MEMORY",
        resolver_preload=f"{{ {known} }}",
    ) as server:
        yield Guarded(server, file)


async def test_a_broker_that_knows_the_account_lets_the_user_of_the_file_in(
    guarded: Guarded,
) -> None:
    settings = settings_of(guarded.server)
    with pytest.raises(ConfigError, match="refused the login"):
        await Broker.connect(settings, "test")
    settings = msgspec.structs.replace(settings, credentials=str(guarded.file))
    async with connected(settings) as broker:
        assert (await broker.life()).last == 0


SEED = nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_USER).decode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "behind a line with 'BEGIN NATS USER JWT' there is nothing"),
        (f"-----BEGIN NATS USER JWT-----\n{SEED}\n", "'BEGIN USER NKEY SEED' there is nothing"),
        ("x\n-----BEGIN NATS USER JWT-----", "'BEGIN NATS USER JWT' there is nothing"),
        (credentials("e30", "SUAnoseed"), "the seed in .* is none of a user: ErrInvalidSeed"),
        (credentials("e30", SEED[:-9]), "the seed in .* is none of a user"),
        (credentials("e30", SEED + "\r"), "the seed in .* is none of a user"),
    ],
    ids=["empty", "no seed", "no token", "another seed", "half a seed", "lines of DOS"],
)
def test_a_file_that_cannot_be_used_is_a_wrong_setting(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "user.creds"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"cluster\.credentials.*{said}"):
        check_credentials(str(file))


async def test_it_is_looked_at_before_the_client_is_given_it(tmp_path: Path) -> None:
    file = str(tmp_path / "none.creds")
    settings = ClusterSettings(servers=("nats://127.0.0.1:1",), credentials=file)
    with pytest.raises(ConfigError, match=r"cluster\.credentials cannot be read"):
        await Broker.connect(settings, "test")


def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nkeys", None)
    with pytest.raises(ConfigError, match=r"pip install 'nats-py\[nkeys\]'"):
        check_credentials(str(tmp_path / "user.creds"))
