"""Text that models generate: before training, or on policy as the student learns, and its policy gradient."""
