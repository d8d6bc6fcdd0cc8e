"""What the project promises of itself: cheap to look at, and it keeps the house."""
