"""The explorer: a page on this machine that shows what operations, and whole networks, do to an image."""
