"""From sources to shards: every good pair in exactly one shard, and what the job would cost."""
