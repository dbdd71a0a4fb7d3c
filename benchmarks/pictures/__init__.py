"""One module a picture: `draw(path)` writes it."""
