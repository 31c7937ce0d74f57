"""Finding people: a photograph in, boxes with scores and, from some detectors, 17 keypoints out."""
