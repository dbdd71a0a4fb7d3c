"""The world: environments, acting and evaluation. Needs neither ray nor grpc."""
