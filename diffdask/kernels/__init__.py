"""Mathematics of one frame or one pair, on bare arrays; NumPy and Numba only."""
