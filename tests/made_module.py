"""A module that registers nothing, for tests of who may have it imported."""
