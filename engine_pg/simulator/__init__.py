"""The simulated host: hosts that speak VDSM's wire, and the judge of everything that calls them.

One process serves any number of hosts, each on a port of its own:

    connection  bytes to frames (`frames`), STOMP's commands, heart-beats
      broker    who hears which destination; replies and events go out here
      dispatch  JSON-RPC requests to calls; VDSM's traps live here
        workers    8 at work, 80 waiting; faults hold calls up before and after
          gate       fencing tokens: refuses what is stale, remembers the highest
          verbs      what a call does to the `machine` and its VMs
    journal     every call and every change of a VM, in one order, before anybody is told
    judge       reads a journal and says what must never have happened

It shares no code with the driver that speaks to it, only the constants of the wire: a misreading of
the protocol must not cancel itself out.

Does not promise: TLS, storage, migration, or VDSM's slowness with big requests.
"""
