"""Faults: what the service survives, with real processes, real servers and a proxy between them."""
