"""What any HTTP server needs: bodies, error responses, allowed hosts and origins, nested query strings."""
