"""Plans a job: every good pair in exactly one shard, and estimates of what the job costs."""
