"""`seckill simulate`: command.

simulate runs a crowd, with payers and carts, and settle ends it; orders_file replays recorded orders; summary is
what is shown.
"""
