"""What a bundle is compared with: torch itself, and other people's ways to eight bits on a GPU."""
