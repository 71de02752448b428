"""What there is to know of a run, as one HTML file."""
