"""How long a pass takes: a real match through every case, on networks from perfect to bad."""
