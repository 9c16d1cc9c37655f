"""Real servers on loopback for tests and benchmarks: each with its own configuration in a directory that
the caller gives, on a free port, and gone when its context ends."""
