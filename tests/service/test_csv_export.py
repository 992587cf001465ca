"""Every event of a SKU as CSV: in order, page by page, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io

import pytest

from engine.service import csv_export
from engine.service.csv_export import COLUMNS, export
from tests.service.api import Api, serving

PATH = "/v1/admin/skus/PHONE/export.csv"


async def rows(api: Api) -> list[dict[str, str]]:
    reply = await api.admin.get(PATH)
    assert reply.status == 200
    return list(csv.DictReader(io.StringIO(reply.content.decode())))


async def test_an_export_is_a_csv_file_of_every_event_in_order() -> None:
    async with serving() as api:
        await api.open("PHONE", 9, limit_per_buyer=3, hold_seconds=60)
        await api.public.reserve("PHONE", "alice", 2, key="1")
        api.clock.advance(1.5)
        await api.public.post("/v1/reservations/PHONE:1/confirm", key="pay")
        await api.admin.post("/v1/admin/skus/PHONE/restock", {"quantity": 5}, key="more")
        reply = await api.admin.get(PATH)
        assert reply.headers["content-type"] == "text/csv; charset=utf-8"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.content.splitlines()[0].decode() == ",".join(COLUMNS)
        opened, reserved, paid, more = await rows(api)
        assert [each["version"] for each in (opened, reserved, paid, more)] == ["1", "2", "3", "4"]
        assert opened["details"] == "stock=9 limit_per_buyer=3 hold_seconds=60"
        assert reserved == {
            "version": "2",
            "at": "1970-01-01T00:16:40.000+00:00",
            "event": "reserved.1",
            "command_id": "1",
            "buyer": "alice",
            "quantity": "2",
            "reservation_id": "",
            "order_id": "",
            "held_until": "1970-01-01T00:17:40.000+00:00",
            "details": "",
        }
        assert (paid["event"], paid["reservation_id"], paid["at"][-15:]) == (
            "confirmed.1",
            "1",
            ":16:41.500+00:00"[-15:],
        )
        assert (more["event"], more["quantity"]) == ("restocked.1", "5")


@pytest.mark.parametrize("begin", ["=", "+", "-", "@"])
async def test_a_name_that_a_spreadsheet_would_run_is_shown_as_text(begin: str) -> None:
    name = f'{begin}HYPERLINK("http://evil","x"),1'
    async with serving() as api:
        await api.open("PHONE", 9)
        await api.public.reserve("PHONE", name, key=f"{begin}1")
        body = {"buyer": "bob", "lines": [{"sku": "PHONE"}]}
        await api.public.post("/v1/orders", body, key=f"{begin}order")
        (_, reserved, *_) = await rows(api)
        assert reserved["buyer"] == "'" + name
        assert reserved["command_id"] == f"'{begin}1"
        for row in await rows(api):
            assert not any(value.startswith(tuple("=+-@\t\r")) for value in row.values())


@pytest.mark.parametrize("name", ['a,"b"', "Zoë 🎟", "a;b", "'=1"])
async def test_every_other_name_is_read_as_it_was_sent(name: str) -> None:
    async with serving() as api:
        await api.open("PHONE", 9)
        await api.public.reserve("PHONE", name, key="1")
        assert (await rows(api))[1]["buyer"] == name


@pytest.mark.parametrize("page", [1, 2, 3, 7, 8, 100])
async def test_every_event_is_there_once_however_pages_fall(
    monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(csv_export, "PAGE_COMMITS", page)
    async with serving() as api:
        await api.open("PHONE", 99)
        for number in range(5):
            await api.public.reserve("PHONE", "alice", key=str(number))
        # One commit of several events.
        await api.public.post(
            "/v1/reservations:batch",
            [{"id": f"l{number}", "sku": "PHONE", "buyer": "bob"} for number in range(4)],
        )
        found = await rows(api)
        assert [int(each["version"]) for each in found] == list(range(1, 11))
        pages = [chunk async for chunk in export(api.engine.reader, "PHONE")]
        assert len(pages) == 8


async def test_a_sku_that_nobody_sells_is_404_and_one_that_can_be_none_400() -> None:
    async with serving() as api:
        reply = await api.admin.get("/v1/admin/skus/NONE/export.csv")
        assert (reply.status, reply.reason) == (404, "unknown_sku")
        reply = await api.admin.get(f"/v1/admin/skus/{'x' * 65}/export.csv")
        assert (reply.status, reply.reason) == (400, "invalid")
