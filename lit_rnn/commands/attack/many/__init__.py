"""Many runs under attack, side by side: mean and spread over seeds, and what robustness goes along with."""
