"""The crowd for Locust, with its web page or without:

    seckill serve
    locust -f loadtest/locustfile.py --host http://127.0.0.1:8080

SKU-1 (to SKU-N with --skus N) must be on sale. `seckill loadtest` does everything around it as well: a
server, a sale, the audit, a report. User classes can be named behind the flags, as in
`locust -f loadtest/locustfile.py ... Buyer Reader`; see loadtest/swarm for what they do.
"""

from locust import events

from loadtest.swarm.crowding import Crowding
from loadtest.swarm.reporting import listen
from loadtest.swarm.users import Buyer, Impatient, ListBuyer, Reader

__all__ = ["Buyer", "Crowding", "Impatient", "ListBuyer", "Reader"]

listen(events)
