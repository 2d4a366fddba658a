"""What treatments cost on a machine: single sites, timed in turns, and prices fitted to them."""
