"""What people get to see: pictures, label files, pages about a dataset."""
