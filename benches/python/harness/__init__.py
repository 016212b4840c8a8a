"""What every Python benchmark shares: contenders, interleaved rounds, the machine, reports."""
