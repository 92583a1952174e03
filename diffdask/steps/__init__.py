"""From Dataset to Dataset: check, apply a kernel, wrap; lazy."""
