"""Items that actions choose from: their embeddings, distances between them, and search for the nearest."""
