"""`seckill tune`: command.

experiment is what is tried, runs how it goes, with search and journal; drivers send the orders. recommend chooses,
and page, plots, report and words show it.
"""
