"""Fitting the policy walk-forward, and letting the desk itself decide on what the fit has not seen."""
