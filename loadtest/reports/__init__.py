"""`seckill report`: command.

What a page consists of is in page; of one run, of strategies and of tuning in run, strategies and tune.
"""
