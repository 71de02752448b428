"""Sweeps: from what varies to runs, whoever starts them."""
