"""What the relay tells of itself: request ids, metrics, and its log as JSON."""
