"""Commands that ask the planner about a student, its teachers and budgets; they need no training."""
