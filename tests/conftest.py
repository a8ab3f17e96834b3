"""Settings of the whole test run."""

import torch

# The tensors are tiny: more threads only wait for each other.
torch.set_num_threads(1)
