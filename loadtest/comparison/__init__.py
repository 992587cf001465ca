"""`seckill compare`: command.

arguments name results, entries are their runs in one form, comparing says who is faster, likeness what makes that
unfair.
"""
