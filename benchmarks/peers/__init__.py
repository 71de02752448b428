"""One network trained or asked by several libraries, side by side: what `benchmarks/bench.py` is made of."""
