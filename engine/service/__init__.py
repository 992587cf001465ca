"""The HTTP service. The way of one order, by file name:

POST /v1/skus/{sku}/reservations
  server      a connection with its limits (door.py); hands a whole order over, without a task
  app         whether it is an order; everything else goes through Starlette (public.py, admin.py)
  access      who is calling: anybody, a buyer with a purchase token (tokens.py), the shop
  orders      decode, ask the gate, queue it in the engine
engine.submit(Reserve(...))                  engine/cqrs/command_side/
  orders      the answer, once it is durable
  replies     an outcome or an error as status, headers and body
  server      one write
and how it gets to the page:
  live_stock  the row as the transaction left it (engine/live_stock.py)
  figures     the difference of two snapshots is a point
  stream      points to whoever looks
service.py puts the parts together, serve.py starts and stops them.
"""
