"""The parts of the service put together around an engine: two applications that share them."""

from __future__ import annotations

from importlib.metadata import version
from typing import NamedTuple

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.clock import Clock
from engine.engine import Engine
from engine.gate.gate import Gate
from engine.service.access import Access
from engine.service.admin import Admin
from engine.service.app import Application
from engine.service.buyer_stream import BuyerStreams
from engine.service.calls import Operation, routes
from engine.service.health import Health
from engine.service.metrics import Metrics
from engine.service.openapi import openapi_operation
from engine.service.order_lists import OrderLists
from engine.service.orders import Orders
from engine.service.pages import Pages
from engine.service.public import Public
from engine.service.reservations import Reservations
from engine.service.stream import Stream
from engine.service.tally import Tally
from engine.service.waiting import Waiting
from engine.service.wire import About, StoreAbout


class Urls(NamedTuple):
    """Where the two listeners are reached; `public` is empty where there is none for buyers."""

    public: str
    admin: str


class Service:
    """`public` is the application of the buyers' listener, `admin` that of the operator's.

    `run` has to run beside them. `operations` is the whole API, for the document and its tests.
    """

    def __init__(self, engine: Engine, gate: Gate | None, clock: Clock, urls: Urls) -> None:
        settings = engine.settings
        service, auth = settings.service, settings.auth
        access = Access(auth, clock)
        self.tally = Tally(gate)
        about = _about(engine, urls)
        self.stream = Stream(engine, about, clock)
        self._buyer_streams = BuyerStreams(
            engine.live, Waiting(engine.live, clock), Reservations(engine), clock
        )
        public = Public(engine, access, self.stream, self._buyer_streams, about)
        admin = Admin(engine, Metrics(engine, self.tally), auth, clock)
        self.health = Health(engine, self.tally)
        pages = Pages()

        health = self.health.operations()
        buying = public.operations(figures=service.public_dashboard)
        api = [*buying, *admin.operations(), *health]
        document = openapi_operation(api)
        static = [pages.static(), document]
        for_buyers: list[Operation] = [*buying, *health, *static, pages.shop()]
        if service.public_dashboard:
            for_buyers.append(pages.dashboard())
        for_operators = [
            *(*admin.operations(), *public.live(figures=True), *health, *static),
            pages.dashboard(),
        ]
        self.operations = [*api, document]
        lists = OrderLists(engine, access, gate, service.body_bytes_max, service.lists_bytes_max)
        orders = Orders(engine, access, gate)
        self.public = Application(routes(for_buyers, access), self.tally, orders, lists)
        self.admin = Application(
            routes(for_operators, access),
            self.tally,
            loopback_only=auth.admin_secret == DEFAULT_ADMIN_SECRET,
        )

    async def run(self) -> None:
        """Make the points of the live page, until cancelled."""
        await self.stream.run()

    def drain(self) -> None:
        """Tell load balancers to send nobody; buyers who come are still served."""
        self.health.draining = True

    def stop_taking(self) -> None:
        """Refuse every new request and end the streams; what was taken is finished."""
        self.public.closing = self.admin.closing = True
        self.stream.close()
        self._buyer_streams.close()


def _about(engine: Engine, urls: Urls) -> About:
    info = engine.info
    store = StoreAbout(info.kind, info.version, info.durability)
    service = engine.settings.service
    admin_url = urls.admin if service.public_dashboard else None
    mode = engine.settings.auth.mode
    return About(version("seckill-engine"), store, mode, urls.public, admin_url)
