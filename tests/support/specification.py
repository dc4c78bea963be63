"""What the API's specification shows."""

# The headers of its example of a call, by the names that a client receives.
EXAMPLE_HEADERS = {
    "host": "socket.bothub.io",
    "connection": "close",
    "x-real-ip": "5.5.5.5",
    "x-forwarded-for": "5.5.5.5",
    "x-forwarded-proto": "http",
    "accept-encoding": "gzip, deflate",
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "user-agent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_4) AppleWebKit/601.5.17",
    "accept-language": "en-us",
    "cache-control": "max-age=0",
}
