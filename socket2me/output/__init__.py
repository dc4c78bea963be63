"""What the command prints: lines, JSON, and the live screen."""
