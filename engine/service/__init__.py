"""The HTTP service. The way of one order, by file name:

POST /v1/skus/{sku}/reservations             server.py   limits of a connection, uvicorn
  app       the order path is met first, everything else goes through Starlette
  access    who is calling: anybody, a buyer with a purchase token, the shop's backend
  orders    decode, ask the gate, hand over to the engine, answer
  replies   an outcome or an error as status, headers and body
engine.execute(Reserve(...))                 engine/cqrs/command_side/
"""
