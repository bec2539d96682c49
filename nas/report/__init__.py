"""What a person reads about a search: terminal, card, page and MLflow's descriptions."""
