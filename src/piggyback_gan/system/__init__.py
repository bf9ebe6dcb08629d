"""Files, options, devices and processes; no banks and no images."""
