"""What the relay reports about itself: request ids, metrics, and how the log is set up."""
