"""The record of a run: what its folder's files hold, and one way to write, read and sum them up."""
