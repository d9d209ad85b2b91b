"""The driver for VDSM: JSON-RPC over STOMP on one TCP connection.

    client       VdsmDriver: the verbs
    replies      what VDSM says, as the engine's own types
    faults       its error codes, as the engine's errors
    events       its notifications, fanned out to any number of readers
    rpc          calls and their answers
    stomp        one connection: greeting, heart-beats, loss
    frames       bytes and frames
    constants    the wire's words and numbers

VDSM's habits that shaped this: answers go to everybody subscribed to the reply queue, so each
connection has one of its own; a request without an id stops its dispatcher, and a batch is never
answered, so neither is ever sent; a queued call runs on when its caller is gone.
"""
