"""What the tests of several folders share: an oracle in plain Python, and a service with its lake."""
