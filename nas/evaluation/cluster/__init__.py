"""Many machines: a Ray cluster, on each node of which an agent trains with the local evaluator."""
