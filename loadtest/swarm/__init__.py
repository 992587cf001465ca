"""Locust's crowd. The way of one buyer, by file name:

crowding   how many users there are, by the shapes of shapes.py
arrivals   when the next order is due: at once (closed loop), or by a timetable (open loop)
orders     who orders what: the seeded generator, without end
users      what a buyer does: token, reserve, pay or leave; lists, questions, impatient repeats
calls      one request, and what its reply means
books      what became of it, and how long it took since it was due
reporting  the books of all processes come together in one, and on the screen

Speaks HTTP only and imports nothing of the engine. Locust patches the whole process when it is
imported, so it runs in processes of its own: `seckill loadtest` starts them, or `locust` by hand.
"""
