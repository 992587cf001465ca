"""Partitions over nodes: commands travel through a broker, the database fences whoever is wrong.

The way of a command, by file:

    remote_bus      the door of a gateway: checks, admits, keeps who waits for an answer
    outbox          merges what is due for one partition into one message and publishes it
    wire            the messages as bytes
    broker          the connection, the streams and their checks; the only one that knows JetStream
    intake          an owner's consumer of one partition, by sequence
    deliveries      which messages are decided, and which of them may be told
    owner           a partition of ours, from taking it over to giving it back
    membership      who is alive, and whose partition is whose
    node            an engine node and a gateway, put together
    events_out      what was committed, for other systems
"""
