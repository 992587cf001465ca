"""Partitions over nodes: commands travel through a broker, the database fences whoever is wrong.

The way of a command, by file:

    gateway         a command side whose partitions are elsewhere; command_bus is its door
    lane            merges what is due for one partition into messages and publishes them
    wire            the messages as bytes
    broker          the connection, the streams and their checks; the only one that knows JetStream
    intake          an owner's consumer of one partition, by sequence
    deliveries      which messages are decided, and which of them may be told
    owner           a partition of ours, from taking it over to giving it back
    replies         outcomes on their way back to the gateways

Beside it:

    owners          which partitions this node takes, and which it gives back
    membership      who is alive, and whose partition is whose
    node            the heartbeat of a node
    rows, places    the stock and the queues, shown at every gateway
    totals          the counters of all engines together
    events_out      what was committed, for other systems; events_stream, events_messages
    join            a node, put together
"""
