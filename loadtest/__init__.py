"""Load for the engine: seeded workloads, crowds, measurements, and what is made of them.

What a sale looks like    sale, draws, settings, workload; orders_file for recorded ones
A simulated sale          simulate: crowd, payers, carts, settle; reconcile, summary, progress
Strategies                strategies: baselines, redis_lua
Over HTTP with Locust     loadtest_command, locust_run: locust_target (the server), locust_process
                          (Locust), swarm/ (what its users do), shop_client
Tuning                    tune_command, tune (what is tried), tune_runs, tune_search, tune_journal;
                          drivers, http_driver, locust_driver; recommend
A load that changes       changing_load
Benchmarks                bench (the engine), bench_http (the service): http_load, http_processes
                          bench_cluster (the way over brokers): its _steps, _runs, _brokers,
                          _programs (processes) and _caller (what they run)
A cluster                 cluster_demo: cluster_processes (all of it; serve_process is one),
                          cluster_sale (its buyers), cluster_figures,
                          cluster_report
Results                   results, reading; intervals and latency; machine
What is made of them      compare_command: entries, comparing, likeness; report: report_page and
                          report_run, report_tune, report_strategies; plots, tune_page

Command lines are in engine/cli_lab.py, their flags in options*.py. A run has a place of its own by
places and scratch.
"""
