"""What drives steps to their ends: schedule, budgets, and processes here or on Ray."""
