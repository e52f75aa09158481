"""What a sweep asks for: its YAML, validated whole, and what a person reads where it is wrong."""
