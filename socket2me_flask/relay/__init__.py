"""Which client receives a call, how long the call waits, and what its caller receives. No Flask, no Socket.IO."""
