"""What a spec comes to before anything runs: steps with ids, what each needs, and what they cost."""
