"""One thread per test process: two workers with two threads each on two cores wait for each other more than they work."""

import torch

torch.set_num_threads(1)
