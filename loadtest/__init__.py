"""Load for the engine: seeded workloads, a simulated crowd, measurements, reports."""
