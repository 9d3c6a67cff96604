"""What every part may use: pytrees, files, devices and hosts, what is chosen by platform."""
