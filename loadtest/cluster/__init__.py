"""A sale over a cluster of processes: `python -m loadtest.cluster.demo`.

processes are all of it, sale its buyers, figures what comes of it, report what is shown.
"""
