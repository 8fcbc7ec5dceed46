"""What a run is: typed settings, YAML presets, and the error that every floor's errors descend from."""
