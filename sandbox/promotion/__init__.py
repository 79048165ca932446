"""The way of a validated result to production, and back."""
