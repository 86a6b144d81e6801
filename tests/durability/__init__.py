"""What is left of a run's folder after crashes, power cuts, full disks and flipped bits."""
