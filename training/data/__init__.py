"""RGB-D data sets as sequences of `Pair`, and the augmentation that feeds training."""
