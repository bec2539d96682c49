"""Everything of MLflow: its store, what is written there and when, the model registry."""
