"""Load for the engine: seeded workloads, crowds, measurements, and what is made of them.

A package for each thing that one does, with its `command`; what each module is for is in its `__init__`:

simulation     `seckill simulate`: a crowd on an engine in this process
strategies     the same orders through what people do today (simulate --strategies)
over_http      `seckill loadtest`: a server under a crowd of Locust; swarm and locustfile.py are that crowd
tuning         `seckill tune`: which batch setting
comparison     `seckill compare`
reports        `seckill report`: one HTML page
cluster        `make cluster-demo`
changing_load  batch settings from an idle hour through a rush to the tail
bench, bench_http, bench_cluster   `make bench` and so on

And beside them what they share:

What a sale looks like    sale, draws, workload, settings
Processes and clients     http_processes, serve_process; http_client, shop_client
Where a run lives         places, scratch, stopping; machine, which it ran on
What it says              latency, intervals, reconcile, wrong; results, reading
What is seen              progress, plots
Flags of the commands     options*, extras; the commands themselves are in engine/cli_lab.py
"""
