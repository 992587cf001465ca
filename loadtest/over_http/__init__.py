"""`seckill loadtest`: command.

run is one load test: target is the server, process is Locust, with progress and files; summary is what is shown.
What Locust's users do is in loadtest/swarm.
"""
