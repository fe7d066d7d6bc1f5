"""Load tests and benchmarks: the service measured from outside."""
