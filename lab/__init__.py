"""Where claims are tested: the demo and, later, the labs. The only floor that needs graphs and train together."""
