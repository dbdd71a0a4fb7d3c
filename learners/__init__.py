"""The mathematics: networks, losses, learners and the policies actors run. Needs neither ray, grpc nor gymnasium."""
