"""The life of a job: config, sources, plan, engine and worker, dataset."""
