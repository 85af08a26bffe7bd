"""Figure 3: encodings against the number of codes."""

ROWS = {
  f'{encoding}, {count}': {
    'codes.encoding': encoding,
    'codes.num_codes': count,
  }
  for encoding, counts in {
    'analog_bits': (4, 16, 64, 256, 1024),
    'onehot': (4, 16, 64, 256),
    'rgb': (4, 16, 64),
  }.items()
  for count in counts
}
PAPER = {}
