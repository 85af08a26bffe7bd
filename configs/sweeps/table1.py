"""Table 1: encodings, without and with the location-aware palette."""

ROWS = {
  'one-hot': {'codes.encoding': 'onehot', 'codes.palette': 'none'},
  'RGB': {'codes.encoding': 'rgb', 'codes.palette': 'none'},
  'bits': {'codes.palette': 'none'},
  'one-hot, LAP': {'codes.encoding': 'onehot'},
  'RGB, LAP': {'codes.encoding': 'rgb'},
  'bits, LAP': {},
}
# ARI and IoU on EntitySeg, as published.
PAPER = {
  'one-hot': (0.168, 0.186),
  'RGB': (0.460, 0.283),
  'bits': (0.515, 0.368),
  'one-hot, LAP': (0.528, 0.323),
  'RGB, LAP': (0.524, 0.312),
  'bits, LAP': (0.670, 0.432),
}
