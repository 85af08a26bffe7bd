"""Table 3: orders of the codes in the location-aware palette."""

ROWS = {
  'none': {'codes.palette': 'none'},
  'different': {'codes.palette': 'different'},
  'random': {'codes.palette': 'random'},
  'similar': {},
}
PAPER = {
  'none': (0.517, 0.367),
  'different': (0.640, 0.422),
  'random': (0.644, 0.421),
  'similar': (0.670, 0.434),
}
