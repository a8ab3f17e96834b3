"""What :mod:`benchmarks.engine` compares."""
