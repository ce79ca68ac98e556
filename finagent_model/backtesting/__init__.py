"""What decisions would have earned: next-open fills, costs, stops. Knows signals, never agents."""
