"""``make demo``: Stateroom in a minute. A training job, an inference host and a new run use a checkpoint."""
