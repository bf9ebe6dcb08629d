"""Files, option values, devices and processes: knows neither banks nor images."""
