"""Looking into networks and runs."""
