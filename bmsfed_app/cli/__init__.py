"""The command line."""

#: Clients of a simulation whose configuration leaves their number to the federation.
DEFAULT_CLIENTS = 10
