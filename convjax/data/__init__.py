"""Examples: where they come from, in which order, and with which augmentation."""
