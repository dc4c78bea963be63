"""What the relay reports about itself: request ids, metrics, and the log as JSON."""
