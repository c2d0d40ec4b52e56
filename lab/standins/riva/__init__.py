"""Stand-in for the NVIDIA Riva speech server: its protocols, queue and metrics, without GPU and weights."""
