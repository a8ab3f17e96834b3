"""The mathematics of selection: signatures, their sketches, and covering clients by them."""
