"""``make demo``: Stateroom in a minute. What a training job, an inference host and a new run do with a checkpoint."""
