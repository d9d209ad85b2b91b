"""The driver for VDSM: JSON-RPC over STOMP on one TCP connection."""
