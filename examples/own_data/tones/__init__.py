"""A data set and an encoder of one's own."""
