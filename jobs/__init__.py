"""What a person runs: the command line, training, evaluation and benchmarks."""
