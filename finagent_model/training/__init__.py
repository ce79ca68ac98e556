"""Fit the policy walk-forward; let the desk itself decide on what the fit has not seen."""
