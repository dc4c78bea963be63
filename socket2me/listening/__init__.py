"""What `socket2me listen` does with each request: its receivers, their answers, and the history of both."""
