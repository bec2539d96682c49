"""Everything of MLflow: the store, the writer, its thread, the model registry."""
