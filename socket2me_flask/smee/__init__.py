"""The protocol of smee.io: streams of events for its clients, and for gosmee's.

A channel is a token, and a stream is a client of it (`relay.delivery.Client`). What is sent, `frames` makes;
`channel_keys` checks the key of a listener; `stream` is one stream and `streams` all of them.
"""
