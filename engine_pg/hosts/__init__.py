"""What a host can be asked, and the drivers that ask it.

`driver` is the protocol every host speaks to the engine; `vdsm/` is the driver for VDSM, the only
one today; `domain` writes the libvirt XML that starts a VM; `connections` keeps one live connection
for each host of a node.

A host is shared: several nodes talk to it at once, each over its own connection, and what orders
their changes are the fencing tokens that each call carries (`OpCtx.held`). A host that announces
`fencing="all"` refuses a call whose token is lower than one it has seen for the same key. A plain
VDSM does not check, so there the engine's own rules carry alone: act only under a lease, wait out a
predecessor's lease, command idempotently, look before repeating.
"""
