"""Local training of one client.

A SuperNode starts a process for every message, which loads torch anew. While that happens Python's
collector of reference cycles finds nothing to free, and takes a fifth of the time: it rests until
torch is there, and what is there by then is no longer looked through.
"""

import gc

if gc.isenabled():
    gc.disable()
    try:
        import torch  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()
