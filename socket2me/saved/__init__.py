"""What is kept in files: requests, and the tokens of earlier commands."""
